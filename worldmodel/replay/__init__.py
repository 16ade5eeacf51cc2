"""Past sequences: as records, in memory or on disk, drawn uniformly or by what they are worth."""

from worldmodel.replay.priority import Curious
from worldmodel.replay.records import rehearsal
from worldmodel.replay.replay import Replay, concatenate

__all__ = ["Curious", "Replay", "concatenate", "rehearsal"]
