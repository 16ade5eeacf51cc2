"""What is counted over the rollouts of training, from what the environments tell in `info`."""

from worldmodel.meters.achievements import Achievements
from worldmodel.meters.coverage import Coverage
from worldmodel.meters.meter import Meter
from worldmodel.meters.tv import TVShare

__all__ = ["Achievements", "Coverage", "Meter", "TVShare"]
