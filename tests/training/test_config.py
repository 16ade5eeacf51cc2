"""Shipped configurations: composition, the check of values against signatures, and training."""

from __future__ import annotations

import csv
from math import isfinite
from pathlib import Path

import pytest
from helpers.tiny import REPO, tiny_config
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.config import CONFIG_DIR, check, fill, top_level

FOLDER = REPO / "configs"
OPTIONS = [
    f"{option.parent.relative_to(FOLDER)}={option.stem}"
    for option in sorted(FOLDER.rglob("*.yaml"))
    if option.parent.name not in (FOLDER.name, "suite", "study")
]
NEEDED = {  # without a default
    "env=base": ["env.id=x"],
    "trainer=sharded": ["trainer.strategy.data_parallel_size=2"],
    "data=offline": ["data.path=x"],
}
NAMES = sorted(p.stem for p in (FOLDER / "experiment").glob("*.yaml"))
SMALL = ["env.num_envs=2", "data.rollout_length=3", "data.context=1", "total_steps=12"]
PIXELS = ["env=atari", *SMALL]
# changes of one part at a time
PARTS = {
    **{f"target {t}": [f"target={t}"] for t in ("codes", "inverse", "ema", "sigreg", "vicreg", "reconstruction")},
    **{f"memory {m}": [f"memory={m}"] for m in ("gru", "mlp", "huggingface")},
    "memory llama": ["memory=huggingface", "memory.model_type=llama", "+memory.options.intermediate_size=32"],
    **{f"curiosity {c}": [f"curiosity={c}"] for c in ("error", "none")},
    "a map": ["encoder=grid", "encoder.spatial=true", "encoder.channels=[8]"],
    "a map as its own target": ["encoder=grid", "encoder.spatial=true", "target=sigreg"],
    "replay": ["data.replay_batch=1", "data.replay_capacity=8"],
    "memory gradient": ["policy.actor.memory_gradient=true", "data.replay_batch=1", "data.replay_capacity=8"],
    "half of the batch": ["data.model_batch=1"],
    "no memory for the policy": ["policy.actor.reads_memory=false"],
    "absolute": ["model.predicts=absolute"],
    "no context": ["data.context=0"],
    "accumulation": ["trainer.accumulate_grad_batches=2", "target=ema"],
    "bfloat16": ["trainer.precision=bf16-mixed"],
    "idleness": ["policy.actor.null_bias=2", "policy.actor.temperature=2", "policy.actor.anneal=0.5"],
    "gymnasium": ["env.engine=gymnasium", "env.sticky=0.25"],
    "resnet": ["encoder=resnet", "encoder.channels=[8]", *PIXELS],
    "reward": [
        "reward.normalise=mean_std",
        "reward.use_symlog=true",
        "reward.clip=2",
        "reward.centred=true",
        "policy.objective.episodic_int=false",
    ],
}


# nan before the first episode has ended
EPISODIC = ("return_ext", "success", "length", "coverage_episode", "rooms_episode", "door_share", "door_success")
NOISY = ("noise_scale_model", "noise_scale_policy")  # nan where the gradient is all noise


def compose_plain(*overrides: str):
    with initialize_config_dir(CONFIG_DIR, version_base="1.3"):
        return compose("train", overrides=["run_dir=unused", *overrides])


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_passes_the_check(option: str) -> None:
    if option == "trainer=ray":
        pytest.importorskip("ray")
    cfg = compose_plain(option, *NEEDED.get(option, []))
    check(cfg)
    group, name = option.split("=")
    if group == "experiment":
        assert cfg.name == name


def assert_trained(cli, tmp_path: Path, *overrides: str) -> dict[str, float]:
    ended = cli("total_steps=64", "run_dir=run", *overrides)
    assert ended.code == 0, ended.err
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = {k: float(v) for k, v in rows[-1].items()}
    for key, value in row.items():
        assert isfinite(value) or key in (*EPISODIC, *NOISY) or key.startswith("achievement"), key
    return row


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_trains(cli, tmp_path: Path, name: str) -> None:
    if name == "crafter":
        pytest.importorskip("crafter")
    more = {"atari": PIXELS, "crafter": SMALL, **dict.fromkeys(("chain_dream", "chain_plan"), PARTS["replay"])}.get(
        name, []
    )
    assert_trained(cli, tmp_path, f"experiment={name}", *more)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_trains(cli, tmp_path: Path, part: str) -> None:
    row = assert_trained(cli, tmp_path, *PARTS[part])
    assert row["rew_int"] == 0 or part != "curiosity none"
    losses = {"inverse": 1, "sigreg": 1, "reconstruction": 1, "variance": 1, "covariance": 1}
    named = {"target inverse", "target sigreg", "target vicreg", "target reconstruction", "a map as its own target"}
    assert any(f"loss_{name}" in row for name in losses) == (part in named)


def test_the_check_compares_values_with_signatures() -> None:
    cfg = tiny_config()
    check(cfg)
    for key, value, words in (
        ("data.rollout_length", 1.5, r"data.rollout_length=1.5: allowed is int"),
        ("data.model_batch", "x", r"data.model_batch=x: allowed is int \| None"),
        ("policy.actor.memory_gradient", 1, r"policy.actor.memory_gradient=1: allowed is bool"),
        ("optimizer.betas", [0.9, "x"], r"optimizer.betas=\[0.9, 'x'\]: allowed is tuple\[float, float\]"),
        ("optimizer.part_lr", {"policy": "x"}, r"optimizer.part_lr=.*: allowed is dict\[str, float \| None\] \| None"),
        ("model.predicts", "foo", r"model.predicts=foo: allowed is Literal\['delta', 'absolute'\]"),
        ("weights.delta", None, r"weights.delta=None: allowed is float"),
        ("model._target_", "worldmodel.nowhere.Model", r"model._target_=worldmodel.nowhere.Model: not found"),
        ("curiosity.foo", 1, r"curiosity.foo=1: no such key, allowed are parts"),
        ("foo", 1, r"foo=1: no such key, allowed are .*curiosity"),
    ):
        changed = OmegaConf.create(OmegaConf.to_container(cfg))
        OmegaConf.update(changed, key, value, merge=False)
        with pytest.raises(ConfigError, match=words) as caught:
            check(changed)
        assert "\n" not in str(caught.value)


def test_the_check_changes_nothing() -> None:
    cfg = compose_plain()
    before = OmegaConf.to_yaml(cfg)
    check(cfg)
    assert OmegaConf.to_yaml(cfg) == before and "${run_dir}" in before


def test_top_level_keys() -> None:
    assert {"env", "curiosity", "total_steps", "seed", "weights"} <= top_level()
    assert not top_level() & {"hydra", "defaults", "experiment", "override hydra/job_logging"}


def test_fill_adds_the_arguments_that_are_missing() -> None:
    from functools import partial

    def f(a: int, b: int = 2, *, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    assert fill(partial(f, c=7), a=1, c=8, d=9) == (1, 2, 7)
