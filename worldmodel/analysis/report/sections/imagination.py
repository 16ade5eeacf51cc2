"""Open-loop imagination, decoded into symbols and compared with the real observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.film import grid_tiles
from worldmodel.analysis.report.open_loop import imagine
from worldmodel.analysis.report.recorded import RecordedRollouts, spread
from worldmodel.analysis.report.section import Figure, Film, Section, Table
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.report.symbol_decoder import STREAMS, decode, decoder_of, right
from worldmodel.analysis.video import encode_base64

STARTS = 512  # approximate number of starts
PIXELS = 16  # of a cell's side in the film
SHOWN = (
    "One start of the sampled policy: the real observations (above) and those imagined from the actions alone (below), "
    "decoded cell by cell"
)


def imagination(context: EvaluationContext, horizons: list[int]) -> Section | None:
    """Imagination of the sampled policy's behaviour; None where observations are not symbols."""
    recorded = context.episode_set("sampled").recorded
    if recorded[0].obs is None:
        return None
    context.progress("imagination")
    rolls = RecordedRollouts.join(recorded[: max(1, STREAMS // context.num_envs)])
    model, codes = context.agent.model, context.agent.model.symbols(rolls.obs)  # (N, T+1, cells, C)
    sizes, odd = model.encoder.num_values, rolls.number % 2 == 1
    if not (rolls.real & ~odd).any():
        return None
    decoder = decoder_of(rolls, codes, sizes)
    fits = [h for h in horizons if h < rolls.window.num_new]
    found = {str(h): {"imagined": [], "seen": [], "still": []} for h in fits}
    shown = None
    for start in spread([rolls], STARTS):
        ahead = [h for h in fits if start + h <= rolls.window.num_new]
        if not ahead:
            continue
        path = imagine(model, rolls.window, start, max(ahead))
        for h in ahead:
            keep = odd[:, start] & rolls.real[:, start : start + h].all(1)
            then, row = codes[:, start + h][keep], found[str(h)]
            guess = decode(decoder, path[:, h - 1][keep].flatten(1), sizes)
            row["imagined"].append(right(guess, then))
            row["seen"].append(right(decode(decoder, rolls.window.y[:, start + h][keep].flatten(1), sizes), then))
            row["still"].append(right(codes[:, start][keep], then))
            if shown is None and h == fits[-1] and keep.any():
                shown = start, int(keep.nonzero()[0])
    numbers: dict[str, Any] = {"cells_right": {h: {k: _mean(x) for k, x in row.items()} for h, row in found.items()}}
    rows = [[h, x["imagined"], x["still"], x["seen"]] for h, x in numbers["cells_right"].items()]
    words = (
        "Share of cells whose symbols are all right: in the decoded open-loop prediction; in the view at the start, "
        "as if nothing changed; and in the decoded true latent, the upper bound of this decoder. The "
        "decoder is a ridge regression of one-hot symbols on the frozen latent, fitted on episodes of even number and "
        "tested on the others."
    )
    table = Table(words, ["steps ahead", "imagined", "no change", "decoded truth"], rows)
    if shown is None:
        return Section("Imagination", numbers, [table])
    start, copy = shown
    path = imagine(model, rolls.window, start, fits[-1])[copy].flatten(1)
    came = codes[copy, start : start + 1 + fits[-1]]
    pair = torch.stack([came, torch.cat([came[:1], decode(decoder, path, sizes)])])
    tiles = grid_tiles(pair, context.spec.obs_space.shape)
    return Section("Imagination", numbers, [table], [_strip(tiles, fits)], [_film(tiles)])


def _mean(parts: list[np.ndarray]) -> float | None:
    joined = np.concatenate(parts) if parts else np.empty(0)
    return rounded(joined.mean()) if len(joined) else None


def _strip(pair: np.ndarray, horizons: list[int]) -> Figure:
    """Draw real and imagined tiles (2, 1 + steps, h, w, 3): one column a horizon, the start first."""
    steps = [0, *horizons]
    drawing, _ = canvas(1, width=1.1 * len(steps), height=2.6)
    drawing.clear()
    for column, h in enumerate(steps):
        for row, tiles in enumerate(pair):
            axis = drawing.add_subplot(2, len(steps), row * len(steps) + column + 1)
            axis.imshow(tiles[h], interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title("start" if h == 0 else f"+{h}", fontsize=8)
            if column == 0:
                axis.set_ylabel(("truth", "imagined")[row], fontsize=8)
    return Figure.of(drawing, f"{SHOWN}; the first symbol of each cell as a colour.")


def _film(pair: np.ndarray) -> Film:
    """Film the same tiles, step by step, enlarged."""
    space = np.full_like(pair[0][:, :1], 255)
    tall = np.concatenate([pair[0], space, pair[1]], 1)
    return Film(f"{SHOWN}, step by step.", encode_base64(list(tall.repeat(PIXELS, 1).repeat(PIXELS, 2)), fps=3))
