"""Callbacks of the training loop."""

from worldmodel.training.callbacks.alive_value import AliveValue
from worldmodel.training.callbacks.budget import StopAtBudget
from worldmodel.training.callbacks.checkpoints import CheckpointFiles, Checkpoints
from worldmodel.training.callbacks.collapse import CollapseGuard
from worldmodel.training.callbacks.metrics import Metrics
from worldmodel.training.callbacks.noise_scale import NoiseScale
from worldmodel.training.callbacks.priorities import ReplayPriorities
from worldmodel.training.callbacks.progress import ProgressBar
from worldmodel.training.callbacks.resets import Resets
from worldmodel.training.callbacks.signals import StopOnSignal
from worldmodel.training.callbacks.solved import StopWhenSolved
from worldmodel.training.callbacks.taken import StopIfTaken

__all__ = [
    "AliveValue",
    "CheckpointFiles",
    "Checkpoints",
    "CollapseGuard",
    "Metrics",
    "NoiseScale",
    "ProgressBar",
    "ReplayPriorities",
    "Resets",
    "StopAtBudget",
    "StopIfTaken",
    "StopOnSignal",
    "StopWhenSolved",
]
