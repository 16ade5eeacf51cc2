"""Activations of a world model on rollouts, as probes read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldmodel.analysis.probes.information import age
from worldmodel.envs import VectorEnv
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, run_episodes
from worldmodel.model.world_model import WorldModel
from worldmodel.types import Obs, Rollout, map_obs


@dataclass
class Activations:
    """Rows of N continuous streams, R each. Transition t goes from row t to row t + 1 where `mask`.

    The mask of the last row is False, since its next row is not included.
    """

    layers: dict[str, Tensor]  # (N, R, D) each: `token`, then the memory's layers `1`, `2`, …; the last one is h
    z: Tensor  # (N, R, *encoder.shape)
    y: Tensor  # (N, R, *target.shape)
    obs: Obs  # (N, R, *obs_shape)
    act: Tensor  # (N, R, *act_shape)
    rew_ext: Tensor  # (N, R)
    mask: Tensor  # (N, R) bool: a real transition to the next row
    episode: Tensor  # (N, R) int64, a distinct number for each episode of each stream
    context: Tensor  # (N, R) int64: number of earlier rows of the episode in the memory's window
    info: dict[str, Tensor]  # (N, R, ...) each: `Rollout.info`

    @property
    def h(self) -> Tensor:
        """(N, R, D): the memory."""
        return list(self.layers.values())[-1]

    @property
    def delta(self) -> Tensor:
        """(N, R, *target.shape): change of y by each transition; zero without a transition."""
        change = torch.cat([self.y[:, 1:] - self.y[:, :-1], torch.zeros_like(self.y[:, :1])], 1)
        return change * self.mask.view(*self.mask.shape, *[1] * (change.ndim - 2))


def record(
    agent: CuriousAgent, env: VectorEnv, *, episodes: int, context: int, rollout_length: int, greedy: bool = False
) -> list[Rollout]:
    """Run at least `episodes` episodes of a frozen agent and return its rollouts in the order of time.

    The caller freezes the agent with `run_episodes.freeze`. `context` and `rollout_length` are those of its training.
    """
    return [
        roll
        for roll, _ in run_episodes(
            agent, env, EpisodeStats(episodes), context=context, rollout_length=rollout_length, greedy=greedy
        )
    ]


@torch.no_grad()
def read(model: WorldModel, rolls: list[Rollout]) -> Activations:
    """Compute a model's activations on rollouts, with the context of acting, and so with the h of acting.

    The model is that of the rollouts, or another one as a control (the same architecture with random weights, an
    earlier checkpoint).
    """
    parts = [_read(model, roll) for roll in rolls]
    together = {key: torch.cat([part[key] for part in parts], 1) for key in parts[0] if key not in ("layers", "info")}
    names = ["token", *(str(i + 1) for i in range(len(parts[0]["layers"]) - 1))]
    layers = {name: torch.cat([part["layers"][i] for part in parts], 1) for i, name in enumerate(names)}
    shared = set.intersection(*(set(part["info"]) for part in parts))
    info = {key: torch.cat([part["info"][key] for part in parts], 1) for key in sorted(shared)}
    obs = map_obs(lambda *leaves: torch.cat(leaves, 1), *(roll.new_steps(roll.obs) for roll in rolls))
    together["mask"][:, -1] = False
    copies = len(together["mask"])
    together["episode"] = together["episode"] * copies + torch.arange(copies, device=rolls[0].act.device)[:, None]
    return Activations(layers=layers, obs=obs, info=info, **together)


def _read(model: WorldModel, roll: Rollout) -> dict[str, Tensor | list[Tensor] | dict[str, Tensor]]:
    rows = slice(0, -1)
    z = model.encoder(map_obs(lambda o: o[:, rows], roll.obs))
    episode, valid = roll.episode[:, rows], roll.valid[:, rows]
    x = model.tokens(z, roll.prev_act[:, rows], roll.starts[:, rows])
    layers = [a[:, -roll.num_new :] for a in (x, *model.memory.layers(x, episode, valid))]
    z = z[:, -roll.num_new :]
    seen = age(torch.where(valid, episode, -1))
    return {
        "layers": layers,
        "z": z,
        "y": model.target(roll.new_steps(roll.obs), z),
        "act": roll.new_steps(roll.act),
        "rew_ext": roll.new_steps(roll.rew_ext),
        "mask": roll.new_steps(roll.mask).clone(),
        "episode": roll.new_steps(roll.episode),
        "context": seen[:, -roll.num_new :],
        "info": {key: x[:, :-1] for key, x in (roll.info or {}).items()},
    }
