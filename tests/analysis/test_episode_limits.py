"""Episodes that count in an evaluation: those of length one, those that begin solved and those that never end."""

from __future__ import annotations

from pathlib import Path

import helpers.lasting  # noqa: F401  # registers its environment
import numpy as np
import pytest
from helpers.tiny import tiny_agent

from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.sections.returns import returns
from worldmodel.analysis.report.summary import summary
from worldmodel.errors import ConfigError
from worldmodel.evaluate import shown_progress

LASTING = ["env=cartpole", "env.id=Lasting-v0", "env.engine=gymnasium", "encoder=mlp", "data.success=0.0"]


def evaluated(*overrides: str, episodes: int = 8, steps: int | None = None, **settings) -> EvaluationContext:
    """An evaluation of an untrained agent."""
    agent, stream, cfg = tiny_agent(*LASTING, *overrides)
    stream.close()
    where = Path("nowhere.ckpt")
    return EvaluationContext(where, agent, cfg, episodes, seed=0, num_envs=4, max_episode_steps=steps, **settings)


def test_episodes_of_length_one_count() -> None:
    context = evaluated("+env.length=1", episodes=400)
    found = summary(context.episode_set("random"), 0.0, 0)
    assert found["episodes"] == 400 and found["refused"] == 0 and found["length"] == 1
    assert found["return_mean"] == found["success"] == pytest.approx(0.5, abs=4 * (0.25 / 400) ** 0.5)


@pytest.mark.parametrize("length", [1, 3])
def test_episodes_that_begin_solved_are_refused(length: int) -> None:
    context = evaluated(f"+env.length={length}", "+env.solved=true", episodes=12)
    stats = context.episode_set("random").stats
    # copies begin with an episode that is not solved; the three episodes of a copy are numbered copy + 4 k
    np.testing.assert_array_equal(stats.solved, [0] * 4 + [1] * 4 + [0] * 4)
    found = summary(context.episode_set("random"), None, 0)
    assert found["refused"] == 4 and found["episodes"] == 8 and found["length"] == length
    stats.solved[:] = 1
    with pytest.raises(ConfigError, match="episodes=12: all of them begin solved, none counts"):
        summary(context.episode_set("random"), None, 0)


def test_episodes_that_never_end_are_cut() -> None:
    messages: list[str] = []
    context = evaluated(steps=20, progress=messages.append)
    section = returns(context, sticky=0.0)
    for name in ("greedy", "sampled", "random"):
        assert section.numbers[name]["cut"] == 8 and section.numbers[name]["length"] == 20
        assert 0 <= section.numbers[name]["return_mean"] <= 20
    assert "truncated after 20 steps (max_episode_steps)" in section.tables[0].caption
    assert messages[0] == "greedy: 0/8 episodes, 32 steps" and messages[-1] == "random: 8/8 episodes, 160 steps"


def test_the_default_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel.learner.run_episodes.LONGEST_EPISODE", 10)
    found = summary(evaluated().episode_set("random"), None, 0)
    assert found["cut"] == 8 and found["length"] == 10
    longer = summary(evaluated("+env.max_episode_steps=14", episodes=4).episode_set("random"), None, 0)
    assert longer["length"] == 14  # the environment's own limit


def test_an_engine_that_cannot_end_its_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel.learner.run_episodes.LONGEST_EPISODE", 10)
    with pytest.raises(ConfigError, match="max_episode_steps=10: the engine of this environment cannot truncate"):
        evaluated("env.vectorization=vector_entry_point").episode_set("random")


def test_progress_is_printed_where_there_is_no_terminal(capsys: pytest.CaptureFixture) -> None:
    with shown_progress(every_s=0.0) as show:
        show("greedy: 1/8 episodes")
    with shown_progress() as show:
        show("too early")
    assert capsys.readouterr() == ("", "greedy: 1/8 episodes\n")
