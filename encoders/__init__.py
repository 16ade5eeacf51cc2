"""Observation encoders: raw observations of any leading shape -> latents z, a vector (D,) or a map (C, H, W).

A leaf package: it depends on Gymnasium spaces and PyTorch, and not on the world model.
"""

from encoders.auto import auto_encoder
from encoders.conv import Conv
from encoders.dict import Dict
from encoders.discrete import Discrete
from encoders.encoder import CodeEncoder, Encoder, Obs
from encoders.grid import Grid
from encoders.mlp import MLP
from encoders.pretrained import Pretrained
from encoders.resnet import ResNet
from encoders.rule import leaf_encoder
from encoders.standardise import Standardise

__all__ = [
    "MLP",
    "CodeEncoder",
    "Conv",
    "Dict",
    "Discrete",
    "Encoder",
    "Grid",
    "Obs",
    "Pretrained",
    "ResNet",
    "Standardise",
    "auto_encoder",
    "leaf_encoder",
]
