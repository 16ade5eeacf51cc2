"""Recording of whole episodes as a dataset in Minari's format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from worldmodel.analysis.report.arguments import pick_device
from worldmodel.analysis.report.context import SEED_OFFSET
from worldmodel.envs.spaces import Translation
from worldmodel.errors import ConfigError, check_choice, check_range
from worldmodel.experience.offline import DatasetWriter
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.policy import RandomPolicy
from worldmodel.training.build import build_agent, build_env, env_spec
from worldmodel.training.checkpoint import read_checkpoint
from worldmodel.training.compose import compose_config
from worldmodel.training.config import bad_input, check
from worldmodel.training.loading import check_environment, load_agent
from worldmodel.types import Obs, Sequences, first_leaf, map_obs

RECORDING_SEED = 2 * SEED_OFFSET  # keeps recorded environments apart from those of training and of evaluation

Wanted = Callable[[int, int], bool]
"""Function of an episode's number in its copy of the environment, and of the copy's number."""


class Episode(NamedTuple):
    """A whole episode of n steps, published observations and actions."""

    obs: Obs  # (n + 1, *obs_shape)
    act: Tensor  # (n, *act_shape)
    rew: Tensor  # (n,)
    end: Tensor  # (n,)
    trunc: Tensor  # (n,)


def record(
    checkpoint: str | None = None,
    *,
    out: str,
    behaviour: str = "sampled",
    preset: str | None = None,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 16,
    max_episode_steps: int | None = None,
    device: str = "auto",
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, float]:
    """Record whole episodes. The same arguments give the same dataset on the CPU.

    Args:
        checkpoint: of the agent; None: a random policy in the environment of `preset`.
        out: folder of the new dataset.
        behaviour: `sampled` or `greedy` actions of the agent, `random` ones, or `replay`: the whole episodes in the
            checkpoint's replay, without a step; the arguments about episodes and environments then have no effect.
        preset: experiment that has the environment, without a checkpoint.
        episodes: number of episodes, equally many of each copy.
        seed: of the environments and of sampling.
        num_envs: copies of the environment.
        max_episode_steps: see `run_episodes`.
        device: name of a torch device, or `auto`.
        progress: called with a message after each rollout.

    Returns:
        The numbers of episodes and steps, and the mean return.

    Raises:
        ConfigError: for bad input, without Minari, and for a folder that has a dataset already.
    """
    for key, value in (("episodes", episodes), ("num_envs", num_envs)):
        check_range(key, value, "[1, inf)", whole=True)
    check_range("seed", seed, "[0, 9223372036854775808]", whole=True)
    check_range("max_episode_steps", max_episode_steps, "[1, inf)", whole=True, null=True)
    check_choice("behaviour", behaviour, ("sampled", "greedy", "random", "replay"))
    agent, cfg = _agent(checkpoint, behaviour, preset)
    agent, num_envs = agent.to(pick_device(device)), min(num_envs, episodes)
    freeze(agent, num_envs)
    spec = agent.env_spec
    assert spec is not None and spec.translation is not None
    about = {"behaviour": behaviour, "seed": seed, "num_envs": num_envs, "env_spec": spec.to_dict()}
    about["env"] = OmegaConf.to_container(cfg.env, resolve=True)
    writer = DatasetWriter(out, spec.obs_space, spec.translation.raw_act_space, cfg.env.id, {"worldmodel": about})
    if behaviour == "replay":
        return _write(writer, spec.translation, replayed_episodes(str(checkpoint), cfg.env.num_envs))
    uniform = RandomPolicy(agent.model.memory.dim, agent.model.encoder.shape, spec.act_space, hidden=1)
    torch.manual_seed(seed)
    stats = EpisodeStats(episodes)
    with bad_input():
        env = build_env(cfg, seed=RECORDING_SEED + seed, num_envs=num_envs)
    try:
        playing = run_episodes(
            agent,
            env,
            stats,
            context=cfg.data.context,
            rollout_length=cfg.data.rollout_length,
            greedy=behaviour == "greedy",
            policy=uniform.to(agent.device) if behaviour == "random" else None,
            progress=lambda done: progress(f"{min(done, episodes)}/{episodes} episodes"),
            max_episode_steps=max_episode_steps,
        )
        found = whole_episodes((roll for roll, _ in playing), lambda number, i: number * num_envs + i < episodes)
        return _write(writer, spec.translation, found)
    finally:
        env.close()


def _write(writer: DatasetWriter, translation: Translation, episodes: Iterator[Episode]) -> dict[str, float]:
    """Write episodes and return their number, their steps and their mean return."""
    steps, returns = 0, []
    for x in episodes:
        writer.add(x.obs, translation.write(x.act, len(x.act), flat=False), x.rew, x.end, x.trunc)
        steps += len(x.rew)
        returns.append(float(x.rew.sum()))
    if not returns:
        raise ConfigError("behaviour=replay: no whole episode in the replay of the checkpoint")
    return {"episodes": len(returns), "steps": steps, "return_mean": sum(returns) / len(returns)}


def replayed_episodes(checkpoint: str, num_envs: int) -> Iterator[Episode]:
    """Return the whole episodes in a checkpoint's replay, in the order of training.

    Of a replay that has dropped its oldest sequences, the episodes that had begun before are left out.

    Args:
        checkpoint: path of the file.
        num_envs: environments of the run, whose sequences follow each other in the replay.

    Raises:
        ConfigError: without a replay in the file: of no capacity, on disk, or empty.
    """
    state = dict(read_checkpoint(checkpoint).get("SequenceData", {}).get("replay", {}))
    if "obs" not in state:
        where = f"behaviour=replay: checkpoint={checkpoint} has no sequences in its replay"
        raise ConfigError(f"{where}, allowed are runs with data.replay_capacity above 0 and data.replay_dir=null")
    state.pop("priority", None)
    first = state.pop("first", 0)
    stored = Sequences(**state)[-first % num_envs :]
    stored = stored[: len(stored) // num_envs * num_envs]
    begun = stored.new_steps(stored.episode)[:num_envs, 0] if first else None
    return whole_episodes(stored.split(num_envs), lambda number, i: begun is None or number != int(begun[i]))


def _agent(checkpoint: str | None, behaviour: str, preset: str | None) -> tuple[CuriousAgent, DictConfig]:
    if checkpoint is not None:
        if preset is not None:
            raise ConfigError(f"preset={preset}: allowed with a checkpoint is null")
        agent, cfg = load_agent(checkpoint)
        check_environment(agent, cfg, checkpoint)
        return agent, cfg
    if behaviour != "random":
        raise ConfigError(f"behaviour={behaviour}: allowed without a checkpoint is random")
    if preset is None:
        raise ConfigError("checkpoint=null, preset=null: one of both must be given")
    cfg = compose_config([f"experiment={preset}", "run_dir=unused"])
    OmegaConf.resolve(cfg)
    check(cfg)
    with bad_input(cfg):
        return build_agent(cfg, env_spec(cfg)).eval(), cfg


def whole_episodes(rollouts: Iterable[Sequences], wanted: Wanted) -> Iterator[Episode]:
    """Yield the `wanted` complete episodes of consecutive rollouts of N x T steps.

    A row without a transition closes an episode: it has the final observation.
    """
    kept: list[dict[str, Any]] = []
    closing: Obs | None = None
    for roll in rollouts:
        rows = {name: getattr(roll, name) for name in ("obs", "act", "rew_ext", "end", "trunc", "mask", "episode")}
        own = {name: map_obs(torch.Tensor.cpu, roll.new_steps(x)) for name, x in rows.items()}
        closing = map_obs(lambda x: x[:, -1:].cpu(), roll.obs)
        if not kept:
            empty = {name: map_obs(lambda x: x[:, :0], x) for name, x in own.items()}
            kept = [{name: map_obs(lambda x, i=i: x[i], x) for name, x in empty.items()} for i in range(len(roll))]
        for i, pending in enumerate(kept):
            for name, x in own.items():
                pending[name] = map_obs(lambda a, b: torch.cat([a, b[i]]), pending[name], x)  # noqa: B023
            yield from _split(pending, i, wanted)
    for i, pending in enumerate(kept):
        assert closing is not None
        if len(pending["mask"]) and bool((pending["end"] | pending["trunc"])[-1]):
            pending["obs"] = map_obs(lambda a, b: torch.cat([a, b[i]]), pending["obs"], closing)  # noqa: B023
            for name in ("act", "rew_ext", "end", "trunc", "mask", "episode"):
                pending[name] = torch.cat([pending[name], torch.zeros_like(pending[name][:1])])
            yield from _split(pending, i, wanted)


def _split(pending: dict[str, Any], copy: int, wanted: Wanted) -> Iterator[Episode]:
    """Yield the complete episodes of one copy's rows, and remove them."""
    start = 0
    for stop in (~pending["mask"]).nonzero()[:, 0].tolist():
        if stop > start and wanted(int(pending["episode"][start]), copy):
            steps = {name: pending[name][start:stop] for name in ("act", "rew_ext", "end", "trunc")}
            yield Episode(map_obs(lambda x: x[start : stop + 1], pending["obs"]), *steps.values())  # noqa: B023
        start = stop + 1
    for name, x in pending.items():
        pending[name] = map_obs(lambda leaf: leaf[start:], x)
    assert len(first_leaf(pending["obs"])) == len(pending["mask"])
