"""Intrinsic rewards: one file a signal."""

from worldmodel.curiosity.curiosity import Curiosity
from worldmodel.curiosity.error import Error
from worldmodel.curiosity.none import Nothing
from worldmodel.curiosity.reward import RewardScale
from worldmodel.curiosity.rnd import RND
from worldmodel.curiosity.surprise import Surprise

__all__ = ["RND", "Curiosity", "Error", "Nothing", "RewardScale", "Surprise"]
