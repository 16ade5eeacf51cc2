"""Activations of an agent on its own rollouts, row by row, and an observation head on a frozen memory."""

from __future__ import annotations

import math

import pytest
import torch
from gymnasium.spaces import Discrete
from helpers.experience import MESS3, recorded
from helpers.tiny import EASY, tiny_agent

from worldmodel.analysis.probes.activations import Activations, read
from worldmodel.analysis.probes.information import age
from worldmodel.analysis.probes.observation import fit_observation_head, ideal_bits, observation_bits, transitions
from worldmodel.analysis.probes.variables import settled, variables


@pytest.fixture(scope="module")
def grid() -> tuple:
    return recorded(*EASY, "memory.depth=2")


def test_activations_are_those_of_acting(grid: tuple) -> None:
    agent, _, rolls = grid
    seen = read(agent.model, rolls)
    assert list(seen.layers) == ["token", "1", "2"] and len(rolls) > 1
    assert {x.shape[:2] for x in (*seen.layers.values(), seen.z, seen.obs, seen.act)} == {(4, 8 * len(rolls))}
    torch.testing.assert_close(seen.h, torch.cat([r.h for r in rolls], 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.z, torch.cat([r.z for r in rolls], 1))
    assert seen.y.shape == (*seen.mask.shape, 8)


def test_streams_go_on_from_rollout_to_rollout(grid: tuple) -> None:
    agent, _, rolls = grid
    seen = read(agent.model, rolls)
    assert torch.equal(seen.obs[:, 8], rolls[0].obs[:, -1]) and not seen.mask[:, -1].any()
    assert torch.equal(seen.mask[:, 7], rolls[0].new_steps(rolls[0].mask)[:, 7])
    by_hand = seen.y[:, 8] - seen.y[:, 7]
    assert seen.mask[:, 7].any()
    torch.testing.assert_close(seen.delta[:, 7], by_hand * seen.mask[:, 7, None])
    # within an episode a masked row ends it; numbers are not shared by streams
    ends = seen.episode[:, 1:] != seen.episode[:, :-1]
    assert torch.equal(ends, ~seen.mask[:, :-1])
    assert len(seen.episode.unique()) == sum(len(e.unique()) for e in seen.episode)


def test_context_is_the_episode_as_far_as_the_window_reaches(grid: tuple) -> None:
    agent, _, rolls = grid
    seen = read(agent.model, rolls)
    reach = 4 + torch.arange(seen.mask.shape[1]) % 8  # K rows and those of this rollout
    assert torch.equal(seen.context, torch.minimum(age(seen.episode), reach)) and seen.context.max() > 4


def test_another_model_reads_the_same_rows(grid: tuple) -> None:
    agent, _, rolls = grid
    torch.manual_seed(1)
    other, data, _ = tiny_agent(*EASY, "memory.depth=2")
    data.close()
    seen, control = read(agent.model, rolls), read(other.model, rolls)
    assert torch.equal(seen.obs, control.obs) and not torch.allclose(seen.h, control.h)


@pytest.fixture(scope="module")
def tokens() -> tuple:
    return recorded(*MESS3, "env.num_envs=16", "memory.dim=32", episodes=128)


def test_info_stands_beside_the_observation_it_was_told_with(tokens: tuple) -> None:
    """The belief after a token, from nothing but the belief before it and that token."""
    agent, _, rolls = tokens
    seen = read(agent.model, rolls)
    belief, before = seen.info["belief"], seen.info["predictive"][:, :, 0]
    assert belief.shape == (*seen.mask.shape, 3) and "state" in seen.info
    first = age(seen.episode) == 0
    for token in range(3):  # at a start it's a function of the token alone: 1/3 (a + ...) by symmetry
        rows = belief[first & (seen.obs == token)]
        assert len(rows) and (rows - rows[0]).abs().max() < 1e-9 and rows[0].argmax() == token
    likely = before.gather(-1, seen.obs.roll(-1, 1)[..., None]).squeeze(-1)[seen.mask]
    assert -likely.log().mean() == pytest.approx(0.81, abs=0.03)


def test_a_head_on_a_frozen_memory_learns_and_leaves_the_model_alone(tokens: tuple) -> None:
    agent, _, rolls = tokens
    seen = read(agent.model, rolls)
    before = {k: v.clone() for k, v in agent.state_dict().items()}
    state = torch.get_rng_state()
    head = fit_observation_head(agent.model, seen, Discrete(3), hidden=32, steps=300)
    assert torch.equal(state, torch.get_rng_state()) and not bool(head.joint)
    assert all(torch.equal(v, before[k]) for k, v in agent.state_dict().items())
    cost = observation_bits(agent.model, head, seen)
    assert torch.equal(cost.isnan(), ~seen.mask)
    # Mess3 with the present token alone: about 1.24 bits; log2 3 = 1.58 without a head's learning
    assert 1.1 < cost[seen.mask].mean() < 1.3 < math.log2(3)


def test_transitions_pair_h_with_the_next_symbol(tokens: tuple) -> None:
    agent, _, rolls = tokens
    seen: Activations = read(agent.model, rolls)
    _, _, codes, _ = transitions(agent.model, seen)
    n, t = (x[5] for x in seen.mask.nonzero(as_tuple=True))
    assert codes.shape[1:] == (1, 1) and int(codes[5]) == int(seen.obs[n, t + 1])


def test_an_ideal_observer_pays_by_the_exact_chances(tokens: tuple) -> None:
    agent, _, rolls = tokens
    seen: Activations = read(agent.model, rolls)
    cost = ideal_bits(seen)
    assert torch.equal(cost.isnan(), ~seen.mask)
    n, t = (x[7] for x in seen.mask.nonzero(as_tuple=True))
    chance = seen.info["predictive"][n, t, int(seen.act[n, t]), int(seen.obs[n, t + 1])]
    assert cost[n, t] == pytest.approx(-math.log2(float(chance)))
    late = seen.mask & (seen.context >= 4)
    assert cost[late].mean() == pytest.approx(1.1447, abs=0.05)  # Mess3's entropy rate


def test_variables_are_those_of_so_many_steps_ago() -> None:
    """Latents and actions that are the number of their row; two episodes, the second begins at row 3."""
    row = torch.arange(7.0).expand(2, 7)
    episode = torch.tensor([[0, 0, 0, 1, 1, 1, 1]] * 2)
    seen = Activations(
        layers={},
        z=row[..., None],
        y=row[..., None] ** 2,
        obs=row,
        act=row.long(),
        rew_ext=row,
        mask=torch.tensor([[True, True, False, True, True, True, False]] * 2),
        episode=episode,
        context=age(episode),
        info={"place": row[..., None].long() * 10},
    )
    rows = settled(seen, 2)
    assert rows.nonzero()[:, 1].tolist() == [5, 5]
    found = variables(seen, rows, (1, 2))
    assert {name: x.flatten().tolist() for name, x in found.items()} == {
        "latent now": [5, 5],
        "latent 1 ago": [4, 4],
        "latent 2 ago": [3, 3],
        "action 1 ago": [4, 4],
        "action 2 ago": [3, 3],
        "place": [50, 50],
        "coming delta": [11, 11],
    }
    assert found["action 1 ago"].dtype == torch.int64 and found["place"].is_floating_point()
