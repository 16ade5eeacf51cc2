"""What happens around training."""

from worldmodel.callbacks.checkpoints import Checkpoints
from worldmodel.callbacks.collapse import CollapseGuard
from worldmodel.callbacks.metrics import Metrics
from worldmodel.callbacks.noise_scale import NoiseScale
from worldmodel.callbacks.progress import ProgressBar
from worldmodel.callbacks.resets import Resets
from worldmodel.callbacks.signals import StopOnSignal
from worldmodel.callbacks.solved import StopWhenSolved

__all__ = [
    "Checkpoints",
    "CollapseGuard",
    "Metrics",
    "NoiseScale",
    "ProgressBar",
    "Resets",
    "StopOnSignal",
    "StopWhenSolved",
]
