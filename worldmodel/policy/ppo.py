"""PPO on masked sequences, with an extrinsic and an intrinsic return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worldmodel.distributed import sum_over_ranks
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.returns import gae
from worldmodel.types import PlannedRollout, Rollout, ScoredRollout, add_fields


class Objective(Protocol):
    """How the policy learns: the returns of a rollout, and losses on scored rollouts."""

    gamma_ext: float
    gamma_int: float
    weight_ext: float
    weight_int: float
    episodic_int: bool

    def score(self, rollout: Rollout, rew_int: Tensor) -> ScoredRollout:
        """Add the intrinsic reward (B, T), advantages and returns."""
        ...

    def losses(
        self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: ScoredRollout | PlannedRollout
    ) -> dict[str, Tensor]:
        """h (B, T, D), z (B, T, *latent) -> unreduced (B, T) losses."""
        ...


@dataclass
class PPO:
    """Schulman et al. 2017 (arXiv 1707.06347); two value heads as in Burda et al. 2018 (RND)."""

    clip: float = 0.2
    gamma_ext: float = 0.99
    gamma_int: float = 0.99
    lam: float = 0.95
    weight_ext: float = 1.0
    weight_int: float = 1.0
    episodic_int: bool = True
    adv_floor: float = 1e-2

    def score(self, rollout: Rollout, rew_int: Tensor) -> ScoredRollout:
        """See `Objective.score`: advantages and returns from rewards and the acting policy's values."""
        end, trunc, mask, rew_ext = (
            rollout.new_steps(x) for x in (rollout.end, rollout.trunc, rollout.mask, rollout.rew_ext)
        )
        adv_ext, ret_ext = gae(rew_ext, rollout.value_ext, end, trunc, mask, gamma=self.gamma_ext, lam=self.lam)
        adv_int, ret_int = gae(
            rew_int,
            rollout.value_int,
            end,
            trunc,
            mask,
            gamma=self.gamma_int,
            lam=self.lam,
            episodic=self.episodic_int,
        )
        adv = normalise_advantage(self.weight_ext * adv_ext + self.weight_int * adv_int, mask, self.adv_floor)
        return add_fields(ScoredRollout, rollout, rew_int=rew_int, adv=adv, ret_ext=ret_ext, ret_int=ret_int)

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: ScoredRollout) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        params, values = policy(h, policy.see(rollout.new_steps(rollout.obs), z))
        logp, entropy = policy.dist.evaluate(params, rollout.new_steps(rollout.act), policy.temperature)
        return {
            "policy": clipped_policy_loss(logp, rollout.logp, rollout.adv, self.clip),
            "entropy": -entropy,
            "value": value_loss(values, rollout),
        }


def value_loss(values: Tensor, rollout: ScoredRollout | PlannedRollout) -> Tensor:
    """Squared error of both values (B, T, 2), unreduced: (B, T)."""
    return 0.5 * ((values[..., 0] - rollout.ret_ext).square() + (values[..., 1] - rollout.ret_int).square())


def clipped_policy_loss(logp: Tensor, old_logp: Tensor, adv: Tensor, clip: float) -> Tensor:
    """Unreduced PPO surrogate (Schulman et al. 2017, eq. 7), negated: (B, T)."""
    ratio = torch.exp(logp - old_logp)
    return -torch.minimum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


def normalise_advantage(adv: Tensor, mask: Tensor, floor: float) -> Tensor:
    """adv (B, T) about its mean over real steps of all ranks, in units of its std or of `floor` if that is larger.

    Without the floor, a reward that is never seen lets the noise of the value head set the step (entropy then
    drifts down and success with it).
    """
    real = mask.to(adv.dtype)
    n = sum_over_ranks(real.sum()).clamp_min(1.0)
    mean = sum_over_ranks((adv * real).sum()) / n
    var = sum_over_ranks(((adv - mean).square() * real).sum()) / n
    return (adv - mean) / var.sqrt().clamp_min(floor) * real


def policy_kl(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Low-variance estimate of KL(old || new) (Schulman 2020, "Approximating KL divergence"): (B, T)."""
    log_ratio = logp - old_logp
    return torch.expm1(log_ratio) - log_ratio
