"""Learning curve of a run, as an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldmodel.files import atomic_write
from worldmodel.training.metrics_file import read_metrics_file

PANELS = (
    ("return_ext", "return (last 200 episodes)"),
    ("rew_int", "intrinsic reward"),
    ("delta_skill", "delta skill"),
    ("entropy", "policy entropy (nats)"),
)


def read_metrics(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of metrics.csv by name, each (rows,); empty cells are nan. Damaged rows are left out."""
    columns, rows, _ = read_metrics_file(path)
    return {k: np.array([float(r[k] or "nan") for r in rows]) for k in (columns if rows else ())}


def learning_curve(run_dir: Path) -> None:
    """Draw metrics.csv into learning_curve.png."""
    metrics = read_metrics(run_dir / "metrics.csv")
    if not metrics:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(14, 3), layout="constrained")
    recorded = np.nan_to_num(metrics.get("offline_steps", np.zeros(1)))  # empty in rows from before they were added
    steps = metrics["env_steps"] + recorded
    label = "recorded and environment steps" if recorded.any() else "environment steps"
    for axis, (key, title) in zip(axes, PANELS, strict=True):
        axis.plot(steps, metrics[key], lw=1.5)
        axis.set(title=title, xlabel=label)
        axis.grid(alpha=0.3)
    returns = metrics["return_ext"][np.isfinite(metrics["return_ext"])]
    axes[0].set_ylim(1.05 * returns.min(initial=-0.02), 1.05 * returns.max(initial=0.95))
    figure.suptitle(f"{run_dir.name}: {metrics['wall_s'][-1]:.0f} s", fontsize=10)
    try:
        atomic_write(run_dir / "learning_curve.png", lambda file: figure.savefig(file, format="png", dpi=110))
    finally:
        plt.close(figure)
