"""Intrinsic rewards: one file a signal."""

from worldmodel.curiosity.curiosity import Curiosity
from worldmodel.curiosity.error import Error
from worldmodel.curiosity.none import Nothing
from worldmodel.curiosity.reward import RewardScale
from worldmodel.curiosity.surprise import Surprise

__all__ = ["Curiosity", "Error", "Nothing", "RewardScale", "Surprise"]
