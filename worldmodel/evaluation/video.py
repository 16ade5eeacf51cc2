"""The agent acting, with its curiosity beside it."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from worldmodel.build import build_env
from worldmodel.envs import Step
from worldmodel.envs.wrapper import Wrapper
from worldmodel.evaluation.section import Film, Section
from worldmodel.evaluation.study import SEED_OFFSET, Study
from worldmodel.rollouts import Tally, freeze, play
from worldmodel.types import Obs

EPISODES, STEPS = 2, 300  # filmed at most
SHOWN = 100  # steps of the strip beside the picture
PANEL = 2 * SHOWN  # its width in pixels


class Filmed(Wrapper):
    """Keeps a picture of copy 0 after each step."""

    def reset(self) -> Obs:
        self.frames: list[np.ndarray | None] = []
        return super().reset()

    def step(self, act: Tensor) -> Step:
        step = super().step(act)
        self.frames.append(self.render())
        return step


def video(study: Study) -> Section:
    """Of the sampled policy. An environment that can't be filmed is no reason to fail: the report says why."""
    study.say("video")
    reasons = []
    for engine in dict.fromkeys(("gymnasium", study.cfg.env.engine)):
        try:
            frames, rew_int = film(study, engine)
            top = float(rew_int.max())
            mp4 = encode([beside(frame, rew_int[: i + 1], top) for i, frame in enumerate(frames)])
            words = (
                f"The first {len(frames)} steps of the sampled policy, and beside them the intrinsic reward that it "
                f"was paid for the last {SHOWN} steps; the highest bar is the highest of the film."
            )
            return Section("Video", {"steps": len(frames), "reason": None}, films=[Film(words, mp4)])
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
    return Section("Video", {"steps": 0, "reason": "; ".join(reasons)})


def film(study: Study, engine: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures (H, W, 3) uint8 after each transition of the first episodes, and what it was paid (n,). ValueError if
    the environment doesn't render."""
    changes = {"engine": engine, "render": True, "vectorization": "sync"}
    env = Filmed(build_env(study.cfg, seed=SEED_OFFSET + study.seed, num_envs=1, **changes))
    tally, data = Tally(EPISODES), study.cfg.data
    frames: list[np.ndarray] = []
    paid: list[float] = []
    freeze(study.module, 1)
    try:
        for roll, _ in play(study.module, env, tally, context=data.context, horizon=data.horizon, greedy=False):
            new, env.frames = env.frames, []
            if new[0] is None:
                raise ValueError(f"env.engine={engine}: doesn't render this environment")
            counted = tally.number(roll)[1][0].cpu().numpy()
            frames += [np.ascontiguousarray(frame) for frame, keep in zip(new, counted, strict=True) if keep]
            paid += roll.rew_int[0].cpu().numpy()[counted].tolist()
            if len(frames) >= STEPS:
                break
    finally:
        env.close()
        freeze(study.module, study.num_envs)
    return frames[:STEPS], np.array(paid[:STEPS])


def beside(frame: np.ndarray, rew_int: np.ndarray, top: float) -> np.ndarray:
    """The picture with a strip of bars to its right, the latest one rightmost: (H, W, 3) -> (H, W + `PANEL`, 3). A bar
    of `top` is as high as the picture."""
    panel = np.full((len(frame), PANEL, 3), 255, dtype=np.uint8)
    heights = np.maximum(rew_int[-SHOWN:], 0.0) / max(top, 1e-9)
    for i, height in enumerate((heights * (len(frame) - 1)).astype(int)):
        right = PANEL - 2 * (len(heights) - i)
        panel[len(frame) - 1 - height :, right : right + 2] = (31, 95, 174)
    return np.concatenate([frame, panel], 1)


def encode(frames: list[np.ndarray]) -> str:
    """An mp4 of 10 frames a second, base64."""
    import imageio.v3 as iio

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        iio.imwrite(path, np.stack(frames), fps=10, codec="libx264", macro_block_size=2)
        return base64.b64encode(path.read_bytes()).decode()
