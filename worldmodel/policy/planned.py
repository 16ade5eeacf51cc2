"""Distillation of action values into a policy."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from worldmodel.errors import check_range
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.ppo import PPO, value_loss
from worldmodel.types import PlannedRollout


@dataclass
class QDistillation(PPO):
    """The policy moves to softmax(q / target_temperature) of a planner's action values (B, T, actions).

    The loss is a cross-entropy instead of PPO's surrogate. The two values, their discounts and their weights are those
    of PPO.

    target_temperature: the difference of two action values, in units of the weighted rewards, at which their
    probabilities differ by a factor of e.

    The policy learns at a temperature of 1, whatever it acts with: it is then an average over plans, whose noise
    changes their aim, and a low temperature while acting follows the aim of most plans.
    """

    target_temperature: float = 0.02

    def __post_init__(self) -> None:
        check_range("policy.objective.target_temperature", self.target_temperature, "(0, inf)")

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: PlannedRollout) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        params, values = policy(h, policy.see(rollout.new_steps(rollout.obs), z))
        logp = policy.dist.log_probs(params, 1.0)
        goal = (rollout.q_values / self.target_temperature).softmax(-1)
        return {
            "policy": -(goal * logp).sum(-1),
            "entropy": (logp.exp() * logp).sum(-1),
            "value": value_loss(values, rollout),
        }
