"""Steps of the optimizer: the reported means, losses that are not finite, and the slow copies."""

from __future__ import annotations

import math
from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.tiny import EASY, tiny_agent, tiny_config

from worldmodel.errors import ConfigError, NonFiniteLoss
from worldmodel.training.build import build_agent, build_data, build_module, check_batch_norm, env_spec
from worldmodel.training.module import TrainingModule, drop_moments
from worldmodel.types import Minibatch, ScoredRollout


def make(*overrides: str, max_loss: float = math.inf) -> tuple[TrainingModule, ScoredRollout]:
    """A module with an untrained agent, and a rollout that the agent has scored."""
    torch.manual_seed(0)
    agent, stream, cfg = tiny_agent(*EASY, *overrides)
    roll = agent.score(stream.collector.collect())
    stream.close()
    return build_module(cfg, agent, max_loss), roll


def test_a_reported_loss_is_the_mean_over_the_minibatches_that_have_it() -> None:
    module, roll = make()
    module.training_step(Minibatch(None, roll), 0)
    assert (
        set(module.sums) == {"loss_policy", "loss_value", "loss_entropy", "kl", "clip_fraction"}
        and not module.model_in_step
    )
    module.training_step(Minibatch(roll, roll), 1)
    assert module.model_in_step
    agent = module.agent
    with torch.no_grad():
        nll = agent.model.losses(agent.model(roll), roll)["delta"][roll.new_steps(roll.mask)].mean()
    report = module.report()
    assert report["loss_delta"] == pytest.approx(float(nll), rel=1e-5)
    assert report["delta_skill"] == agent.metrics["delta_skill"] and report["entropy"] > 0
    assert not module.sums and not module.counts


def test_a_loss_that_is_not_finite_is_named() -> None:
    module, roll = make()
    roll.ret_ext[0, 0] = math.inf
    with pytest.raises(NonFiniteLoss, match="env_steps=28: value"):
        module.training_step(Minibatch(roll, roll), 0)
    assert not module.sums


def test_a_loss_above_its_limit_counts_as_not_finite() -> None:
    module, roll = make(max_loss=1e-6)
    with pytest.raises(NonFiniteLoss, match=r"env_steps=28: \S+ with rollback.max_loss=1e-06"):
        module.training_step(Minibatch(roll, roll), 0)


def test_parts_are_clipped_by_their_own_norms() -> None:
    module, roll = make("curiosity=rnd")
    module.training_step(Minibatch(roll, roll), 0)["loss"].backward()
    agent = module.agent
    before = {name: p.grad.clone() for name, p in agent.named_parameters() if p.grad is not None}
    module.configure_gradient_clipping(None, 1e-3, "norm")
    parts = {
        "model": "model.",
        "policy_encoder": ("policy.encoder.", "policy.memory_gain"),
        "actor": "policy.actor",
        "critic": "policy.critic",
        "curiosity": "curiosity.",
    }
    assert set(module.parts) == set(parts)
    norms: list[float] = []
    for start in parts.values():
        own = {name: g for name, g in before.items() if name.startswith(start)}
        norm = torch.nn.utils.get_total_norm(list(own.values()))
        assert norm > 1e-3
        norms.append(float(norm))
        for name, grad in own.items():
            torch.testing.assert_close(agent.get_parameter(name).grad, grad * 1e-3 / norm, rtol=1e-3, atol=1e-8)
    report = module.report()
    assert [report[f"grad_norm_{part}"] for part in parts] == pytest.approx(norms, rel=1e-5), "before clipping"


@pytest.mark.parametrize(("limit", "algorithm"), [(None, None), (0.5, "value")])
def test_norms_are_reported_without_clipping_by_norm(limit: float | None, algorithm: str | None) -> None:
    module, roll = make()
    module.training_step(Minibatch(None, roll), 0)["loss"].backward()
    module.clip_gradients = lambda *args: None
    before = torch.nn.utils.get_total_norm([p.grad for p in module.parts["actor"]])
    module.configure_gradient_clipping(None, limit, algorithm)
    report = module.report()
    assert report["grad_norm_actor"] == pytest.approx(float(before)) and "grad_norm_model" not in report


def test_moments_are_dropped_of_these_parameters_alone() -> None:
    one, two = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.Adam([one, two])
    (one.sum() + two.sum()).backward()
    optimizer.step()
    drop_moments([optimizer], [one])
    assert one not in optimizer.state and two in optimizer.state
    optimizer.step()
    assert int(optimizer.state[one]["step"]) == 1 and int(optimizer.state[two]["step"]) == 2


@pytest.mark.parametrize(("accumulate", "steps"), [(1, 8), (2, 4), (3, 4)])
def test_slow_copies_move_once_per_step_of_the_optimizer(
    accumulate: int, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config("target=ema")
    agent, data = build_agent(cfg, env_spec(cfg)), build_data(cfg)
    moved, signal = [], []
    monkeypatch.setattr(agent.model.target, "update", lambda: moved.append(agent.policy.actor.weight.clone()))
    monkeypatch.setattr(agent.curiosity, "update", lambda: signal.append(len(moved)))
    trainer = L.Trainer(
        max_epochs=2, accumulate_grad_batches=accumulate, logger=False, enable_checkpointing=False, accelerator="cpu",
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(build_module(cfg, agent), data)  # two updates of four minibatches
    assert trainer.global_step == steps == len(moved) and signal == list(range(1, steps + 1))
    assert torch.equal(moved[-1], agent.policy.actor.weight), "it moved before the last step"


def test_batch_normalisation_of_a_batch_is_refused() -> None:
    agent, stream, _ = tiny_agent(*EASY)
    stream.close()
    agent.model.encoder.norm = torch.nn.BatchNorm1d(4)
    with pytest.raises(ConfigError, match=r"^encoder: BatchNorm1d in encoder\.norm mixes rows, allowed are LayerNorm"):
        check_batch_norm(agent.model)
    agent.model.encoder.norm.eval()
    check_batch_norm(agent.model)
