"""What is checked before the first step: precision, the compiler, large seeds, and modules of the working directory."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import record
from helpers.tiny import REPO, TINY

from worldmodel.errors import ConfigError, SettingError, check_range
from worldmodel.training.config import check_call
from worldmodel.training.start_checks import check_compiler, check_precision, seed_libraries


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "16-true", "64", 64, "transformer-engine"])
def test_precisions_that_are_refused(precision: object) -> None:
    with pytest.raises(
        SettingError, match=f"^trainer.precision={precision}: allowed are 32-true, 16-mixed, bf16-mixed$"
    ):
        check_precision(precision)


def test_precisions_that_are_allowed() -> None:
    for precision in ("32-true", "16-mixed", "bf16-mixed", "32", "bf16", 32, 16, None):
        check_precision(precision)


def test_a_precision_is_refused_before_the_first_step(cli, tmp_path: Path) -> None:
    ended = cli("trainer.precision=bf16-true", "run_dir=run")
    assert ended.code == 2 and ended.err.startswith("error: trainer.precision=bf16-true: allowed are 32-true, ")
    assert not (tmp_path / "run").exists()


def test_compilation_without_a_compiler(cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    torch._inductor.cpp_builder.get_cpp_compiler.__globals__["cpp_compiler_search"].cache_clear()
    ended = cli("compile=true", "run_dir=run", "total_steps=32")
    torch._inductor.cpp_builder.get_cpp_compiler.__globals__["cpp_compiler_search"].cache_clear()
    assert ended.code == 2 and ended.err.startswith(
        "error: compile=true: needs a C++ compiler, allowed without is false ("
    )
    assert ended.err.count("\n") == 1 and not (tmp_path / "run").exists()
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"^compile=true: needs the package triton"):
            check_compiler("cuda")


def test_small_seeds_are_as_before_and_large_ones_differ() -> None:
    drawn = []
    for seed in (5, 2**32 - 1, 2**32 + 5, 2**63):
        seed_libraries(seed)
        drawn.append((float(torch.rand(())), float(np.random.rand())))
    assert len(set(drawn)) == 4
    torch.manual_seed(5)
    assert float(torch.rand(())) == drawn[0][0]


@pytest.mark.parametrize("seed", [2**32, 2**63])
def test_a_large_seed_trains_and_goes_on(cli, tmp_path: Path, seed: int) -> None:
    words = [f"seed={seed}", "run_dir=run", "data.replay_batch=1", "data.replay_capacity=8"]
    words += ["env.sticky=0.5", "resets=periodic", "resets.every=1"]
    assert cli("total_steps=64", *words).code == 0
    assert cli("checkpoint=auto", "run_dir=run", "total_steps=96", tiny=[]).code == 0
    assert record(tmp_path / "run")["seed"] == seed and record(tmp_path / "run")["env_steps"] == 96


def test_a_seed_beyond_63_bits_is_refused(cli) -> None:
    ended = cli(f"seed={2**63 + 1}", "run_dir=run")
    assert ended.code == 2
    assert ended.err == f"error: seed={2**63 + 1}: allowed are whole numbers from 0 to 9223372036854775808\n"


def test_numpy_scalars_are_numbers() -> None:
    for value in (np.int64(3), np.uint8(3), 3):
        check_range("x", value, "[1, 4)", whole=True)
    for value in (np.float32(0.5), np.float64(0.5), np.int32(1), Fraction(1, 2)):
        check_range("x", value, "(0, 1]")
    for value in (np.bool_(True), True, np.float32(np.nan), np.float64(2), "1", np.array([1])):
        with pytest.raises(SettingError):
            check_range("x", value, "(0, 1]")
    with pytest.raises(SettingError):
        check_range("x", np.float64(3), "[1, 4)", whole=True)

    def call(count: int, rate: float, flag: bool = False) -> None: ...

    check_call("group", call, {"count": np.int64(3), "rate": np.float32(1)})
    with pytest.raises(ConfigError, match=r"^group.count=True: allowed is int$"):
        check_call("group", call, {"count": np.bool_(True)})


def test_a_console_script_finds_modules_of_the_working_directory(tmp_path: Path) -> None:
    """As `python -m` does; the script itself is in another folder, which is first on its path."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "work").mkdir()
    script = tmp_path / "scripts" / "worldmodel-train"
    script.write_text("import sys\nfrom worldmodel.train import main\nsys.exit(main())\n")
    (tmp_path / "work" / "my_worlds.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Mine-v0', CartPoleEnv, max_episode_steps=20)\n"
    )
    words = ["experiment=cartpole", *TINY, "env.id=my_worlds:Mine-v0", "total_steps=32", "run_dir=run"]
    words = [x for x in words if not x.startswith("target.dim")]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, str(script), *words], cwd=tmp_path / "work", env=environment,
                           capture_output=True, text=True, timeout=240, check=False)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert record(tmp_path / "work" / "run")["status"] == "done"
