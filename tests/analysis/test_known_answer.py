"""Section of the report on environments with a known answer."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.tiny import EASY, tiny_agent

from worldmodel.analysis.probes.observation import fit_observation_head
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.analysis.report.sections import known_answer as module
from worldmodel.analysis.report.sections.compression import compression
from worldmodel.analysis.report.sections.known_answer import (
    by_context,
    exact,
    expected_nats,
    known_answer,
    observation_head,
    tokens_seen,
)


def context_of(*overrides: str) -> EvaluationContext:
    """A short evaluation of an untrained agent."""
    torch.manual_seed(0)
    agent, data, cfg = tiny_agent("encoder=discrete", "encoder.dim=16", "curiosity=none", *overrides)
    agent.score(data.collector.collect())
    data.env.close()
    return EvaluationContext(Path("nowhere.ckpt"), agent, cfg, episodes=24, seed=0, num_envs=8)


@pytest.fixture(scope="module")
def mess3() -> EvaluationContext:
    return context_of("env=mess3", "env.vectorization=vector_entry_point", "heads=observation", "data.context=16")


class Ideal:
    """An observation head that answers with the logits it is given."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def __call__(self, h: torch.Tensor, act: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.logits[..., None, :],)


def test_an_ideal_predictor_reaches_the_optimum(mess3: EvaluationContext):
    rolls = RecordedRollouts.join(mess3.episode_set("sampled").recorded)
    act = rolls.window.seq.new_steps(rolls.window.seq.act)
    chance = exact(rolls, act)
    found = expected_nats(Ideal(chance.log()), rolls.h, rolls.h, chance)
    torch.testing.assert_close(found, rolls.info["entropy"][:, :-1, 0])
    worse = expected_nats(Ideal(chance.log() + torch.tensor([0.3, 0.0, -0.3])), rolls.h, rolls.h, chance)
    assert (worse > found).all()
    settled = rolls.real & (tokens_seen(rolls) >= 8)
    assert float(found[settled].mean()) == pytest.approx(0.7935, abs=0.01)  # Mess3's entropy rate


def test_context_counts_the_tokens_that_the_window_shows(mess3: EvaluationContext):
    recorded = mess3.episode_set("sampled").recorded
    assert tokens_seen(recorded[0])[0].tolist() == list(range(1, 9))  # the first rollout begins with an episode
    assert tokens_seen(recorded[2])[0].tolist() == list(range(17, 25))  # 16 rows of context, and those of the rollout


def test_section(mess3: EvaluationContext):
    section = known_answer(mess3)
    found = section.numbers
    assert found["observation_head"] == "trained with the model"
    assert found["optimal_nats"] == pytest.approx(0.7935, abs=0.01)
    assert found["optimal_nats"] < found["cross_entropy_nats"] < 2
    low, high = found["cross_entropy_over_optimal_ci"]
    assert 1 < low < found["cross_entropy_nats"] / found["optimal_nats"] < high
    assert found["log_loss_nats"] == pytest.approx(found["cross_entropy_nats"], abs=0.1)
    assert abs(found["belief_r2_shuffled"]) < 0.1 < found["belief_r2"] < 1
    assert len(found["bits_by_context"]) == 17 and found["bits_by_context"][0] == pytest.approx(np.log2(3), abs=0.05)
    area = sum(x - found["bits_by_context"][-1] for x in found["bits_by_context"])
    assert found["excess_entropy_bits"] == pytest.approx(area, abs=1e-4)
    assert len(section.figures) == 2


def test_what_the_report_says_of_compression(mess3: EvaluationContext):
    pytest.importorskip("constriction")
    section = compression(mess3)
    found = section.numbers
    assert found["bit_exact"] and found["head"] == "trained with the model"
    assert 1 <= found["over_cross_entropy"] < 1.5  # the header of a short file
    rates = {row[1]: row[2] for row in section.tables[0].rows if row[0] == "observations"}
    assert list(rates) == ["ideal observer", "model", "Markov", "xz", "zstd", "gzip"]
    assert rates["ideal observer"] < rates["model"]
    for name, times in found["times_smaller"]["observations"].items():
        assert times == pytest.approx(rates[name] / rates["model"], abs=1e-5)
    blind = SimpleNamespace(episode_set=lambda policy: SimpleNamespace(recorded=[SimpleNamespace(obs=None)]))
    assert compression(blind) is None


def test_a_memory_cut_nowhere_has_the_entropy_rate_of_acting(mess3: EvaluationContext):
    """Transitions at which the acting memory has seen as many tokens as the longest cut leaves: the same bits."""
    rolls = RecordedRollouts.join(mess3.episode_set("sampled").recorded)
    exactly = rolls.real & (tokens_seen(rolls) == 16)
    curve, rate = by_context(mess3, mess3.agent.model.observation, rolls, exactly)
    assert float(curve[-1]) == pytest.approx(rate, abs=1e-5) and float(curve[1]) != pytest.approx(rate, abs=1e-5)


def test_without_a_head_one_is_fitted_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "fit_observation_head", partial(fit_observation_head, steps=300, lr=1e-2))
    context = context_of("env=golden_mean", "env.vectorization=vector_entry_point", "data.context=16")
    rolls = RecordedRollouts.join(context.episode_set("sampled").recorded)
    head, evaluated = observation_head(context, rolls)
    assert not head.joint and (rolls.number[evaluated] % 2 == 1).all() and evaluated.any()
    found = known_answer(context).numbers
    assert found["observation_head"] == "fitted alone on the frozen memory"
    # a zero is always followed by a one, which even an untrained memory can tell
    assert found["optimal_nats"] == pytest.approx(2 / 3 * np.log(2), abs=0.03)
    assert found["optimal_nats"] <= found["cross_entropy_nats"] < 1.1 * found["optimal_nats"]


def test_elsewhere_there_is_nothing_to_say():
    torch.manual_seed(0)
    agent, data, cfg = tiny_agent(*EASY)
    agent.score(data.collector.collect())
    data.env.close()
    assert known_answer(EvaluationContext(Path("nowhere.ckpt"), agent, cfg, episodes=4, seed=0, num_envs=4)) is None


def test_one_episode_is_too_few(mess3: EvaluationContext):
    one = EvaluationContext(Path("nowhere.ckpt"), mess3.agent, mess3.cfg, episodes=1, seed=0, num_envs=1)
    assert known_answer(one) is None
