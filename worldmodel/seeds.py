"""Seeds derived from the seed of a run."""

from __future__ import annotations

import numpy as np

ENVS, SAMPLING, IMAGINATION, RESETS = range(4)
"""Uses of derived seeds; each is the first number of a key."""


def derive_seed(seed: int, *key: int) -> int:
    """Return a seed from 0 to 2**63 - 1 that belongs to a run's seed (from 0) and to whole numbers from 0.

    Equal arguments give equal seeds. Different ones give independent seeds, which sums of seed and rank would not.
    """
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> np.uint64(1))
