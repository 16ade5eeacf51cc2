"""The seam of every intrinsic reward."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout


class Curiosity(nn.Module):
    """rollout -> raw reward; minibatch -> losses of the signal's own networks, if it has any.

    Constructors take what they need of `obs_space`, `act_space`, `num_envs`, `encoder` (the main one), `make_encoder`
    (builds a fresh one of the same configuration; keywords override it, `space=` is another space of the same kind),
    `target_shape`, `dim` (the width of h) and `complete` (gives a part of theirs what it takes of all these).

    most: what it foresees of a transition of which nothing is known; None for signals without such a limit.
    """

    most: float | None = None

    def reward(self, roll: Rollout, out: Outputs) -> Tensor:
        """Raw intrinsic reward (B, T) of the transitions t -> t+1, under the frozen model that acted.

        Called once for each rollout, before anything is learnt from it: running statistics take it in here.
        """
        raise NotImplementedError

    def foresee(self, roll: Rollout, out: Outputs) -> Tensor:
        """The raw reward (B, T) of transitions that are only imagined, for policies that learn from such; changes
        nothing. Signals that compare with what came, or with what the episode held, have none."""
        raise NotImplementedError

    def losses(self, roll: Rollout, out: Outputs) -> dict[str, Tensor]:
        """Unreduced (B, T) losses under names of the signal's own; none by default. Sequences from the replay have no
        h, z or rewards of their own. Gradients must not reach `out`, which belongs to the world model."""
        return {}

    def update(self) -> None:
        """Called after each step of the optimiser that `losses` had a part in."""

    def reset(self, num_envs: int) -> None:
        """Forget the episodes under way, and be ready for `num_envs` environments that begin new ones."""
        for module in self.modules():
            if isinstance(module, PerEnvState):
                module.reset(num_envs)


class PerEnvState(nn.Module):
    """What a module keeps for each environment from one rollout to the next: buffers with leading dim N.

    It covers the rows before the first one of the next rollout (the row that closes a rollout is seen again as the
    first of the next one), so that it makes no difference where a rollout was cut.
    """

    def reset(self, num_envs: int) -> None:
        """Forget everything, and be ready for `num_envs` environments."""
        raise NotImplementedError
