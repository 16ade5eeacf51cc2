"""Heads: predictions from the memory, one file each."""

from worldmodel.model.heads.base import Head
from worldmodel.model.heads.codes import CodesHead, CodesPrediction
from worldmodel.model.heads.dynamics import DynamicsHead, Forecast, Prediction
from worldmodel.model.heads.observation import ObservationHead
from worldmodel.model.heads.recall import RecallHead

__all__ = [
    "CodesHead",
    "CodesPrediction",
    "DynamicsHead",
    "Forecast",
    "Head",
    "ObservationHead",
    "Prediction",
    "RecallHead",
]
