"""Who decays, who learns how fast, the warm-up, and what a restart takes over."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_agent
from torch import nn

from worldmodel.optimizer import make_adamw


@pytest.fixture(scope="module")
def agent():
    agent, data, _ = tiny_agent("memory.position=learned", "target=inverse", "env=mujoco", "encoder=mlp")
    data.teardown("fit")
    return agent


def groups_by_name(agent: nn.Module, **settings) -> dict[str, dict]:
    optimizer = make_adamw(agent, **settings)["optimizer"]
    names = {id(p): name for name, p in agent.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def test_every_parameter_that_learns_is_in_one_group(agent) -> None:
    optimizer = make_adamw(agent)["optimizer"]
    there = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(there) == len(set(there)) and set(there) == {id(p) for p in agent.parameters() if p.requires_grad}


def test_only_matrices_decay(agent) -> None:
    decays = {name: group["weight_decay"] for name, group in groups_by_name(agent, weight_decay=0.1).items()}
    tables = [f"{n}.weight" for n, m in agent.named_modules() if isinstance(m, nn.Embedding)]
    assert "model.memory.place.weight" in tables
    for name, parameter in agent.named_parameters():
        if parameter.requires_grad:
            expected = 0.1 if parameter.ndim >= 2 and name not in tables else 0.0
            assert decays[name] == expected, name
    for name in ("model.memory.norm.weight", "model.start", "policy.dist.log_std", "policy.trunk.bias"):
        assert decays[name] == 0.0
    assert decays["policy.trunk.weight"] == decays["model.memory.attentions.0.qkv.weight"] == 0.1


def test_rates_of_the_parts(agent) -> None:
    rates = groups_by_name(agent, lr=1.0, part_lr={"encoder": 0.5, "memory": 0.25, "policy": 0.125}, warmup=0)
    for name, group in rates.items():
        part = name.removeprefix("model.").split(".")[0]
        assert group["lr"] == {"encoder": 0.5, "memory": 0.25, "policy": 0.125}.get(part, 1.0), name
    with pytest.raises(ValueError, match=r"optimizer.part_lr=\['heads'\]: allowed are encoder, memory, policy, curio"):
        make_adamw(agent, part_lr={"heads": 1.0})


def test_warm_up() -> None:
    made = make_adamw(nn.Linear(2, 2), lr=8.0, warmup=4)
    optimizer, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [2.0, 4.0, 6.0, 8.0, 8.0, 8.0]
    assert made["lr_scheduler"]["interval"] == "step"


def step(module: nn.Module, made: dict) -> None:
    module(torch.ones(1, 2)).sum().backward()
    made["optimizer"].step()
    made["lr_scheduler"]["scheduler"].step()


def test_a_restart_takes_the_moments_over_and_not_the_rates() -> None:
    module = nn.Linear(2, 2)
    old = make_adamw(module, lr=8.0, weight_decay=0.1, warmup=4)
    for _ in range(2):
        step(module, old)
    new = make_adamw(module, lr=4.0, weight_decay=0.2, warmup=4)
    new["optimizer"].load_state_dict(old["optimizer"].state_dict())
    new["lr_scheduler"]["scheduler"].load_state_dict(old["lr_scheduler"]["scheduler"].state_dict())
    assert [g["lr"] for g in new["optimizer"].param_groups] == [3.0, 3.0]  # the third step of the warm-up
    assert {g["weight_decay"] for g in new["optimizer"].param_groups} == {0.2, 0.0}
    for p in module.parameters():
        assert new["optimizer"].state[p]["step"] == 2
        assert torch.equal(new["optimizer"].state[p]["exp_avg"], old["optimizer"].state[p]["exp_avg"])
    step(module, new)
    assert new["optimizer"].param_groups[0]["lr"] == 4.0
    same = make_adamw(module, lr=8.0, part_lr={"policy": 1.0}, warmup=4)
    same["optimizer"].load_state_dict(old["optimizer"].state_dict())


def test_groups_do_not_depend_on_the_rates(agent) -> None:
    def layout(**settings) -> list[list[int]]:
        return [[id(p) for p in g["params"]] for g in make_adamw(agent, **settings)["optimizer"].param_groups]

    assert layout() == layout(part_lr={"policy": 1e-4}) == layout(part_lr={"encoder": 1e-4}, weight_decay=0.0)
