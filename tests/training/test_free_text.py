"""Paths and names as they are typed, numbers such as 1e5, and keys that a command does not have."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from helpers.runs import record
from hydra.core.override_parser.overrides_parser import OverridesParser

from worldmodel import evaluate, gpu, profile, reliability, study
from worldmodel.errors import ConfigError
from worldmodel.experiments.benchmark import command as benchmark
from worldmodel.experiments.population import command as population
from worldmodel.training.compose import compose_config
from worldmodel.training.config import check, top_level
from worldmodel.training.exit_codes import not_readable
from worldmodel.training.free_text import quote_free_text

TYPED = [
    *(
        "runs/lr=0.1 50%#2",
        "a b",
        "[x]",
        "(y)",
        "{z}",
        "it's",
        'say "hi"',
        "~/x",
        "1e5",
        "0x10",
        "true",
        "é日本😀",
        "a,b",
    ),
    *("a\\", "a\\'b", "'a','b'", " lead ", "a$b", "@;&|<>*?!", "key=value", "'", "x:y", "on\ntwo lines", "a,b"),
]


@pytest.mark.parametrize("text", TYPED)
def test_free_text_is_taken_as_typed(text: str) -> None:
    (override,) = quote_free_text([f"run_dir={text}"])
    assert OverridesParser.create().parse_override(override).value() == text
    assert compose_config([f"run_dir={text}", f"++logger.name={text}"]).run_dir == text


def test_what_keeps_its_meaning() -> None:
    same = [
        "run_dir=null",
        "checkpoint=NULL",
        "run_dir='a b'",
        'run_dir="a"',
        "seed=0,1",
        "-m",
        "--help",
        "optimizer.lr=1e-3",
    ]
    assert quote_free_text(same) == same
    assert compose_config(["run_dir=runs/${seed} x", "seed=4"]).run_dir == "runs/4 x"
    assert quote_free_text(["checkpoint=[a b.ckpt,'c,d.ckpt']"]) == ["checkpoint=['a b.ckpt','c,d.ckpt']"]
    swept = quote_free_text(["env.id=A-v0,B v0", "run_dir=choice(a,b)", "run_dir=a${x}, b"], sweep=True)
    assert swept == ["env.id='A-v0','B v0'", "run_dir=choice(a,b)", "run_dir='a${x}',' b'"]


def test_a_run_in_such_a_folder(cli, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "lr=0.1 50%#2 [it's] ~é"
    assert cli("total_steps=3.2e1", f"run_dir={run.relative_to(tmp_path)}", "logger=tensorboard").code == 0
    assert record(run)["env_steps"] == 32 and (run / "tensorboard").is_dir()
    assert cli("checkpoint=auto", f"run_dir={run}", "total_steps=6.4e1", tiny=[]).code == 0
    assert cli(f"checkpoint={run}/checkpoints/last.ckpt", "total_steps=96", tiny=[]).code == 0
    assert record(run)["env_steps"] == 96


def test_the_error_shows_the_quotes_that_work() -> None:
    for text in ("a #b", "x[", 'say "hi" #', "it's #1"):
        message = not_readable(f"weights.x={text}")
        assert message.startswith(f"weights.x={text}: not readable, allowed is key=value, and for a text ")
        (word,) = shlex.split(message.partition("for a text ")[2])
        assert OverridesParser.create().parse_override(word).value() == text
    assert not_readable("nonsense") == "nonsense: not readable, allowed is key=value"


def test_whole_floats_are_whole_numbers() -> None:
    cfg = compose_config(["total_steps=1e5", "data.minibatches=2e0", "threads=1.0", "optimizer.lr=1e0", "run_dir=x"])
    check(cfg)
    for value, expected in ((cfg.total_steps, 100_000), (cfg.data.minibatches, 2), (cfg.threads, 1)):
        assert value == expected and type(value) is int
    for bad in ("total_steps=1.5", "total_steps=1e-5", "data.minibatches=.inf", "seed=nan"):
        with pytest.raises(ConfigError, match=f"^{bad.split('=')[0]}=.*: allowed is int"):
            check(compose_config([bad, "run_dir=x"]))


COMMANDS = [evaluate, study, benchmark, population, reliability, gpu, profile]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda module: module.__name__)
def test_every_command_refuses_unknown_keys(cli, command) -> None:
    ended = cli("+foo=1", tiny=[], main=command.main)
    assert ended.code == 2 and ended.err.startswith("error: foo=1: no such key, allowed are ")
    assert ended.err.count("\n") == 1


def test_no_key_can_be_deleted(cli) -> None:
    assert {"seed", "env", "video"} <= top_level()
    for key in ("seed", "video", "weights"):
        ended = cli(f"~{key}", "run_dir=x")
        assert ended.code == 2 and ended.err == f"error: ~{key}: not allowed, every run needs this key\n"
