"""Old keys and options: one line with the new name, wherever they are given; and full keys of nested parts."""

from __future__ import annotations

import pytest
from helpers.tiny import tiny_config
from omegaconf import OmegaConf

from worldmodel.errors import ConfigError
from worldmodel.training.build import build_agent, env_spec
from worldmodel.training.compose import compose_config
from worldmodel.training.config import bad_input, check
from worldmodel.training.renamed_keys import CHOICES, KEYS, new_name

RENAMED = [
    ("policy.dream.starts=3", "policy.imagination.num_start_states=3"),
    ("policy.dream.horizon=3", "policy.imagination.horizon=3"),
    ("+policy.ppo.clip=0.1", "policy.objective.clip=0.1"),
    ("data.horizon=64", "data.rollout_length=64"),
    ("model.observation=true", "heads=observation"),
    ("policy=dream", "policy=imagined"),
    ("curiosity=random", "policy=random curiosity=none"),
    ("curiosity=etd_published", "experiment=etd_published"),
]


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_an_old_key_is_refused_with_its_new_name(cli, old: str, new: str) -> None:
    end = cli(old)
    assert (end.code, end.err) == (2, f"error: {old}: renamed, use {new}\n")
    with pytest.raises(ConfigError, match="renamed, use"):
        compose_config([old])


def test_an_old_key_in_a_file_is_refused_with_its_new_name() -> None:
    cfg = tiny_config()
    OmegaConf.set_struct(cfg, False)
    cfg.policy.ppo = {"clip": 0.1}
    with pytest.raises(ConfigError, match=r"^policy.ppo=.*: renamed, use policy.objective="):
        check(cfg)


@pytest.mark.parametrize("new", [*KEYS.values(), *(word for words in CHOICES.values() for word in words.split())])
def test_new_names_exist(new: str) -> None:
    if "=" in new:
        compose_config([new])
    else:
        cfg = compose_config(["policy=imagined" if not new.endswith("target_temperature") else "policy=planned"])
        assert new_name(f"{new}=1") is None and OmegaConf.select(cfg, new, throw_on_missing=True) is not ...
        assert new.split(".")[-1] in OmegaConf.select(cfg, new.rpartition(".")[0] or "@", default=cfg)


def test_the_key_of_a_nested_part_is_the_one_that_the_user_sets() -> None:
    overrides = ["curiosity=product", "curiosity.parts.lifelong.proportion=2"]
    cfg = tiny_config(*overrides)
    expected = r"^curiosity.parts.lifelong.proportion=2: allowed are numbers above 0 to 1$"
    with pytest.raises(ConfigError, match=expected), bad_input(cfg):
        build_agent(cfg, env_spec(cfg))
