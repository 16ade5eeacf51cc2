"""What is counted over the rollouts of training, from what the environments tell in `info`."""

from worldmodel.envs.metrics.achievements import Achievements
from worldmodel.envs.metrics.base import Metric
from worldmodel.envs.metrics.coverage import Coverage
from worldmodel.envs.metrics.tv import TVShare

__all__ = ["Achievements", "Coverage", "Metric", "TVShare"]
