"""Films the agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from worldmodel.learner.curious_agent import CuriousAgent
from worldmodel.training.build import build_env


def film(module: CuriousAgent, cfg: DictConfig, path: Path, episodes: int = 3, max_steps: int = 600) -> str:
    """Record sampled episodes to an mp4, with gymnasium, whose MiniGrid shows what the agent sees, or else with the
    configuration's engine.

    Returns the file's name, or why there is none: a video is never worth losing a run.
    """
    reasons = []
    for engine in dict.fromkeys(("gymnasium", cfg.env.engine)):
        try:
            frames = play(module, cfg, engine, episodes, max_steps)
            import imageio.v3 as iio

            iio.imwrite(path, np.stack(frames), fps=15, codec="libx264", macro_block_size=2)
            return path.name
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return f"none: {'; '.join(reasons)}"


@torch.no_grad()
def play(module: CuriousAgent, cfg: DictConfig, engine: str, episodes: int, max_steps: int) -> list[np.ndarray]:
    """Pictures (H, W, 3) uint8 of one copy of the environment, one a step. ValueError if it doesn't render."""
    changes = {"engine": engine, "render": True, "vectorization": "sync"}
    env = build_env(cfg, seed=cfg.seed + 10_000, num_envs=1, **changes)
    actor = module.eval().make_actor(1, cfg.data.context, cfg.data.rollout_length)
    obs, frames, over = env.reset(), [], 0
    try:
        while over < episodes and len(frames) < max_steps:
            step = env.step(actor.observe(obs).act)
            actor.record_outcome(*(x.to(actor.device) for x in (step.rew, step.end, step.trunc, step.ignored)))
            obs = step.obs
            frame = env.render()
            if frame is None:
                raise ValueError(f"env.engine={engine}: doesn't render this environment")
            frames.append(np.ascontiguousarray(frame))
            over += int((step.end | step.trunc).item())
    finally:
        env.close()
    return frames
