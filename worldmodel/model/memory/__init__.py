"""Memories: x_1..x_t of an episode -> h_t, with one interface, selected by name."""

from worldmodel.model.memory.base import Memory, State
from worldmodel.model.memory.gru import GRU
from worldmodel.model.memory.huggingface import HuggingFace
from worldmodel.model.memory.mlp import MLP
from worldmodel.model.memory.transformer import Transformer

__all__ = ["GRU", "MLP", "HuggingFace", "Memory", "State", "Transformer"]
