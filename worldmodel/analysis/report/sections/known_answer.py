"""Predictions and memory of the model in comparison with an ideal observer, where the exact answer is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldmodel.analysis.probes.activations import Activations
from worldmodel.analysis.probes.belief import fit_belief, simplex_figure
from worldmodel.analysis.probes.information import age, entropy, excess_entropy
from worldmodel.analysis.probes.observation import IDEAL_OBSERVER, fit_observation_head
from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EvaluationContext
from worldmodel.analysis.report.cut_memory import cut
from worldmodel.analysis.report.recorded import RecordedRollouts, spread
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import rounded
from worldmodel.analysis.statistics import ratio_interval
from worldmodel.model.heads.observation import ObservationHead

SETTLED = 8  # tokens seen before the cross-entropy counts
LONGEST = 16  # tokens of context in the sum of the excess entropy, at most
STARTS = 2048  # about as many predictions for each context length


def known_answer(context: EvaluationContext) -> Section | None:
    """Comparison with the ideal observer on the sampled policy's behaviour.

    None where the environment has no ideal observer, the observation is not one symbol, or there is only one episode.
    """
    recorded = context.episode_set("sampled").recorded
    if not set(IDEAL_OBSERVER) <= recorded[0].info.keys() or recorded[0].obs is None:
        return None
    context.progress("known answer")
    rolls, model = RecordedRollouts.join(recorded), context.agent.model
    if len(rolls.number[rolls.real].unique()) < 2:
        return None  # nothing to hold out
    head, evaluated = observation_head(context, rolls)
    if head.cells != 1 or len(head.sizes) != 1:
        return None
    act, seen = rolls.window.seq.new_steps(rolls.window.seq.act), tokens_seen(rolls)
    settled = evaluated & (seen >= SETTLED)
    expected = expected_nats(head, rolls.h, model.act(act), exact(rolls, act))
    ideal = rolls.info["entropy"][:, :-1].gather(-1, act[..., None])[..., 0]
    codes = model.symbols(rolls.obs)[:, 1:]
    nll = head.nll(rolls.h, model.act(act), codes)
    fit = fit_belief(rolls.h[rolls.real], rolls.info["belief"][:, :-1][rolls.real], rolls.number[rolls.real])
    curve, rate = by_context(context, head, rolls, evaluated)
    numbers: dict[str, Any] = {
        "observation_head": "trained with the model" if head.joint else "fitted alone on the frozen memory",
        "cross_entropy_nats": _mean(expected, settled),
        "optimal_nats": _mean(ideal, settled),
        "cross_entropy_over_optimal_ci": _ratio(expected, ideal, settled, rolls.number, context.seed),
        "log_loss_nats": _mean(nll, settled),
        "samples": int(settled.sum()),
        "belief_r2": rounded(fit.r2),
        "belief_r2_shuffled": rounded(fit.r2_shuffled),
        "entropy_rate_bits": rounded(rate),
        "excess_entropy_bits": None if curve is None else rounded(excess_entropy(curve, float(curve[-1]))),
        "bits_by_context": None if curve is None else [rounded(x) for x in curve.tolist()],
    }
    words = (
        "The model's cross-entropy with the exact distribution of the next token, and its optimum: that of an ideal "
        f"observer of the same history (in nats; after {SETTLED} tokens or more); the mean log loss of the observed "
        "tokens; held-out R² of an affine map from the memory to the exact Bayes belief, beside the same with shuffled "
        "beliefs; the entropy rate and the excess entropy of the model's predictions (bits). The observation head was "
        f"{numbers['observation_head']}."
    )
    table = Table(words, ["", "value"], [[k, v] for k, v in numbers.items() if k != "bits_by_context"])
    figures = [_picture(expected, ideal, seen, evaluated, curve, rate)]
    if fit.truth.shape[1] == 3:
        figures.append(
            Figure.of(
                simplex_figure(fit),
                "The belief of an exact Bayes filter about the three hidden states, and an affine map of "
                "the memory, on held-out episodes; a point's colour is its true belief.",
            )
        )
    return Section("Known answer", numbers, [table], figures)


def observation_head(context: EvaluationContext, rolls: RecordedRollouts) -> tuple[ObservationHead, Tensor]:
    """Return an observation head and the transitions (N, T) on which it is tested.

    The head is the model's own, tested on all counted transitions; without one, a head is fitted to the frozen memory
    on the episodes of even number, and tested on the others.
    """
    model = context.agent.model
    if model.observation is not None:
        return model.observation, rolls.real
    odd = rolls.number % 2 == 1
    return fit_observation_head(model, _rows(rolls, rolls.real & ~odd), context.spec.obs_space, seed=context.seed), (
        rolls.real & odd
    )


def tokens_seen(rolls: RecordedRollouts) -> Tensor:
    """(N, T): number of tokens of the episode in the memory's window before each transition."""
    seq = rolls.window.seq
    return seq.new_steps(age(torch.where(seq.valid, seq.episode, -1))) + 1


