"""PPO's surrogate and the normalised advantage, by hand."""

import math

import torch

from worldmodel.policy.ppo import clipped_policy_loss, normalise_advantage


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
