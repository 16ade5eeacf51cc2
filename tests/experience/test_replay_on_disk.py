"""Replay on disk: exactly the records of a checkpoint after a restart, and errors for damaged files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.experience import everything
from helpers.runs import last, rows
from helpers.tiny import EASY, clone, tiny_agent

from worldmodel.errors import ConfigError
from worldmodel.experience.replay import CuriousReplayPriority, Replay
from worldmodel.experience.replay.disk import Disk
from worldmodel.types import Rollout, first_leaf

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def roll() -> Rollout:
    _, stream, _ = tiny_agent(*EASY)
    rollout = stream.collector.collect()
    stream.close()
    return rollout


def numbered(roll: Rollout, first: int) -> Rollout:
    """The same four sequences with other rewards: first, first + 1, ..."""
    roll = clone(roll)
    roll.rew_ext[:] = first + torch.arange(4.0)[:, None]
    return roll


def filled(folder: Path, roll: Rollout, count: int, segment: int = 3) -> Replay:
    """`count` rollouts of four sequences on disk, `segment` sequences in a segment."""
    replay = Replay(6, folder=folder)
    replay.add(numbered(roll, 0))
    replay.store.begin(replay.dtype)  # again, with small segments
    replay.store.records = segment
    (folder / "layout.json").write_text((folder / "layout.json").read_text().replace(_segment(folder), str(segment)))
    for i in range(count):
        replay.add(numbered(roll, 4 * i))
    return replay


def _segment(folder: Path) -> str:
    return (folder / "layout.json").read_text().rsplit(" ", 1)[1].rstrip("}")


@pytest.mark.parametrize("options", [("env=doorkey",), ("env=dict", "encoder=dict")])
def test_disk_and_memory_hold_the_same(tmp_path: Path, options: tuple[str, ...]) -> None:
    _, stream, _ = tiny_agent(*options)
    roll = stream.collector.collect()
    stream.close()
    there, here = Replay(6, folder=tmp_path / "replay"), Replay(6)
    for i in range(2):
        for replay in (there, here):
            replay.add(numbered(roll, 4 * i))
    assert len(there) == len(here) == 6 and there.store.length == 8
    drawn = []
    for replay in (there, here):
        torch.manual_seed(0)
        drawn.append(replay.sample(16, CPU)[0])
    for a, b in ((everything(there), everything(here)), drawn):
        assert torch.equal(a.rew_ext, b.rew_ext) and torch.equal(a.mask, b.mask) and torch.equal(a.act, b.act)
        assert torch.equal(first_leaf(a.obs), first_leaf(b.obs)) and a.num_new == b.num_new
        assert first_leaf(a.obs).dtype == first_leaf(roll.obs).dtype
    assert everything(there).rew_ext[:, 0].tolist() == [2, 3, 4, 5, 6, 7]


def test_records_after_the_checkpoint_are_cut_off(tmp_path: Path, roll: Rollout) -> None:
    replay = filled(tmp_path / "replay", roll, 2)
    state = replay.state_dict()
    assert state.keys() == {"length", "sha256", "num_new"} and state["length"] == 8
    size = (tmp_path / "replay" / "records.bin").stat().st_size
    replay.add(numbered(roll, 100))
    (tmp_path / "replay" / "records.bin").open("ab").write(b"half a record")
    again = Replay(6, folder=tmp_path / "replay")
    again.load_state_dict(state)
    assert (tmp_path / "replay" / "records.bin").stat().st_size == size
    assert everything(again).rew_ext[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    again.add(numbered(roll, 8))  # continues like an uninterrupted replay
    whole = filled(tmp_path / "whole", roll, 3)
    assert again.state_dict() == whole.state_dict()
    names = ("records.bin", "layout.json")
    assert all((tmp_path / "replay" / n).read_bytes() == (tmp_path / "whole" / n).read_bytes() for n in names)


@pytest.mark.parametrize("place", ["a sealed segment", "the open segment", "cut off", "gone", "layout"])
def test_damage_is_found(tmp_path: Path, roll: Rollout, place: str) -> None:
    state = filled(tmp_path, roll, 2).state_dict()
    path = tmp_path / "records.bin"
    data = bytearray(path.read_bytes())
    if place in ("a sealed segment", "the open segment"):
        data[10 if "sealed" in place else -10] ^= 1
        path.write_bytes(data)
    elif place == "cut off":
        os.truncate(path, len(data) - 1)
    elif place == "gone":
        path.unlink()
    else:
        (tmp_path / "layout.json").write_text("{")
    with pytest.raises(ConfigError, match=rf"data.replay_dir={tmp_path}: "):
        Replay(6, folder=tmp_path).load_state_dict(state)


def test_checksums_do_not_depend_on_the_size_of_appended_parts(tmp_path: Path) -> None:
    records = np.zeros(10, [("x", "<i8", (2,))])
    records["x"] = np.arange(20).reshape(10, 2)
    states = []
    for i, cuts in enumerate(([10], [1] * 10, [3, 4, 3], [4, 4, 2])):
        disk = Disk(tmp_path / str(i), segment=4 * records.itemsize)
        disk.begin(records.dtype)
        at = 0
        for count in cuts:
            disk.append(records[at : at + count])
            at += count
        assert (disk[np.arange(10)] == records).all() and len(disk.sealed) == 2
        states.append(disk.state_dict())
    assert states == [states[0]] * 4


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path, roll: Rollout, monkeypatch, capsys) -> None:
    replay = filled(tmp_path, roll, 1)
    write = os.pwrite

    def full(file, data, at):
        write(file, data[:7], at)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    replay.add(numbered(roll, 50))
    replay.add(numbered(roll, 60))
    assert capsys.readouterr().err.count("No space left on device") == 1 and len(replay) == 4
    monkeypatch.undo()
    replay.add(numbered(roll, 4))
    assert everything(replay).rew_ext[:, 0].tolist() == [2, 3, 4, 5, 6, 7]
    state = replay.state_dict()
    Replay(6, folder=tmp_path).load_state_dict(state)


def test_a_folder_that_cannot_be_made(roll: Rollout) -> None:
    with pytest.raises(ConfigError, match=r"data.replay_dir=/proc/no: not writable"):
        Replay(6, folder=Path("/proc/no")).add(roll)


@pytest.mark.parametrize("moved", [True, False])
def test_other_sizes(tmp_path: Path, roll: Rollout, moved: bool) -> None:
    """A larger capacity includes older sequences on disk; a move between disk and memory begins empty."""
    state = filled(tmp_path, roll, 2).state_dict()
    replay = Replay(100, CuriousReplayPriority(), None if moved else tmp_path)
    replay.load_state_dict(state)
    assert len(replay) == (0 if moved else 8)


def test_an_interrupted_run_continues_bit_for_bit(cli, tmp_path: Path) -> None:
    """With a replay on disk, drawn by priority; the checkpoint contains none of its sequences."""
    settings = [
        *EASY, "env.engine=gymnasium", "data=curious", "data.replay_batch=2", "data.replay_capacity=6",
        "data.replay_dir=${run_dir}/replay",
    ]  # fmt: skip
    assert cli(*settings, "run_dir=whole", "total_steps=128").code == 0
    assert cli(*settings, "run_dir=cut", "total_steps=64").code == 0
    shutil.copytree(tmp_path / "cut", tmp_path / "kept")
    with (tmp_path / "cut/replay/rank0/records.bin").open("ab") as file:
        file.write(b"of an update that was lost")
    ended = cli("checkpoint=auto", "run_dir=cut", "total_steps=128", tiny=[])
    assert ended.code == 0, ended.err
    whole, cut = last(tmp_path / "whole"), last(tmp_path / "cut")
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, cut["state_dict"][key]), key
    one, two = whole["SequenceData"]["replay"], cut["SequenceData"]["replay"]
    assert one["sha256"] == two["sha256"] and one["length"] == two["length"] == 4 * len(rows(tmp_path / "whole")) >= 16
    assert one["priority"]["visits"].sum() > 0 and torch.equal(one["priority"]["weights"], two["priority"]["weights"])
    assert [r["loss_delta"] for r in rows(tmp_path / "whole")] == [r["loss_delta"] for r in rows(tmp_path / "cut")]
    (tmp_path / "kept/replay/rank0/records.bin").unlink()
    ended = cli("checkpoint=auto", "run_dir=kept", "data.replay_dir=kept/replay", "total_steps=128", tiny=[])
    assert ended.code == 2 and "data.replay_dir=kept/replay/rank0: not readable" in ended.err
