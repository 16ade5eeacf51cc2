"""Distillation of action values into a policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from worldmodel.errors import SettingError, check_range
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.distributions import Categorical
from worldmodel.policy.ppo import PPO, AnyRollout, value_loss
from worldmodel.types import PlannedRollout


@dataclass
class QDistillation(PPO):
    """Objective that trains the policy towards softmax(q / target_temperature), q (B, T, actions) of a planner.

    The loss is a cross-entropy instead of PPO's surrogate. The two values, their discounts and their weights are those
    of PPO.

    target_temperature: the difference of two action values, in units of the weighted rewards, at which their
        probabilities differ by a factor of e.

    The policy is trained at a temperature of 1, whatever its temperature while acting. It is then an average over
    plans, which differ by noise, and a low temperature while acting selects the action of most plans.

    Raises SettingError for a target_temperature of 0 or below, and for a kl_limit.
    """

    reported: ClassVar[tuple[str, ...]] = ()

    target_temperature: float = 0.02

    def __post_init__(self) -> None:
        if self.kl_limit is not None:
            raise SettingError("policy.objective.kl_limit", self.kl_limit, "with policy=planned is null")
        check_range("policy.objective.target_temperature", self.target_temperature, "(0, inf)")

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: AnyRollout) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        assert isinstance(rollout, PlannedRollout) and isinstance(policy.dist, Categorical)
        params, values = policy(h, policy.see(rollout.new_steps(rollout.obs), z))
        logp = policy.dist.log_probs(params, 1.0)
        real = rollout.new_steps(rollout.mask)[..., None]
        goal = (torch.where(real, rollout.q_values, 0.0) / self.target_temperature).softmax(-1)
        return {
            "policy": -(goal * logp).sum(-1),
            "entropy": (logp.exp() * logp).sum(-1),
            "value": value_loss(values, rollout),
        }
