"""Intrinsic rewards: one file a signal."""

from worldmodel.curiosity.ama import AMA
from worldmodel.curiosity.byol_explore import BYOLExplore
from worldmodel.curiosity.curiosity import Curiosity
from worldmodel.curiosity.curiosity_critic import CuriosityCritic
from worldmodel.curiosity.disagreement import Disagreement
from worldmodel.curiosity.error import Error
from worldmodel.curiosity.icm import ICM
from worldmodel.curiosity.learning_progress import LearningProgress
from worldmodel.curiosity.max import MAX
from worldmodel.curiosity.none import Nothing
from worldmodel.curiosity.plan2explore import Plan2Explore
from worldmodel.curiosity.random_features import RandomFeatureError
from worldmodel.curiosity.reward import RewardScale
from worldmodel.curiosity.rnd import RND
from worldmodel.curiosity.surprise import Surprise

__all__ = [
    "AMA",
    "ICM",
    "MAX",
    "RND",
    "BYOLExplore",
    "Curiosity",
    "CuriosityCritic",
    "Disagreement",
    "Error",
    "LearningProgress",
    "Nothing",
    "Plan2Explore",
    "RandomFeatureError",
    "RewardScale",
    "Surprise",
]
