"""Intrinsic rewards, one file per signal."""

from worldmodel.curiosity.ama import AMA
from worldmodel.curiosity.base import AgentSpec, Curiosity, PerEnvState, per_env_buffers
from worldmodel.curiosity.bayesian_surprise import BayesianSurprise
from worldmodel.curiosity.byol_explore import BYOLExplore
from worldmodel.curiosity.cfn import CFN
from worldmodel.curiosity.combination import Product, WeightedSum
from worldmodel.curiosity.count import Count
from worldmodel.curiosity.curiosity_critic import CuriosityCritic
from worldmodel.curiosity.deir import DEIR
from worldmodel.curiosity.disagreement import Disagreement
from worldmodel.curiosity.e3b import E3B
from worldmodel.curiosity.error import Error
from worldmodel.curiosity.etd import ETD
from worldmodel.curiosity.icm import ICM
from worldmodel.curiosity.learning_progress import LearningProgress
from worldmodel.curiosity.max import MAX
from worldmodel.curiosity.ngu import NGU
from worldmodel.curiosity.none import NoCuriosity
from worldmodel.curiosity.noveld import NovelD
from worldmodel.curiosity.plan2explore import Plan2Explore
from worldmodel.curiosity.random_features import RandomFeatureError
from worldmodel.curiosity.re3 import RE3
from worldmodel.curiosity.reward_normalizer import RewardNormalizer
from worldmodel.curiosity.ride import RIDE
from worldmodel.curiosity.rnd import RND
from worldmodel.curiosity.surprise import Surprise

__all__ = [
    "AMA",
    "CFN",
    "DEIR",
    "E3B",
    "ETD",
    "ICM",
    "MAX",
    "NGU",
    "RE3",
    "RIDE",
    "RND",
    "AgentSpec",
    "BYOLExplore",
    "BayesianSurprise",
    "Count",
    "Curiosity",
    "CuriosityCritic",
    "Disagreement",
    "Error",
    "LearningProgress",
    "NoCuriosity",
    "NovelD",
    "PerEnvState",
    "Plan2Explore",
    "Product",
    "RandomFeatureError",
    "RewardNormalizer",
    "Surprise",
    "WeightedSum",
    "per_env_buffers",
]
