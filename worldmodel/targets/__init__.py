"""Latent targets: what the world model predicts the changes of, and what keeps it from collapsing."""

from worldmodel.targets.collapse import effective_rank, latent_std
from worldmodel.targets.ema import EMA
from worldmodel.targets.frozen import Frozen
from worldmodel.targets.inverse import Inverse
from worldmodel.targets.reconstruction import Reconstruction
from worldmodel.targets.sigreg import SIGReg
from worldmodel.targets.target import Target
from worldmodel.targets.vicreg import VICReg

__all__ = [
    "EMA",
    "Frozen",
    "Inverse",
    "Reconstruction",
    "SIGReg",
    "Target",
    "VICReg",
    "effective_rank",
    "latent_std",
]
