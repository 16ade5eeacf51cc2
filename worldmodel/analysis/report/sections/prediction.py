"""Predictions of the world model: skill by horizon and by action, calibration, reward and end."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from worldmodel.analysis.report.baselines import WIDEST, Affine
from worldmodel.analysis.report.canvas import canvas
from worldmodel.analysis.report.context import EpisodeSet, EvaluationContext
from worldmodel.analysis.report.head_metrics import end_head, reward_head
from worldmodel.analysis.report.open_loop import Errors, imagines_latents, open_loop
from worldmodel.analysis.report.recorded import grouped, spread
from worldmodel.analysis.report.section import Figure, Section, Table
from worldmodel.analysis.report.skill import skill
from worldmodel.analysis.report.transitions import Transitions

BEHAVIOURS = ("sampled", "greedy", "random")
STARTS = 512  # about as many starts of open-loop predictions


def prediction(context: EvaluationContext, horizons: list[int]) -> Section:
    """Predictions of the agent's behaviour, sampled and greedy, and of random behaviour."""
    numbers: dict[str, Any] = {"open_loop_latent": "imagined" if imagines_latents(context.agent.model) else "unknown"}
    space = context.act_space
    for name in BEHAVIOURS:
        episode_set = context.episode_set(name)
        context.progress(f"{name}: predictions")
        errors = by_horizon(context, episode_set, horizons)
        numbers[name] = {
            "open_loop": {str(h): skills(e, context.seed) for h, e in errors.items()},
            "calibration": episode_set.calibration.to_dict(),
            "reward_head": reward_head(episode_set.steps),
            "end_head": end_head(episode_set.steps),
            "actions": by_action(episode_set.steps, space, context.seed),
            "null_action": null_action(episode_set.steps, context.null_action, space, context.seed),
        }
    tables = [_horizon_table(numbers), _head_table(numbers)]
    if numbers["sampled"]["actions"]:
        tables.append(_action_table(numbers))
    return Section("Prediction", numbers, tables, [_skill_picture(numbers), _calibration_picture(numbers)])


def by_horizon(context: EvaluationContext, episode_set: EpisodeSet, horizons: list[int]) -> dict[int, Errors]:
    """Compute open-loop errors of model and baselines from about `STARTS` starts at even distances."""
    model, recorded = context.agent.model, episode_set.recorded
    baselines = {"mean": Affine(model, context.act_space, linear=False).fit(recorded)}
    if int(np.prod(model.target.shape)) <= WIDEST:
        baselines["linear"] = Affine(model, context.act_space, linear=True).fit(recorded)
    starts = spread(recorded, STARTS)
    parts = [open_loop(model, k.window, starts, horizons, k.number, k.counted, baselines) for k in grouped(recorded)]
    return {h: Errors.join([part[h] for part in parts]) for h in horizons}


def skills(errors: Errors, seed: int) -> dict[str, Any]:
    """Compute the skill of each predictor over one horizon; `error_still` is the mean squared change."""
    by = {name: x for name, x in errors.by.items() if name != "still"}
    found = {name: skill(x, errors.by["still"], errors.episode, seed) for name, x in by.items()}
    count = len(errors.episode)
    return {"samples": count, "error_still": round(float(errors.by["still"].mean()), 6) if count else None} | {
        name: {k: x[k] for k in ("skill", "ci")} for name, x in found.items()
    }


def by_action(steps: Transitions, space: gym.Space, seed: int) -> dict[str, Any] | None:
    """Compute the one-step skill and the frequency of each action; None unless actions are one discrete number."""
    if not isinstance(space, gym.spaces.Discrete):
        return None
    found = {}
    for action in range(int(space.n)):
        own = steps[steps.act == action]
        found[str(action)] = {"share": round(len(own) / len(steps), 6)} | skill(
            own.skill_error, own.skill_base, own.episode, seed
        )
    return found


def null_action(steps: Transitions, null: int | None, space: gym.Space, seed: int) -> dict[str, Any] | None:
    """Compute the one-step skill of transitions without an action; None where no action does nothing."""
    if null is None or not isinstance(space, gym.spaces.Discrete):
        return None
    own = steps[steps.act == null]
    if not len(own):
        return {"skill": None, "ci": None, "samples": 0, "error": None, "change": None}
    return skill(own.skill_error, own.skill_base, own.episode, seed) | {
        "error": round(float(own.skill_error.mean()), 6),
        "change": round(float(own.skill_base.mean()), 6),
    }


