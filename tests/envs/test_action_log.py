"""The log of executed actions: what it stores, in memory and in a file, and how states refer to it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from helpers.full_disk import full_disk

from worldmodel.envs.action_log import ActionLog


def fill(log: ActionLog, count: int, first: int = 0) -> torch.Tensor:
    """Append `count` rows of two copies, numbered from `first`."""
    rows = torch.arange(first, first + count)[:, None] * torch.tensor([1, 2]) % 5
    for row in rows:
        log.append(row)
    return rows


@pytest.mark.parametrize(
    "space, dtype", [(Discrete(7), np.uint8), (Discrete(300), np.uint16), (MultiDiscrete([3, 256]), np.uint8)]
)
def test_discrete_actions_take_the_smallest_integers(space, dtype) -> None:
    log = ActionLog(space, 2)
    largest = torch.tensor(getattr(space, "nvec", [300])) - 1 if isinstance(space, MultiDiscrete) else space.n - 1
    row = torch.zeros(2, *space.shape, dtype=torch.long) + largest
    log.append(row)
    assert log.dtype == dtype and torch.equal(log.last(1)[0], row) and log.last(1).dtype == torch.long


def test_actions_of_a_box_are_exact(tmp_path: Path) -> None:
    log = ActionLog(Box(-1, 1, (3,)), 2, tmp_path / "a.bin")
    rows = torch.randn(5, 2, 3)
    for row in rows:
        log.append(row)
    log.flush()
    assert torch.equal(log.last(5), rows) and (tmp_path / "a.bin").stat().st_size == 5 * 2 * 3 * 4


def test_a_file_grows_by_whole_updates_and_the_state_does_not(tmp_path: Path) -> None:
    path, sizes = tmp_path / "folder" / "a.bin", []
    log = ActionLog(Discrete(5), 2, path)
    log.flush()
    assert not path.exists()
    for update in range(5):
        fill(log, 10, 10 * update)
        assert not path.exists() or path.stat().st_size == 20 * update
        log.flush()
        torch.save(log.state_dict(), buffer := io.BytesIO())
        sizes.append(buffer.tell())
    assert path.stat().st_size == 100 and len(set(sizes)) == 1
    rows = fill(log, 3, 50)
    assert torch.equal(log.last(3), rows)
    assert torch.equal(log.last(53)[:, 0], torch.arange(53) % 5)  # from the file and from memory


def test_later_rows_are_removed_when_a_state_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    log = ActionLog(Discrete(5), 2, path)
    fill(log, 4)
    state = log.state_dict()
    fill(log, 4, 4)
    log.flush()
    with path.open("ab") as file:
        file.write(b"x")  # half a row, when the process was killed
    again = ActionLog(Discrete(5), 2, path)
    assert again.load_state_dict(state) and len(again) == 4 and path.stat().st_size == 8
    fill(again, 2, 100)
    again.flush()
    assert again.last(6)[:, 0].tolist() == [0, 1, 2, 3, 0, 1] and path.stat().st_size == 12


def test_missing_rows_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    log = ActionLog(Discrete(5), 2, path)
    fill(log, 4)
    state = log.state_dict()
    assert not ActionLog(Discrete(5), 2).load_state_dict(state)
    assert not ActionLog(Discrete(5), 2, tmp_path / "b.bin").load_state_dict(state)
    path.write_bytes(path.read_bytes()[:-1])
    assert not ActionLog(Discrete(5), 2, path).load_state_dict(state)
    path.unlink()
    assert not ActionLog(Discrete(5), 2, path).load_state_dict(state)


def test_a_log_in_memory_is_in_its_state() -> None:
    log, again = (ActionLog(Discrete(5), 2) for _ in range(2))
    rows = fill(log, 6)
    log.forget(4)
    assert again.load_state_dict(log.state_dict()) and torch.equal(again.last(4), rows[2:]) and len(again) == 4
    log.forget(0)
    assert len(log) == 0 and log.state_dict()["rows"] is None


def test_rows_are_kept_while_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    log = ActionLog(Discrete(5), 2, path)
    with full_disk():
        rows = fill(log, 600)
        log.flush()
        state = log.state_dict()
    assert torch.equal(log.last(600), rows) and state["written"] == 0 and len(state["rows"]) == 600
    log.flush(sync=True)
    assert path.stat().st_size == 1200 and torch.equal(log.last(600), rows)
    assert ActionLog(Discrete(5), 2, path).load_state_dict(state)
