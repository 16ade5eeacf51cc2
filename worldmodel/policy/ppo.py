"""PPO on masked sequences, with an extrinsic and an intrinsic return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.masked import clipped_policy_loss, normalise_advantage
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.returns import gae
from worldmodel.types import Rollout, map_obs


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

    def add_returns(self, roll: Rollout) -> None:
        """Fill in `adv`, `ret_ext`, `ret_int` from rewards and the acting policy's values."""
        end, trunc, mask = (roll.tail(x) for x in (roll.end, roll.trunc, roll.mask))
        adv_ext, roll.ret_ext = gae(
            roll.tail(roll.rew_ext), roll.value_ext, end, trunc, mask, gamma=self.gamma_ext, lam=self.lam
        )
        adv_int, roll.ret_int = gae(
            roll.rew_int,
            roll.value_int,
            end,
            trunc,
            mask,
            gamma=self.gamma_int,
            lam=self.lam,
            episodic=self.episodic_int,
        )
        adv = self.weight_ext * adv_ext + self.weight_int * adv_int
        roll.adv = normalise_advantage(adv, mask, self.adv_floor)

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, roll: Rollout) -> dict[str, Tensor]:
        """h (B, T, D), z (B, T, *latent) -> unreduced (B, T) losses."""
        params, values = policy(h, policy.see(map_obs(roll.tail, roll.obs), z))
        logp, entropy = policy.dist.evaluate(params, roll.tail(roll.act), policy.temperature)
        return {
            "policy": clipped_policy_loss(logp, roll.logp, roll.adv, self.clip),
            "entropy": -entropy,
            "value": value_loss(values, roll),
        }


def value_loss(values: Tensor, roll: Rollout) -> Tensor:
    """Squared error of both values (B, T, 2), unreduced: (B, T)."""
    return 0.5 * ((values[..., 0] - roll.ret_ext).square() + (values[..., 1] - roll.ret_int).square())


def policy_kl(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Low-variance estimate of KL(old || new) (Schulman 2020, "Approximating KL divergence"): (B, T)."""
    log_ratio = logp - old_logp
    return torch.expm1(log_ratio) - log_ratio
