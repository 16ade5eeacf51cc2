"""Reproducibility on a GPU of what is bitwise reproducible on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldmodel.measure.reliability.ranks import ranks
from worldmodel.measure.reliability.runs import fingerprint, small_run

GPU = "trainer.accelerator=gpu"
SETTINGS = {
    "float32": (GPU,),
    "bf16-mixed": (GPU, "trainer.precision=bf16-mixed"),
}


def repeated_there(folder: Path, scale: float) -> dict[str, Any]:
    """Distinct hashes of weights, statistics and moments over ten small runs of one seed on the GPU.

    They are compared with a run of another seed, and with a run that is stopped half-way and resumed.
    """
    found = {}
    for name, overrides in SETTINGS.items():
        runs = max(round(10 * scale), 2) if name == "float32" else max(round(3 * scale), 2)
        hashes = {fingerprint(small_run(folder / f"{name}_{i}", 8, *overrides)) for i in range(runs)}
        other = fingerprint(small_run(folder / f"{name}_other", 8, *overrides, "seed=1"))
        small_run(folder / f"{name}_half", 4, *overrides)
        half = fingerprint(small_run(folder / f"{name}_half", 8))
        found[name] = {
            "runs": runs,
            "distinct_hashes": len(hashes),
            "another_seed_differs": other not in hashes,
            "going_on_is_equal": hashes == {half},
        }
    return found


def ranks_there(folder: Path, scale: float) -> dict[str, Any]:
    """Gradients of two processes on this GPU with half a rollout each, against one process with all of it.

    The figure is the largest difference of a parameter's gradient, relative to its norm, for each latent target. The
    gradients are averaged by gloo, since NCCL needs one GPU per process.
    """
    return ranks(folder, scale, "cuda")
