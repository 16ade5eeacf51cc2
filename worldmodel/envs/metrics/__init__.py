"""Metrics counted over the rollouts of training, from the environments' `info`."""

from worldmodel.envs.metrics.achievements import Achievements
from worldmodel.envs.metrics.base import Metric
from worldmodel.envs.metrics.coverage import Coverage
from worldmodel.envs.metrics.doors import DoorSuccess
from worldmodel.envs.metrics.tv import TVShare

__all__ = ["Achievements", "Coverage", "DoorSuccess", "Metric", "TVShare"]
