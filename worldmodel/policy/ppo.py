"""PPO on masked sequences, with an extrinsic and an intrinsic return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from worldmodel.distributed import sum_over_ranks
from worldmodel.errors import check_range
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.returns import gae
from worldmodel.types import PlannedRollout, Rollout, ScoredRollout, add_fields

AnyRollout = ScoredRollout | PlannedRollout
MAX_LOG_RATIO = 20.0  # beyond it the ratio has no gradient; its exponential would overflow


class Objective(Protocol):
    """Protocol of the policy's objectives: returns of a rollout, and losses on minibatches of it."""

    gamma_ext: float
    gamma_int: float
    weight_ext: float
    weight_int: float
    episodic_int: bool

    def score(self, rollout: Rollout, rew_ext: Tensor, rew_int: Tensor) -> ScoredRollout:
        """Return the rollout with its intrinsic reward, advantages and returns.

        rew_ext: extrinsic reward (B, T) in units of `ReturnScale`, as are the returns and values of the result.
        rew_int: intrinsic reward (B, T), normalised and scaled.
        """
        ...

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: AnyRollout) -> dict[str, Tensor]:
        """Return the unreduced losses (B, T) by name, for h (B, T, D) and z (B, T, *latent).

        Masked steps may have any values, but no gradient that is not finite. An objective may have the attributes
        `reported`, names in the result that are metrics instead of losses, and `kl_limit`; see `PPO`.
        """
        ...


@dataclass
class PPO:
    """PPO (Schulman et al. 2017, arXiv 1707.06347) with two values as in RND (Burda et al. 2018, arXiv 1810.12894).

    clip: bound of the probability ratio's distance from 1.
    gamma_ext, gamma_int: discounts of the extrinsic and the intrinsic return.
    lam: lambda of the advantage estimates.
    weight_ext, weight_int: weights of the two advantages in their sum.
    episodic_int: the intrinsic return ends with the episode.
    adv_floor: lower bound of the standard deviation that the advantage is divided by.
    kl_limit: the policy skips the remaining minibatches of a rollout once its KL divergence from the acting policy was
        above this (nats, mean over a minibatch on all ranks); None: no limit.

    Raises SettingError for a kl_limit of 0 or below.
    """

    reported: ClassVar[tuple[str, ...]] = ("kl", "clip_fraction")

    clip: float = 0.2
    gamma_ext: float = 0.99
    gamma_int: float = 0.99
    lam: float = 0.95
    weight_ext: float = 1.0
    weight_int: float = 1.0
    episodic_int: bool = True
    adv_floor: float = 1e-2
    kl_limit: float | None = None

    def __post_init__(self) -> None:
        check_range("policy.objective.kl_limit", self.kl_limit, "(0, inf)", null=True)

    def score(self, rollout: Rollout, rew_ext: Tensor, rew_int: Tensor) -> ScoredRollout:
        """See `Objective.score`: advantages and returns from rewards and the acting policy's values."""
        end, trunc, mask = (rollout.new_steps(x) for x in (rollout.end, rollout.trunc, rollout.mask))
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

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: AnyRollout) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        assert isinstance(rollout, ScoredRollout)
        params, values = policy(h, policy.see(rollout.new_steps(rollout.obs), z))
        logp, entropy = policy.dist.evaluate(params, rollout.sample, policy.temperature)
        logp = torch.where(rollout.new_steps(rollout.mask), logp, rollout.logp)
        return {
            "policy": clipped_policy_loss(logp, rollout.logp, rollout.adv, self.clip),
            "entropy": -entropy,
            "value": value_loss(values, rollout),
            **self._report(logp.detach(), rollout.logp),
        }

    def _report(self, logp: Tensor, old_logp: Tensor) -> dict[str, Tensor]:
        """Return the figures of `reported`, (B, T) each."""
        outside = (bounded_log_ratio(logp, old_logp).exp() - 1).abs() > self.clip
        return {"kl": policy_kl(logp, old_logp), "clip_fraction": outside.to(logp.dtype)}


def value_loss(values: Tensor, rollout: AnyRollout) -> Tensor:
    """Return half the sum of the squared errors of both values (B, T, 2), unreduced: (B, T); 0 where masked."""
    error = values - torch.stack([rollout.ret_ext, rollout.ret_int], -1)
    error = torch.where(rollout.new_steps(rollout.mask)[..., None], error, 0.0)
    return 0.5 * error.square().sum(-1)


def bounded_log_ratio(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Return log(new probability / old probability), at most MAX_LOG_RATIO."""
    return (logp - old_logp).clamp(max=MAX_LOG_RATIO)


def clipped_policy_loss(logp: Tensor, old_logp: Tensor, adv: Tensor, clip: float) -> Tensor:
    """Return the negative clipped surrogate (Schulman et al. 2017, eq. 7), unreduced: (B, T)."""
    ratio = bounded_log_ratio(logp, old_logp).exp()
    return -torch.minimum(ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv)


def normalise_advantage(adv: Tensor, mask: Tensor, floor: float) -> Tensor:
    """Return adv (B, T) minus its mean over the real steps of all ranks, divided by its std or by a larger `floor`.

    Without the floor, and without any reward so far, the noise of the value head would be scaled to unit variance.
    Entropy and success then decrease slowly.
    """
    real = mask.to(adv.dtype)
    n = sum_over_ranks(real.sum()).clamp_min(1.0)
    mean = sum_over_ranks((adv * real).sum()) / n
    var = sum_over_ranks(((adv - mean).square() * real).sum()) / n
    return (adv - mean) / var.sqrt().clamp_min(floor) * real


def policy_kl(logp: Tensor, old_logp: Tensor) -> Tensor:
    """Return the low-variance estimate of KL(old || new), (B, T) (Schulman 2020, "Approximating KL divergence")."""
    log_ratio = bounded_log_ratio(logp, old_logp)
    return torch.expm1(log_ratio) - log_ratio