def _horizon_table(numbers: dict[str, Any]) -> Table:
    rows = []
    for h in numbers["sampled"]["open_loop"]:
        own = [numbers[name]["open_loop"][h] for name in BEHAVIOURS]
        linear = own[0].get("linear", {}).get("skill")
        rows.append(
            [h, own[0]["model"]["skill"], own[0]["model"]["ci"], linear, own[0]["mean"]["skill"],
             own[1]["model"]["skill"], own[2]["model"]["skill"], own[0]["samples"]]
        )  # fmt: skip
    return Table(
        "Skill by horizon, open loop: 1 - squared error of the predicted latent / that of predicting no change. The "
        f"latent of imagined steps is {numbers['open_loop_latent']} to the memory. The linear model is a ridge "
        "regression of the delta on (latent, action), applied recursively; it and the mean delta are fitted on the "
        "episodes of the other parity.",
        ["steps ahead", "sampled", "95 %", "linear", "mean delta", "greedy", "random", "samples"],
        rows,
    )


def _head_table(numbers: dict[str, Any]) -> Table:
    rows = []
    for name in BEHAVIOURS:
        end, rew, spread = (numbers[name][k] for k in ("end_head", "reward_head", "calibration"))
        rows.append([name, end["auc"], end["brier"], end["brier_base"], rew["auc"], rew["r2"], spread["ece"],
                     spread["ence"], spread["z_square"]])  # fmt: skip
    return Table(
        "The end head (AUC; Brier score beside that of the base rate), the reward head (AUC for paying anything; R²), "
        "and the predicted variance (expected calibration error of the coverage; of the standard "
        "deviation; mean squared standardised error, 1 if the variance is right).",
        ["behaviour", "end AUC", "Brier", "Brier, base rate", "reward AUC", "reward R²", "ECE", "ENCE", "z²"],
        rows,
    )


def _action_table(numbers: dict[str, Any]) -> Table:
    own, random = (numbers[name]["actions"] for name in ("sampled", "random"))
    rows = [[a, x["share"], x["skill"], x["ci"], random[a]["skill"]] for a, x in own.items()]
    return Table(
        "One-step skill by action: its share of the sampled policy's steps, and the skill of their predictions.",
        ["action", "share", "skill, sampled", "95 %", "skill, random"],
        rows,
    )


def _skill_picture(numbers: dict[str, Any]) -> Figure:
    drawing, axes = canvas(2)
    for axis, name in zip(axes, ("sampled", "random"), strict=True):
        table = numbers[name]["open_loop"]
        for who, colour in (("model", "C0"), ("linear", "C1"), ("mean", "C2")):
            rows = [(int(h), x[who]) for h, x in table.items() if who in x and x[who]["skill"] is not None]
            if not rows:
                continue
            steps, values = [h for h, _ in rows], [x["skill"] for _, x in rows]
            axis.plot(steps, values, color=colour, marker=".", label=who)
            low, high = (np.array([x["ci"][i] for _, x in rows]) for i in (0, 1))
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(title=f"{name} behaviour", xlabel="steps ahead", ylabel="skill", ylim=(-1.05, 1.05))
    axes[0].legend(fontsize=8)
    return Figure.of(
        drawing,
        "Skill by horizon: 1 - squared error / that of predicting no change (the black line), of open-loop predictions "
        "from the true actions, with 95 % bootstrap intervals over episodes; values below -1 are cut off.",
    )


def _calibration_picture(numbers: dict[str, Any]) -> Figure:
    drawing, (left, right) = canvas(2)
    for name in BEHAVIOURS:
        found = numbers[name]["calibration"]
        if not found["samples"]:
            continue
        left.plot([float(p) for p in found["coverage"]], list(found["coverage"].values()), marker=".", label=name)
        bins = [x for x in found["bins"] if x["share"] >= 1e-4]
        right.loglog([x["predicted_std"] for x in bins], [x["rms_error"] for x in bins], marker=".")
    left.plot([0, 1], [0, 1], color="black", lw=0.8)
    left.set(xlabel="probability of the predicted interval", ylabel="share of errors inside")
    left.legend(fontsize=8)
    ends = np.array(right.get_xlim())
    right.plot(ends, ends, color="black", lw=0.8)
    right.set(xlabel="predicted standard deviation", ylabel="root mean squared error")
    return Figure.of(
        drawing,
        "Calibration of the predicted variance. Left: the share of one-step errors, over all dimensions, inside the "
        "central interval of a given probability under the predicted Gaussian; right: root mean squared error by the "
        "predicted standard deviation; the black lines are perfect calibration.",
    )
