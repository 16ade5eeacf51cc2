"""Seeds of ranks and restarts."""

from __future__ import annotations

import itertools

from helpers.tiny import build_data, tiny_config

from worldmodel.seeds import ENVS, RESETS, derive_seed


def test_no_two_ranks_restarts_or_runs_share_a_seed() -> None:
    keys = list(itertools.product((0, 1, 1000, 2**32, 2**32 + 1, 2**63), (ENVS, RESETS), range(4), (0, 1, 10**6)))
    seeds = [derive_seed(seed, *key) for seed, *key in keys]
    assert len(set(seeds)) == len(keys) and min(seeds) >= 0 and max(seeds) < 2**63
    assert seeds == [derive_seed(seed, *key) for seed, *key in keys]


def test_a_rank_has_other_environments_than_a_run_of_another_seed() -> None:
    found = []
    for seed, rank in ((0, 0), (0, 1), (1000, 0)):  # 0 + 1000 * 1 = 1000 + 1000 * 0
        stream = build_data(tiny_config(f"seed={seed}")).stream
        stream.rank = rank
        found.append(stream._new_env_seed())
        stream.rollouts = 7
        found.append(stream._new_env_seed())
    assert len(set(found)) == 6
