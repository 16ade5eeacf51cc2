"""A policy that follows what a planner found each action to be worth."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.ppo import PPO, value_loss
from worldmodel.types import Rollout, map_obs


@dataclass
class Greedy(PPO):
    """The policy moves to softmax(worth / sharpness), of the worth (B, T, actions) that `Plan` writes: cross-entropy
    instead of PPO's surrogate. Of PPO there remain the two values, their discounts and their weights.

    sharpness: how much less an action must be worth, in units of the weighted rewards, for its probability to fall by
    a factor of e.

    It learns at a temperature of 1, whatever it acts with: it is then an average over plans, whose noise changes what
    they want, and a low temperature when acting follows what most of them want.
    """

    sharpness: float = 0.02

    def __post_init__(self) -> None:
        if self.sharpness <= 0:
            raise ValueError(f"policy.ppo.sharpness={self.sharpness}: must be above 0")

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, roll: Rollout) -> dict[str, Tensor]:
        """See `PPO.losses`."""
        params, values = policy(h, policy.see(map_obs(roll.tail, roll.obs), z))
        logp = policy.dist.log_probs(params, 1.0)
        goal = (roll.worth / self.sharpness).softmax(-1)
        return {
            "policy": -(goal * logp).sum(-1),
            "entropy": (logp.exp() * logp).sum(-1),
            "value": value_loss(values, roll),
        }
