"""The agent acting, with its prediction and its curiosity beside it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.report.context import SEED_OFFSET, EvaluationContext
from worldmodel.analysis.report.film import coloured, encode, grid_tiles
from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.analysis.report.section import Film, Section
from worldmodel.analysis.report.symbol_decoder import STREAMS, decode, decoder_of
from worldmodel.envs import Step
from worldmodel.envs.wrappers.base import Wrapper
from worldmodel.learner.run_episodes import EpisodeStats, freeze, run_episodes
from worldmodel.model.world_model import Outputs
from worldmodel.training.build import build_env
from worldmodel.types import Obs, Rollout

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


def video(context: EvaluationContext) -> Section:
    """Of the sampled policy. An environment that can't be filmed is no reason to fail: the report says why."""
    context.progress("video")
    reasons = []
    for engine in dict.fromkeys(("gymnasium", context.cfg.env.engine)):
        try:
            draw, shown = painter(context)
            frames, tiles, rew_int = record(context, engine, draw)
            top = float(rew_int.max())
            both = (stacked(frame, *pair) for frame, pair in zip(frames, tiles, strict=True))
            mp4 = encode([beside(frame, rew_int[: i + 1], top) for i, frame in enumerate(both)])
            words = (
                f"The first {len(frames)} steps of the sampled policy; beside each picture {shown}, above as it came, "
                "below as the world model predicted it one step before; at the right the intrinsic reward of the last "
                f"{SHOWN} steps, the highest bar the highest of the film."
            )
            return Section("Video", {"steps": len(frames), "reason": None}, films=[Film(words, mp4)])
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
    reason = "; ".join(reasons)
    return Section("Video", {"steps": 0, "reason": reason}, text=f"Not available: {reason}")


Draw = Callable[[Rollout, Outputs], np.ndarray]
"""A scored rollout -> for each transition what came and what was predicted: (N, T, 2, h, w, 3) uint8."""


def painter(context: EvaluationContext) -> tuple[Draw, str]:
    """How a prediction is shown, and its name: the agent's view, read off the latent by the probe decoder of
    `imagination`, where observations are symbols; else the change of the latent itself."""
    model, recorded = context.module.model, context.episode_set("sampled").recorded
    if recorded[0].obs is None:
        return lambda roll, out: latent_tiles(out.error, out.pred.mean), "the latent that the model predicts"
    rolls, sizes = RecordedRollouts.join(recorded[: max(1, STREAMS // context.num_envs)]), model.encoder.num_values
    decoder = decoder_of(rolls, model.symbols(rolls.obs), sizes)

    def draw(roll: Rollout, out: Outputs) -> np.ndarray:
        came = model.symbols(roll.next_rows(roll.obs))
        y = out.y[:, :-1]
        ahead = (y + model.expected_delta(out.pred, y)).flatten(2)
        guess = decode(decoder, ahead.flatten(0, 1), sizes).view_as(came)
        return grid_tiles(torch.stack([came, guess], 2), context.spec.obs_space.shape)

    return draw, "the agent's view (a colour a symbol), read off the latent"


def latent_tiles(error: Tensor, mean: Tensor) -> np.ndarray:
    """Normalised errors and predictions (N, T, *latent) -> what came and what was predicted, -3 to 3 as blue to red,
    the first channel of a map, else the numbers of a vector in rows: (N, T, 2, h, w, 3)."""
    pair = torch.stack([mean + error, mean], 2)
    if pair.ndim > 4:
        pair = pair[:, :, :, 0]
    else:
        across = int(np.ceil(pair.shape[-1] ** 0.5))
        pair = torch.nn.functional.pad(pair, (0, -pair.shape[-1] % across)).unflatten(-1, (-1, across))
    return coloured("RdBu_r", (pair / 6 + 0.5).clamp(0, 1))


def record(
    context: EvaluationContext, engine: str, draw: Draw
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Pictures (H, W, 3) uint8 after each transition of the first episodes, what `draw` makes of it, and what it was
    paid (n,). ValueError if the environment doesn't render."""
    changes = {"engine": engine, "render": True, "vectorization": "sync"}
    env = Filmed(build_env(context.cfg, seed=SEED_OFFSET + context.seed, num_envs=1, **changes))
    stats, data = EpisodeStats(EPISODES), context.cfg.data
    frames: list[np.ndarray] = []
    tiles: list[np.ndarray] = []
    paid: list[float] = []
    freeze(context.module, 1)
    try:
        for roll, out in run_episodes(
            context.module, env, stats, context=data.context, rollout_length=data.rollout_length, greedy=False
        ):
            new, env.frames = env.frames, []
            if new[0] is None:
                raise ValueError(f"env.engine={engine}: doesn't render this environment")
            counted = stats.number(roll)[1][0].cpu().numpy()
            frames += [np.ascontiguousarray(frame) for frame, keep in zip(new, counted, strict=True) if keep]
            tiles += list(draw(roll, out)[0][counted])
            paid += roll.rew_int[0].cpu().numpy()[counted].tolist()
            if len(frames) >= STEPS:
                break
    finally:
        env.close()
        freeze(context.module, context.num_envs)
    return frames[:STEPS], tiles[:STEPS], np.array(paid[:STEPS])


def stacked(frame: np.ndarray, came: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) with two tiles (h, w, 3), enlarged, one above the other to its right."""
    half = len(frame) // 2
    size = max(1, (half - 4) // len(came))
    column = np.full((len(frame), size * came.shape[1] + 8, 3), 255, dtype=np.uint8)
    for top, tile in ((2, came), (half + 2, predicted)):
        large = tile.repeat(size, 0).repeat(size, 1)[: half - 2]
        column[top : top + len(large), 4 : 4 + large.shape[1]] = large
    return np.concatenate([frame, column], 1)


def beside(frame: np.ndarray, rew_int: np.ndarray, top: float) -> np.ndarray:
    """The picture with a strip of bars to its right, the latest one rightmost: (H, W, 3) -> (H, W + `PANEL`, 3). A bar
    of `top` is as high as the picture."""
    panel = np.full((len(frame), PANEL, 3), 255, dtype=np.uint8)
    heights = np.maximum(rew_int[-SHOWN:], 0.0) / max(top, 1e-9)
    for i, height in enumerate((heights * (len(frame) - 1)).astype(int)):
        right = PANEL - 2 * (len(heights) - i)
        panel[len(frame) - 1 - height :, right : right + 2] = (31, 95, 174)
    return np.concatenate([frame, panel], 1)
