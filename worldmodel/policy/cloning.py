"""Objectives that learn recorded actions: behaviour cloning, alone or conditioned on the return."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import gymnasium as gym
import torch
from torch import Tensor

from encoders import Encoder
from worldmodel.errors import SettingError
from worldmodel.policy.actor_critic import ActorCritic
from worldmodel.policy.ppo import PPO, AnyRollout, value_loss
from worldmodel.types import Rollout, ScoredRollout


@dataclass
class Cloning(PPO):
    """Behaviour cloning: the policy's loss is the negative log-probability of the recorded action.

    The critic learns the values of the behaviour, with the discounts and weights of PPO, so that PPO can go on from
    them. Raises SettingError for a kl_limit.
    """

    reported: ClassVar[tuple[str, ...]] = ()
    offline: ClassVar[bool] = True  # applies to recorded steps, and to these alone

    def __post_init__(self) -> None:
        if self.kl_limit is not None:
            raise SettingError("policy.objective.kl_limit", self.kl_limit, "with recorded actions is null")

    def losses(self, policy: ActorCritic, h: Tensor, z: Tensor, rollout: AnyRollout) -> dict[str, Tensor]:
        """See `Objective.losses`."""
        assert isinstance(rollout, ScoredRollout)
        params, values = policy(h, self.condition(policy, policy.see(rollout.new_steps(rollout.obs), z), rollout))
        logp, entropy = policy.dist.evaluate(params, rollout.sample, policy.temperature)
        logp = torch.where(rollout.new_steps(rollout.mask), logp, 0.0)
        return {"policy": -logp, "entropy": -entropy, "value": value_loss(values, rollout)}

    def condition(self, policy: ActorCritic, seen: Tensor, rollout: ScoredRollout) -> Tensor:
        """Return what the policy reads on recorded steps, given what it reads while acting, `seen` (B, T, ...)."""
        return seen


@dataclass
class ReturnConditioning(Cloning):
    """Cloning of a `ReturnConditioned` policy, which reads the recorded return from each step to the episode's end.

    Sources: Srivastava et al. 2019 (arXiv 1912.02877), Emmons et al. 2022 (RvS, arXiv 2112.10751).
    """

    def score(self, rollout: Rollout, rew_ext: Tensor, rew_int: Tensor) -> ScoredRollout:
        """See `Objective.score`. The field `adv` has the returns to go, in the environment's units."""
        scored = super().score(rollout, rew_ext, rew_int)
        to_go = rollout.info.get("return_to_go")
        return scored if to_go is None else replace(scored, adv=to_go[:, :-1])

    def condition(self, policy: ActorCritic, seen: Tensor, rollout: ScoredRollout) -> Tensor:
        """See `Cloning.condition`."""
        assert isinstance(policy, ReturnConditioned)
        return policy.with_return(seen, rollout.adv)


class ReturnConditioned(ActorCritic):
    """Policy and critic that also read a return: on recorded steps the one that followed, while acting a target.

    The returns are undiscounted sums of extrinsic rewards up to the end of the episode, standardised by those of the
    dataset's episodes. The target is constant within an episode.

    target_return: the target, in units of the reward; None: the largest return of an episode in the dataset.

    The other arguments are those of `ActorCritic`.
    """

    mean: Tensor  # scalars
    std: Tensor
    target: Tensor

    def __init__(
        self,
        dim: int,
        latent: tuple[int, ...],
        act_space: gym.Space,
        *,
        target_return: float | None = None,
        make_encoder: Callable[[], Encoder] | None = None,
        null_action: int | None = None,
        **options: Any,
    ):
        options |= {"make_encoder": make_encoder, "null_action": null_action}
        super().__init__(dim, (int(torch.tensor(latent).prod()) + 1,), act_space, **options)
        self.latent, self.target_return = latent, target_return
        for name, value in (("mean", 0.0), ("std", 1.0), ("target", target_return or 0.0)):
            self.register_buffer(name, torch.tensor(value))

    @torch.no_grad()
    def fit_returns(self, returns: Tensor) -> None:
        """See `ActorCritic.fit_returns`."""
        self.mean.copy_(returns.mean())
        self.std.copy_(returns.std(correction=0).clamp_min(1e-3 * (1 + self.mean.abs())))
        self.target.copy_(returns.max() if self.target_return is None else torch.tensor(self.target_return))

    def see(self, obs: Any, z: Tensor) -> Tensor:
        """Return the latent of `ActorCritic.see` with the standardised target as a last component: (*lead, M + 1)."""
        seen = super().see(obs, z)
        flat = seen.flatten(seen.ndim - len(self.latent))
        target = ((self.target - self.mean) / self.std).expand(*flat.shape[:-1], 1)
        return torch.cat([flat, target.to(flat.dtype)], -1)

    def with_return(self, seen: Tensor, returns: Tensor) -> Tensor:
        """Return `seen` (*lead, M + 1) with other returns (*lead) in the place of the target."""
        return torch.cat([seen[..., :-1], ((returns - self.mean) / self.std)[..., None].to(seen.dtype)], -1)
