"""Replay of past sequences: stored in memory or on disk, drawn uniformly or by priority."""

from worldmodel.experience.replay.priority import CuriousReplayPriority
from worldmodel.experience.replay.replay import Replay

__all__ = ["CuriousReplayPriority", "Replay"]