def exact(rolls: RecordedRollouts, act: Tensor) -> Tensor:
    """Exact distribution (N, T, X) of the next token given the action."""
    predictive = rolls.info["predictive"][:, :-1]
    index = act[..., None, None].expand(*act.shape, 1, predictive.shape[-1])
    return predictive.gather(2, index)[:, :, 0]


@torch.no_grad()
def expected_nats(head: ObservationHead, h: Tensor, act: Tensor, chance: Tensor) -> Tensor:
    """Cross-entropy -sum_x p(x) log q(x) (*lead) of the head's q with the exact p, `chance` (*lead, X).

    h and the embedded act are (*lead, D). The mean equals that of the log loss, without the noise of sampled tokens.
    """
    return -(chance * head(h, act)[0][..., 0, :].log_softmax(-1)).sum(-1)


@torch.no_grad()
def by_context(
    context: EvaluationContext, head: ObservationHead, rolls: RecordedRollouts, evaluated: Tensor
) -> tuple[Tensor | None, float | None]:
    """Entropy of the next token by tokens of context, and with the whole context of acting, in bits.

    Averaged over the same transitions, which have at least `LONGEST` tokens before them; (None, None) without any. The
    memory is cut to a number of tokens, which in a stationary process equals an episode that began there. Without
    context, the entropy is that of the tokens' frequencies.
    """
    model, longest = context.agent.model, min(LONGEST, context.cfg.data.context + 1)
    starts = spread([rolls], STARTS)
    keep = (evaluated & (tokens_seen(rolls) >= longest))[:, starts]
    if not keep.any():
        return None, None
    act = rolls.window.seq.new_steps(rolls.window.seq.act)
    chance, embedded = exact(rolls, act)[:, starts][keep], model.act(act[:, starts][keep])
    tokens = model.symbols(rolls.obs)[:, 1:][:, starts][keep].flatten()
    curve = [entropy(torch.bincount(tokens))]
    for seen in range(1, longest + 1):
        h = cut(model, rolls, starts, seen - 1)[keep]
        curve.append(float(expected_nats(head, h, embedded, chance).mean()) / math.log(2))
    rate = float(expected_nats(head, rolls.h[:, starts][keep], embedded, chance).mean()) / math.log(2)
    return torch.tensor(curve, dtype=torch.double), rate


def _rows(rolls: RecordedRollouts, mask: Tensor) -> Activations:
    """The rollouts as activations, with the transitions `mask` (N, T); the closing row has no transition."""
    seq = rolls.window.seq
    blank = torch.zeros_like(rolls.h[:, :1])
    return Activations(
        layers={"h": torch.cat([rolls.h, blank], 1)},
        z=seq.new_rows(rolls.window.z),
        y=rolls.window.y,
        obs=rolls.obs,
        act=seq.new_rows(seq.act),
        rew_ext=seq.new_rows(seq.rew_ext),
        mask=torch.cat([mask, torch.zeros_like(mask[:, :1])], 1),
        episode=seq.new_rows(seq.episode),
        context=torch.cat([tokens_seen(rolls), tokens_seen(rolls)[:, -1:]], 1),
        info=rolls.info,
    )


def _mean(x: Tensor, where: Tensor) -> float | None:
    return rounded(float(x[where].mean())) if where.any() else None


def _ratio(part: Tensor, whole: Tensor, where: Tensor, number: Tensor, seed: int) -> list[float | None] | None:
    if not where.any():
        return None
    which = np.unique(number[where].cpu().numpy(), return_inverse=True)[1]
    found = ratio_interval(*(np.bincount(which, x[where].detach().cpu().numpy()) for x in (part, whole)), seed)
    return found and [rounded(x) for x in found]


def _picture(
    expected: Tensor, ideal: Tensor, seen: Tensor, evaluated: Tensor, curve: Tensor | None, rate: float | None
) -> Figure:
    drawing, (left, right) = canvas(2)
    where, count = seen[evaluated], torch.bincount(seen[evaluated])
    for x, label, style in ((expected, "model", "C0.-"), (ideal, "ideal observer", "k-")):
        total = torch.bincount(where, x[evaluated].double())
        at = torch.nonzero(count).flatten()
        left.plot(at.cpu(), (total / count)[at].cpu(), style, label=label, lw=1, ms=3)
    left.set(xlabel="tokens seen", ylabel="nats a token")
    left.legend(fontsize=8)
    if curve is not None:
        right.plot(curve, marker=".")
        right.axhline(rate, color="C0", ls="--", lw=0.8)
        right.fill_between(range(len(curve)), curve, curve[-1], alpha=0.2, lw=0)
    right.set(xlabel="tokens of context", ylabel="bits a token")
    return Figure.of(
        drawing,
        "Left: the model's cross-entropy with the exact distribution of the next token by the number of tokens of the "
        "episode in its window, and the optimum; right: bits a token by the number of tokens to which the memory is "
        "cut (the area is the excess entropy), and with the whole context of acting (dashed).",
    )
