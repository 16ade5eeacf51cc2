"""Films of an agent in its environment."""

from __future__ import annotations

import base64
import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig
from torch import Tensor

from worldmodel.envs import Step
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.files import atomic_write
from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.model.world_model import Outputs
from worldmodel.training.build import build_env
from worldmodel.types import Obs, ScoredRollout

SEED_OFFSET = 10_000  # added to the training's seed, for the film at the end of a run


class Filmed(Wrapper):
    """Environment that keeps a picture of its first copy after each step."""

    def reset(self) -> Obs:
        self.frames: list[np.ndarray | None] = []
        return super().reset()

    def step(self, act: Tensor) -> Step:
        step = super().step(act)
        self.frames.append(self.render())
        return step


class FilmedRollout(NamedTuple):
    """A rollout of one environment with its pictures."""

    frames: list[np.ndarray]  # (H, W, 3) uint8, one for each counted transition
    counted: np.ndarray  # (T,) bool
    rollout: ScoredRollout
    outputs: Outputs


def film_episodes(
    agent: CuriousAgent, cfg: DictConfig, engine: str, *, seed: int, episodes: int, max_steps: int
) -> Iterator[FilmedRollout]:
    """Yield the rollouts of sampled episodes until `episodes` have ended or there are `max_steps` pictures.

    The agent is already frozen for one environment.

    Raises:
        ValueError: where the environment does not render.
    """
    env = Filmed(build_env(cfg, seed=seed, num_envs=1, engine=engine, render=True, vectorization="sync"))
    stats, window = EpisodeStats(episodes), {k: cfg.data[k] for k in ("context", "rollout_length")}
    count = 0
    try:
        for rollout, outputs in run_episodes(agent, env, stats, greedy=False, **window):
            frames, env.frames = env.frames, []
            if frames[0] is None:
                raise ValueError(f"env.engine={engine}: does not render this environment")
            counted = stats.number(rollout)[1][0].cpu().numpy()
            shown = [np.ascontiguousarray(frame) for frame, keep in zip(frames, counted, strict=True) if keep]
            yield FilmedRollout(shown, counted, rollout, outputs)
            count += len(shown)
            if count >= max_steps:
                return
    finally:
        env.close()


def film(agent: CuriousAgent, cfg: DictConfig, path: Path, episodes: int = 3, max_steps: int = 600) -> str:
    """Record sampled episodes to an mp4, with gymnasium where possible, else with the configured engine.

    Gymnasium's MiniGrid marks the agent's view. No error of a film ends a run.

    Returns:
        The name of the file, or `none: ` and the reasons.
    """
    reasons = []
    for engine in dict.fromkeys(("gymnasium", cfg.env.engine)):
        try:
            film = encode_mp4(record_frames(agent, cfg, engine, episodes, max_steps), fps=15)
            atomic_write(path, lambda file, film=film: file.write(film))
            return path.name
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return f"none: {'; '.join(reasons)}"


def record_frames(agent: CuriousAgent, cfg: DictConfig, engine: str, episodes: int, max_steps: int) -> list[np.ndarray]:
    """Return pictures (H, W, 3) uint8 of sampled episodes, one a step. The agent itself is not changed."""
    frozen = copy.deepcopy(agent)
    freeze(frozen, 1)
    filmed = film_episodes(frozen, cfg, engine, seed=cfg.seed + SEED_OFFSET, episodes=episodes, max_steps=max_steps)
    return [frame for part in filmed for frame in part.frames][:max_steps]


def encode_mp4(frames: Sequence[np.ndarray], fps: int = 10) -> bytes:
    """Encode pictures (H, W, 3) uint8 of the same size as an mp4."""
    import imageio.v3 as iio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        iio.imwrite(path, np.stack(frames), fps=fps, codec="libx264", macro_block_size=2)
        return path.read_bytes()


def encode_base64(frames: Sequence[np.ndarray], fps: int = 10) -> str:
    """Encode pictures as an mp4 in base64, as a page embeds it."""
    return base64.b64encode(encode_mp4(frames, fps)).decode()
