"""Films the agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig

from worldmodel.actor import Actor
from worldmodel.build import build_env
from worldmodel.module import CuriousAgent


@torch.no_grad()
def film(module: CuriousAgent, cfg: DictConfig, path: Path, episodes: int = 3, max_steps: int = 600) -> str:
    """Record sampled episodes of a Gymnasium copy of the environment, to an mp4.

    Returns the file's name, or why there is none: a video is never worth losing a run.
    """
    try:
        env = build_env(cfg, seed=cfg.seed + 10_000, num_envs=1, engine="gymnasium", render_mode="rgb_array")
    except Exception as error:
        return f"none: {type(error).__name__}: {error}".splitlines()[0]
    module.eval()
    actor = Actor(
        module.model,
        module.policy,
        env.act_space,
        num_envs=1,
        context=cfg.data.context,
        horizon=cfg.data.horizon,
        device=module.device,
    )
    obs, frames, over = env.reset(), [], 0
    while over < episodes and len(frames) < max_steps:
        step = env.step(actor.observe(obs).act)
        actor.feedback(*(x.to(actor.device) for x in (step.rew, step.end, step.trunc, step.ignored)))
        obs = step.obs
        frame = env.render()
        if frame is None:
            return "none: the environment doesn't render"
        frames.append(np.ascontiguousarray(frame))
        over += int((step.end | step.trunc).item())
    env.close()
    import imageio.v3 as iio

    try:
        iio.imwrite(path, np.stack(frames), fps=15, codec="libx264", macro_block_size=2)
    except Exception as error:
        return f"none: {type(error).__name__}: {error}".splitlines()[0]
    return path.name
