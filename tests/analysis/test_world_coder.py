"""Round trip of an agent's trajectories through a compressor with its own predictions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from helpers.experience import MESS3, recorded
from helpers.tiny import EASY

from worldmodel.analysis.probes.activations import read
from worldmodel.analysis.probes.compressor import compress, decompress
from worldmodel.analysis.probes.observation import fit_observation_head, observation_bits
from worldmodel.analysis.probes.opening import Opening
from worldmodel.analysis.probes.world_coder import WorldCoder, compression_report, observation_rates, rates_figure

pytest.importorskip("constriction")
VIEW = Box(0, 255, (7, 7, 3), np.uint8)


@pytest.fixture(scope="module")
def grid() -> tuple:
    agent, data, rolls = recorded(*EASY, episodes=24)
    head = fit_observation_head(agent.model, read(agent.model, rolls), VIEW, hidden=64, steps=300, batch=64)
    return WorldCoder(agent, head, VIEW, Discrete(7), context=data.context, rollout_length=data.rollout_length), rolls


@pytest.fixture(scope="module")
def tokens() -> tuple:
    agent, data, rolls = recorded(*MESS3, "env.num_envs=16", episodes=64)
    head = fit_observation_head(agent.model, read(agent.model, rolls), Discrete(3), hidden=32, steps=200)
    return WorldCoder(
        agent, head, Discrete(3), Discrete(1), context=data.context, rollout_length=data.rollout_length
    ), rolls


@pytest.mark.parametrize("world", ["grid", "tokens"])
def test_trajectories_come_back_at_the_model_s_own_rate(world: str, request: pytest.FixtureRequest) -> None:
    coder, rolls = request.getfixturevalue(world)
    report = compression_report(coder, rolls)
    assert report["head"] == "fitted on the frozen memory" and report["model_size_bytes"] > 4 * 16
    whole_words = 128 / report["rows"]  # bits: a file is of whole words of 32, and its two ends cost up to four
    assert report["model_cross_entropy"] <= report["model"] <= 1.01 * report["model_cross_entropy"] + whole_words
    parts = sum(report[f"model_{part}"] for part in ("observations", "first_observations", "ends", "actions")
                if f"model_{part}" in report)  # fmt: skip
    assert parts == pytest.approx(report["model_cross_entropy"])
    assert report["markov_observations"] < report["xz_observations"]


def test_rows_hold_what_was_seen_and_done(grid: tuple) -> None:
    coder, rolls = grid
    rows = coder.symbols(rolls)
    seen = torch.cat([r.new_steps(r.obs) for r in rolls], 1)
    assert np.array_equal(rows[..., :-2].reshape(*rows.shape[:2], 7, 7, 3), seen.numpy())
    over = torch.cat([~r.new_steps(r.mask) for r in rolls], 1).numpy()
    act = torch.cat([r.new_steps(r.act) for r in rolls], 1).numpy()
    assert over.any() and np.array_equal(rows[..., -2], over)
    assert np.array_equal(rows[..., -1][~over], act[~over]) and not rows[..., -1][over].any()


def test_symbols_cost_what_the_head_says(tokens: tuple) -> None:
    """The same h step by step as over whole windows, up to the rows of context."""
    coder, rolls = tokens
    rows = coder.symbols(rolls[:1])
    seen = read(coder.agent.model, rolls[:1])
    expected = observation_bits(coder.agent.model, coder.head, seen)[seen.mask].sum()
    assert seen.mask.sum() == 16 * 7  # one rollout of 8 rows, in which no episode ends
    parts = compress(coder, rows).parts
    assert parts["observations"] == pytest.approx(float(expected), rel=1e-3)
    # all at once, of which the coder knows nothing yet
    assert parts["first observations"] == pytest.approx(16 * math.log2(3))


def test_openings_are_learnt_from_one_another() -> None:
    """Views with equal rows: after the first view, the cells above determine all but the first row."""
    rng, opening, columns = np.random.default_rng(0), Opening((4, 2), 3, 5), np.arange(30).reshape(15, 2)
    costs = []
    for _ in range(200):
        view = np.tile(rng.integers([4, 2], size=(2, 1, 5, 2)), (1, 3, 1, 1)).reshape(2, 30)
        view[:, 1::2] = view[:, ::2] % 2  # the second component follows from the first
        bits = []

        def send(part: str, streams: np.ndarray, column: int, probs: np.ndarray, view=view, bits=bits) -> np.ndarray:
            np.testing.assert_allclose(probs.sum(1), 1)
            bits.append(-np.log2(probs[np.arange(len(streams)), view[streams, column]]).sum())
            return view[streams, column]

        codes = opening.send(send, np.arange(2), columns)
        assert np.array_equal(codes.reshape(2, 30), view)
        costs.append(sum(bits))
    assert costs[0] > 40 and np.mean(costs[-50:]) == pytest.approx(2 * 5 * 2, rel=0.15)  # 5 free cells of 2 bits


def test_another_agent_cannot_read_it(tokens: tuple) -> None:
    coder, rolls = tokens
    agent, data, _ = recorded(*MESS3, "env.num_envs=16", "memory.depth=2", episodes=1)
    other = WorldCoder(
        agent, coder.head, Discrete(3), Discrete(1), context=data.context, rollout_length=data.rollout_length
    )
    with pytest.raises(ValueError, match="another predictor"):
        decompress(other, compress(coder, coder.symbols(rolls)).data)


def test_continuous_actions_are_refused(tokens: tuple) -> None:
    coder, _ = tokens
    with pytest.raises(ValueError, match="allowed for compression are Discrete ones"):
        WorldCoder(coder.agent, coder.head, Discrete(3), Box(-1, 1, (2,)), context=4, rollout_length=8)


def test_rates_are_of_observations_alone() -> None:
    report = {"rows": 10, "model_observations": 1.0, "model_first_observations": 0.25, "markov_observations": 2.0}
    report |= {"model_ends": 7.0, "xz_observations": 4.0, "zstd_observations": 5.0, "gzip_observations": 3.0, "xz": 9.0}
    rates = observation_rates(report, ideal_bits=8.0)
    assert rates == {"ideal observer": 1.05, "model": 1.25, "Markov": 2.0, "xz": 4.0, "zstd": 5.0, "gzip": 3.0}
    assert "ideal observer" not in observation_rates(report)
    figure = rates_figure({"a": rates, "b": observation_rates(report)})
    assert [bar.get_width() for bar in figure.axes[0].patches] == list(rates.values()) and len(figure.axes) == 2
