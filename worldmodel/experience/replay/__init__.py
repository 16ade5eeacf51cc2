"""Replay of past sequences: stored in memory or on disk, drawn uniformly or by priority."""

from worldmodel.experience.replay.priority import CuriousReplayPriority
from worldmodel.experience.replay.records import rehearsal
from worldmodel.experience.replay.replay import Replay, concatenate

__all__ = ["CuriousReplayPriority", "Replay", "concatenate", "rehearsal"]
