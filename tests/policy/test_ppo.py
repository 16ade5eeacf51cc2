"""PPO's surrogate and the normalised advantage, by hand."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from helpers.ranks import free_port, run_on_two_ranks

from worldmodel.errors import SettingError
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.policy import PPO, QDistillation
from worldmodel.policy.ppo import clipped_policy_loss, normalise_advantage, policy_kl
from worldmodel.policy.returns import explained_variance


def test_surrogate_is_clipped_on_the_side_that_would_gain() -> None:
    logp = torch.log(torch.tensor([[2.0, 0.5, 2.0, 0.5]]))
    adv = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    loss = clipped_policy_loss(logp, torch.zeros(1, 4), adv, clip=0.2)
    torch.testing.assert_close(loss, torch.tensor([[-1.2, -0.5, 2.0, 0.8]]))


def test_advantage_in_units_of_its_std_over_real_steps() -> None:
    adv = torch.tensor([[1.0, 3.0, 99.0]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(normalise_advantage(adv, mask, 1e-3), torch.tensor([[-1.0, 1.0, 0.0]]))


def test_floor_keeps_noise_small() -> None:
    adv = 1e-4 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    small = normalise_advantage(adv, torch.ones(4, 64, dtype=torch.bool), floor=1e-2)
    assert small.std() < 0.02 and math.isclose(small.mean().item(), 0, abs_tol=1e-6)


def test_a_ratio_beyond_the_range_of_floats_gives_finite_gradients() -> None:
    logp = torch.tensor([[100.0, 100.0, -100.0]], requires_grad=True)
    adv = torch.tensor([[1.0, -1.0, -1.0]])
    (clipped_policy_loss(logp, torch.zeros(1, 3), adv, clip=0.2) + policy_kl(logp, torch.zeros(1, 3))).sum().backward()
    assert logp.grad.isfinite().all()


def test_divergence_and_clip_fraction_by_hand() -> None:
    ratio = torch.tensor([[1.0, 1.19, 1.21, 0.5]])
    found = PPO(clip=0.2)._report(ratio.log(), torch.zeros(1, 4))
    torch.testing.assert_close(found["kl"], ratio - 1 - ratio.log())
    assert found["clip_fraction"].tolist() == [[0.0, 0.0, 1.0, 1.0]]


def test_settings_of_the_limit() -> None:
    with pytest.raises(SettingError, match=r"policy.objective.kl_limit=0.0: allowed are null and numbers above 0"):
        PPO(kl_limit=0.0)
    with pytest.raises(SettingError, match=r"policy.objective.kl_limit=0.1: allowed with policy=planned is null"):
        QDistillation(kl_limit=0.1)


RET = torch.tensor([[1.0, 2.0, 3.0, 99.0], [5.0, 9.0, 99.0, 99.0]])
VALUE = torch.tensor([[1.0, 1.0, 5.0, 0.0], [5.0, 8.0, 0.0, 0.0]])
REAL = torch.tensor([[True, True, True, False], [True, True, False, False]])


def test_explained_variance_by_hand() -> None:
    ret, error = torch.tensor([1.0, 2.0, 3.0, 5.0, 9.0]), torch.tensor([0.0, 1.0, -2.0, 0.0, 1.0])
    expected = 1 - float(error.var(correction=0) / ret.var(correction=0))
    assert float(explained_variance(VALUE, RET, REAL)) == pytest.approx(expected)
    assert float(explained_variance(RET, RET, REAL)) == 1.0
    assert explained_variance(VALUE, torch.ones(2, 4), REAL).isnan()


def on_rank(rank: int, port: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    variance = explained_variance(VALUE[rank : rank + 1], RET[rank : rank + 1], REAL[rank : rank + 1])
    within = []
    for kl in (0.19, 0.21):  # on one rank alone: half of it on average
        part = SimpleNamespace(objective=PPO(kl_limit=0.1), kl=torch.tensor(kl * rank))
        within.append(CuriousAgent.within_kl_limit(part))
    torch.save((variance, within), folder / str(rank))
    dist.destroy_process_group()


def test_ranks_agree_on_the_limit_and_on_the_explained_variance(tmp_path: Path) -> None:
    run_on_two_ranks(on_rank, free_port(), tmp_path)
    for rank in (0, 1):
        variance, within = torch.load(tmp_path / str(rank))
        torch.testing.assert_close(variance, explained_variance(VALUE, RET, REAL))
        assert within == [True, False]
