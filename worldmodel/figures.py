"""Pictures of runs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

PANELS = (
    ("return_ext", "return (last 200 episodes)"),
    ("rew_int", "intrinsic reward"),
    ("delta_skill", "delta skill"),
    ("entropy", "policy entropy (nats)"),
)


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """metrics.csv by column; empty cells are nan."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {k: np.array([float(r[k] or "nan") for r in rows]) for k in (rows[0] if rows else ())}


def learning_curve(run_dir: Path) -> None:
    """Draw metrics.csv into learning_curve.png."""
    metrics = read_metrics(run_dir / "metrics.csv")
    if not metrics:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 3), layout="constrained")
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        axis.plot(metrics["env_steps"], metrics[key], lw=1.5)
        axis.set(title=title, xlabel="environment steps")
        axis.grid(alpha=0.3)
    returns = metrics["return_ext"][np.isfinite(metrics["return_ext"])]
    axes[0].set_ylim(1.05 * returns.min(initial=-0.02), 1.05 * returns.max(initial=0.95))
    figure.suptitle(f"{run_dir.name}: {metrics['wall_s'][-1]:.0f} s", fontsize=10)
    figure.savefig(run_dir / "learning_curve.png", dpi=110)
    plt.close(figure)


def compare_curves(groups: dict[str, list[Path]], path: Path) -> None:
    """Return against environment steps: a thin line a seed, a thick one the median, a colour a method."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for colour, (name, folders) in enumerate(groups.items()):
        curves = [read_metrics(f / "metrics.csv") for f in folders if (f / "metrics.csv").exists()]
        curves = [c for c in curves if c]
        if not curves:
            continue
        for curve in curves:
            axis.plot(curve["env_steps"], np.nan_to_num(curve["return_ext"]), color=f"C{colour}", lw=0.6, alpha=0.4)
        steps = max((c["env_steps"] for c in curves), key=len)
        # a curve that ended early (a run of fewer steps) keeps its last value
        values = [np.interp(steps, c["env_steps"], np.nan_to_num(c["return_ext"])) for c in curves]
        axis.plot(steps, np.median(values, 0), color=f"C{colour}", lw=2.2, label=f"{name} ({len(curves)} seeds)")
    axis.set(xlabel="environment steps", ylabel="return (last 200 episodes)", ylim=(-0.02, 1.02))
    axis.legend()
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
