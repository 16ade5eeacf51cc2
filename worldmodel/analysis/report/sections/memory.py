"""Value of the memory: the same checkpoint with its context cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.probes.linear import Score
from worldmodel.analysis.probes.memory import horizon_figure, memory_horizon
from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.cut_memory import cut
from worldmodel.analysis.report.recorded import RecordedRollouts, spread
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import rounded, skill
from worldmodel.model.world_model import WorldModel

STARTS = 1024  # about as many transitions
ROWS, LEAST = 20_000, 200  # steps of the linear maps' fit and test: at most, at least
WIDEST = 1024  # numbers of a latent that is decoded


def memory(context: EvaluationContext) -> Section:
    """One-step skill on the sampled policy's behaviour by context length, and the reach of the memory."""
    recorded, model = context.episode_set("sampled").recorded, context.agent.model
    starts = spread(recorded, STARTS)
    context.progress("memory: skill by context")
    by_context = {}
    for steps in doubling(context.cfg.data.context):
        found = [errors(model, part, starts, cut(model, part, starts, steps)) for part in recorded]
        error, base = (np.concatenate(x) for x in zip(*found, strict=True))
        episode = np.concatenate([part.number[:, starts][part.real[:, starts]].cpu().numpy() for part in recorded])
        by_context[str(steps)] = skill(error, base, episode, context.seed)
    context.progress("memory: linear maps to earlier latents")
    curves = horizon(recorded, context.cfg.data.context, context.seed)
    numbers: dict[str, Any] = {"skill_by_context": by_context, "horizon": None}
    figures = [_picture(by_context)]
    if curves is not None:
        numbers["horizon"] = {
            name: {str(k): {"r2": rounded(s.score), "r2_shuffled": rounded(s.shuffled)} for k, s in curve.items()}
            for name, curve in curves.items()
        }
        words = (
            "Reach of the memory: the R², on held-out episodes of the sampled policy, of a linear map from "
            "the memory h[t] to the latent z[t - k], beside one from the present latent alone; dotted: the same with "
            "shuffled latents."
        )
        figures.append(Figure.of(horizon_figure(curves), words))
    table = Table(
        "One-step skill by context length: the same transitions and weights, the memory reading only so many steps of "
        "the episode before the present one.",
        ["steps of context", "skill", "95 %", "samples"],
        [[c, x["skill"], x["ci"], x["samples"]] for c, x in by_context.items()],
    )
    return Section("Memory", numbers, [table], figures)


def doubling(most: int) -> list[int]:
    """Return 0, 1, 2, 4, … and `most`."""
    below = [0, *(2**k for k in range(most.bit_length()))] if most else [0]
    return sorted({c for c in below if c < most} | {most})


@torch.no_grad()
def errors(
    model: WorldModel, recorded: RecordedRollouts, starts: list[int], h: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Return squared errors (n,) of counted transitions, predicted from h (N, S, D), and those of no change."""
    at = torch.tensor(starts, device=h.device)
    act = recorded.window.seq.new_steps(recorded.window.seq.act)[:, at]
    y = recorded.window.y[:, torch.stack([at, at + 1], 1)].flatten(0, 1)  # (N * S, 2, *latent)
    out = model.predict_and_compare(h.flatten(0, 1)[:, None], act.flatten(0, 1)[:, None], y, y)
    real = recorded.real[:, at].flatten()
    return tuple(x[:, 0][real].cpu().numpy() for x in (out.skill_error, out.skill_base))


def horizon(recorded: list[RecordedRollouts], most: int, seed: int) -> dict[str, dict[int, Score]] | None:
    """Score linear maps from the memory, and from the present latent alone, to the latent of k steps ago, k to `most`.

    None where fewer than two episodes are long enough. The latent is z, or y where z is wider than `WIDEST`.
    """
    streams = max(1, ROWS // recorded[0].window.num_new)
    rolls = RecordedRollouts.join(recorded)
    new = rolls.window.num_new
    h, episode = rolls.h[:streams], rolls.number[:streams]
    z = rolls.window.seq.new_steps(rolls.window.z)[:streams].flatten(2)
    if z.shape[2] > WIDEST:
        z = rolls.window.y[:streams, :-1].flatten(2)
    lags = doubling(min(most, new - 1))
    while lags and not _enough(episode, lags[-1]):
        lags.pop()
    if not lags:
        return None
    return {
        "memory": memory_horizon(h, z, episode, lags, seed=seed),
        "present latent alone": memory_horizon(z, z, episode, lags, seed=seed),
    }


@torch.no_grad()
def horizon_by_context(
    recorded: list[RecordedRollouts], model: WorldModel, contexts: list[int], seed: int
) -> dict[int, dict[int, Score]]:
    """Score linear maps from a memory with cut context to the latent of k steps ago: {steps of context: {lag: score}}.

    All contexts share one checkpoint, rows and lags (up to twice the longest context). Beyond its context, a memory
    can only use what the latents themselves carry of their past.

    Raises:
        ValueError: where no lag has enough rows.
    """
    rolls = RecordedRollouts.join(recorded)
    new = rolls.window.num_new
    z = rolls.window.seq.new_steps(rolls.window.z).flatten(2)
    lags = doubling(min(2 * max(contexts), new - 1))
    while lags and not _enough(rolls.number, lags[-1]):
        lags.pop()
    if not lags:
        raise ValueError(f"episodes: no lag has {LEAST} rows of 2 episodes behind it, allowed are longer or more ones")
    starts = list(range(new))
    return {c: memory_horizon(cut(model, rolls, starts, c), z, rolls.number, lags, seed=seed) for c in contexts}


def _enough(episode: Tensor, lag: int) -> bool:
    """Return whether `LEAST` rows, from at least two episodes, have `lag` earlier rows."""
    late = episode[:, lag:]
    late = late[late == episode[:, : episode.shape[1] - lag]]
    return len(late) >= LEAST and len(late.unique()) > 1


def _picture(by_context: dict[str, Any]) -> Figure:
    drawing, (axis,) = canvas()
    rows = [(int(c), x) for c, x in by_context.items() if x["skill"] is not None]
    if rows:
        at = np.arange(len(rows))
        axis.plot(at, [x["skill"] for _, x in rows], marker="o")
        axis.fill_between(at, *zip(*(x["ci"] for _, x in rows), strict=True), alpha=0.2, lw=0)
        axis.set_xticks(at, [str(c) for c, _ in rows])
    axis.set(xlabel="steps of context", ylabel="one-step skill")
    return Figure.of(
        drawing,
        "One-step skill (1 - squared error / that of predicting no change) when the memory reads only so many steps of "
        "the episode before the present one, with 95 % bootstrap intervals over episodes.",
    )
