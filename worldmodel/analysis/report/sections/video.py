"""Film of the agent, its predictions and its intrinsic reward."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.report.context import SEED_OFFSET, EvaluationContext
from worldmodel.analysis.report.film import coloured, grid_tiles
from worldmodel.analysis.report.recorded import RecordedRollouts
from worldmodel.analysis.report.section import Film, Section
from worldmodel.analysis.report.symbol_decoder import STREAMS, decode, decoder_of
from worldmodel.analysis.video import encode_base64, film_episodes
from worldmodel.learner.run_episodes import freeze
from worldmodel.model.world_model import Outputs
from worldmodel.types import Rollout

EPISODES, STEPS = 2, 300  # filmed at most
SHOWN = 100  # steps of the strip beside the picture
PANEL = 2 * SHOWN  # its width in pixels


def video(context: EvaluationContext) -> Section:
    """Film of the sampled policy. Where no engine renders, the section states the reasons."""
    context.progress("video")
    reasons = []
    for engine in dict.fromkeys(("gymnasium", context.cfg.env.engine)):
        try:
            draw, shown = painter(context)
            frames, tiles, rew_int = record(context, engine, draw)
            top = float(rew_int.max())
            both = (stacked(frame, *pair) for frame, pair in zip(frames, tiles, strict=True))
            mp4 = encode_base64([beside(frame, rew_int[: i + 1], top) for i, frame in enumerate(both)])
            words = (
                f"The first {len(frames)} steps of the sampled policy. Beside each picture: {shown}, the real step "
                "above and its one-step prediction below. At the right: the intrinsic reward of the last "
                f"{SHOWN} steps; the highest bar is the maximum of the film."
            )
            return Section("Video", {"steps": len(frames), "reason": None}, films=[Film(words, mp4)])
        except Exception as error:
            reasons.append(f"{type(error).__name__}: {error}".splitlines()[0])
    reason = "; ".join(reasons)
    return Section("Video", {"steps": 0, "reason": reason}, text=f"Not available: {reason}")


Draw = Callable[[Rollout, Outputs], np.ndarray]
"""Tiles (N, T, 2, h, w, 3) uint8 of a scored rollout: for each transition the real next step and its prediction."""


def painter(context: EvaluationContext) -> tuple[Draw, str]:
    """Return a function that draws predictions, and the name of what it draws.

    Where observations are symbols, it draws the agent's view, decoded from the latent by the probe of `imagination`;
    elsewhere the change of the latent.
    """
    model, recorded = context.agent.model, context.episode_set("sampled").recorded
    if recorded[0].obs is None:
        return lambda roll, out: latent_tiles(out.error, out.pred.mean), "the latent's change"
    rolls, sizes = RecordedRollouts.join(recorded[: max(1, STREAMS // context.num_envs)]), model.encoder.num_values
    decoder = decoder_of(rolls, model.symbols(rolls.obs), sizes)

    def draw(roll: Rollout, out: Outputs) -> np.ndarray:
        real = model.symbols(roll.next_rows(roll.obs))
        y = out.y[:, :-1]
        ahead = (y + model.expected_delta(out.pred, y)).flatten(2)
        guess = decode(decoder, ahead.flatten(0, 1), sizes).view_as(real)
        return grid_tiles(torch.stack([real, guess], 2), context.spec.obs_space.shape)

    return draw, "the agent's view (a colour a symbol), decoded from the latent"


def latent_tiles(error: Tensor, mean: Tensor) -> np.ndarray:
    """Tiles (N, T, 2, h, w, 3) of real and predicted changes, from normalised errors and predictions (N, T, *latent).

    Colours run from blue (-3) to red (3). A map shows its first channel; a vector fills rows.
    """
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
    """Return pictures (H, W, 3) uint8 of the first transitions, the tiles that `draw` gives, and the rewards (n,).

    Raises:
        ValueError: where the environment does not render.
    """
    frames: list[np.ndarray] = []
    tiles: list[np.ndarray] = []
    paid: list[float] = []
    seed = SEED_OFFSET + context.seed
    freeze(context.agent, 1)
    try:
        for part in film_episodes(context.agent, context.cfg, engine, seed=seed, episodes=EPISODES, max_steps=STEPS):
            frames += part.frames
            tiles += list(draw(part.rollout, part.outputs)[0][part.counted])
            paid += part.rollout.rew_int[0].cpu().numpy()[part.counted].tolist()
    finally:
        freeze(context.agent, context.num_envs)
    return frames[:STEPS], tiles[:STEPS], np.array(paid[:STEPS])


def stacked(frame: np.ndarray, real: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Append two enlarged tiles (h, w, 3) to the right of a picture (H, W, 3), one above the other."""
    half = len(frame) // 2
    size = max(1, (half - 4) // len(real))
    column = np.full((len(frame), size * real.shape[1] + 8, 3), 255, dtype=np.uint8)
    for top, tile in ((2, real), (half + 2, predicted)):
        large = tile.repeat(size, 0).repeat(size, 1)[: half - 2]
        column[top : top + len(large), 4 : 4 + large.shape[1]] = large
    return np.concatenate([frame, column], 1)


def beside(frame: np.ndarray, rew_int: np.ndarray, top: float) -> np.ndarray:
    """Append a strip of bars to the right of a picture: (H, W, 3) -> (H, W + `PANEL`, 3).

    The latest bar is the rightmost. A bar of `top` is as high as the picture.
    """
    panel = np.full((len(frame), PANEL, 3), 255, dtype=np.uint8)
    heights = np.maximum(rew_int[-SHOWN:], 0.0) / max(top, 1e-9)
    for i, height in enumerate((heights * (len(frame) - 1)).astype(int)):
        right = PANEL - 2 * (len(heights) - i)
        panel[len(frame) - 1 - height :, right : right + 2] = (31, 95, 174)
    return np.concatenate([frame, panel], 1)
