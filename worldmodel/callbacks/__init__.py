"""What happens around training."""

from worldmodel.callbacks.checkpoints import Checkpoints
from worldmodel.callbacks.metrics import Metrics
from worldmodel.callbacks.progress import ProgressBar
from worldmodel.callbacks.signals import StopOnSignal

__all__ = ["Checkpoints", "Metrics", "ProgressBar", "StopOnSignal"]
