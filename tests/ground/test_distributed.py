"""End of a process group before the interpreter's exit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import atexit, os, sys
import torch, torch.distributed as dist
from worldmodel.distributed import part_at_exit

torch.ones(64, 64) @ torch.ones(64, 64)
before = len(os.listdir("/proc/self/task"))
atexit.register(lambda: print(len(os.listdir("/proc/self/task")) - before, dist.is_initialized()))  # runs last
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
if sys.argv[2] == "part":
    part_at_exit()
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
model.itself = [model]  # a cycle, as a trainer and its strategy are
model(torch.ones(1, 2)).sum().backward()
del model
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts the threads that Linux lists")
def test_no_thread_of_gloo_outlives_the_run(tmp_path: Path) -> None:
    """A thread that outlives it aborts about one process in a hundred."""
    started = {
        way: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / way), way], stdout=subprocess.PIPE, text=True
        )
        for way in ("part", "stay")
    }
    left = {way: process.communicate()[0].split() for way, process in started.items()}
    assert left["part"] == ["0", "False"] and int(left["stay"][0]) > 0 and left["stay"][1] == "True"
