"""Heads: predictions from the memory, one file each."""

from worldmodel.model.heads.base import Head
from worldmodel.model.heads.dynamics import DynamicsHead, Prediction
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.model.heads.recall import RecallHead

__all__ = ["DynamicsHead", "Head", "ObservationHead", "Prediction", "RecallHead"]
