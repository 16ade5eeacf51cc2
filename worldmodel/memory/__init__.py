"""Memories: x_1..x_t of an episode -> h_t. One interface, so that they can be exchanged by name."""

from worldmodel.memory.gru import GRU
from worldmodel.memory.huggingface import HuggingFace
from worldmodel.memory.memory import Memory, State
from worldmodel.memory.mlp import MLP
from worldmodel.memory.transformer import Transformer

__all__ = ["GRU", "MLP", "HuggingFace", "Memory", "State", "Transformer"]
