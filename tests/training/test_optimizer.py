"""Optimizers: weight decay, learning rates, schedules and the state after a restart."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny import minibatches, tiny_agent
from torch import nn

from worldmodel.training.optimizer import make_adamw, make_muon


@pytest.fixture(scope="module")
def agent():
    agent, stream, _ = tiny_agent("memory.position=learned", "target=inverse", "env=mujoco", "encoder=mlp")
    stream.close()
    return agent


class Layer(nn.Linear):
    """A module with the attributes of an agent that the optimizers read."""

    progress = 0.0

    def __init__(self) -> None:
        super().__init__(2, 2)

    def param_groups(self) -> dict[str, nn.Module]:
        return {"policy": self}

    @property
    def model(self) -> Layer:
        return self

    def hidden_matrices(self) -> list[nn.Parameter]:
        return []


def groups_by_name(agent: nn.Module, **settings) -> dict[str, dict]:
    optimizer = make_adamw(agent, **settings)["optimizer"]
    names = {id(p): name for name, p in agent.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("make", [make_adamw, make_muon])
def test_every_parameter_that_learns_is_in_one_group(agent, make) -> None:
    optimizer = make(agent)["optimizer"]
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
    for name in ("model.memory.norm.weight", "model.start", "policy.dist.log_std", "policy.actor_trunk.bias"):
        assert decays[name] == 0.0
    assert decays["policy.critic_trunk.weight"] == decays["model.memory.attentions.0.qkv.weight"] == 0.1


def test_rates_of_the_parts(agent) -> None:
    rates = groups_by_name(agent, lr=1.0, part_lr={"encoder": 0.5, "memory": 0.25, "policy": 0.125}, warmup=0)
    for name, group in rates.items():
        part = name.removeprefix("model.").split(".")[0]
        assert group["lr"] == {"encoder": 0.5, "memory": 0.25, "policy": 0.125}.get(part, 1.0), name
    with pytest.raises(ValueError, match=r"optimizer.part_lr=\['heads'\]: allowed are encoder, memory, policy, curio"):
        make_adamw(agent, part_lr={"heads": 1.0})


def test_a_head_can_have_a_rate_of_its_own() -> None:
    agent, stream, _ = tiny_agent("heads=observation")
    stream.close()
    rates = groups_by_name(agent, lr=1.0, part_lr={"observation": 0.5, "encoder": 0.25}, warmup=0)
    head = {name for name in rates if name.startswith("model.heads.observation.")}
    assert head and {name for name, group in rates.items() if group["lr"] == 0.5} == head
    assert {name.split(".")[1] for name, group in rates.items() if group["lr"] == 0.25} == {"encoder"}


def test_warm_up() -> None:
    made = make_adamw(Layer(), lr=8.0, warmup=4)
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


def test_cool_down() -> None:
    module = Layer()
    rates = []
    for module.progress in (0.0, 0.5, 0.75, 1.0):
        made = make_adamw(module, lr=8.0, warmup=0, cooldown=0.5)
        rates.append(made["optimizer"].param_groups[0]["lr"])
    assert rates == [8.0, 8.0, 4.0, 0.0]
    with pytest.raises(ValueError, match=r"optimizer.cooldown=2.0: allowed are numbers from 0 to 1"):
        make_adamw(module, cooldown=2.0)


def test_the_last_update_still_learns() -> None:
    agent, stream, cfg = tiny_agent("total_steps=96")
    made, rates = make_adamw(agent, lr=8.0, warmup=0, cooldown=1.0), []
    loader = minibatches(agent, stream, cfg)
    for _ in range(3):
        for _batch in loader:
            rates.append(made["optimizer"].param_groups[0]["lr"])
            made["optimizer"].step()
            made["lr_scheduler"]["scheduler"].step()
    stream.close()
    assert agent.progress == pytest.approx(2 / 3) and int(agent.env_steps) == 96
    assert rates == pytest.approx([8.0] * 5 + [16 / 3] * 4 + [8 / 3] * 3)


def test_a_restart_restores_the_moments_and_not_the_rates() -> None:
    module = Layer()
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


def test_muon_has_the_matrices_of_the_hidden_layers(agent) -> None:
    optimizer = make_muon(agent, matrix_lr=0.5, lr=0.25, warmup=0)["optimizer"]
    muon, adamw = optimizer.parts
    names = {id(p): name for name, p in agent.named_parameters()}
    found = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    assert {"model.token.weight", "model.heads.dynamics.trunk.weight", "model.memory.attentions.0.qkv.weight"} <= found
    hidden = ("model.token.", "model.memory.", "model.heads.dynamics.trunk.", "model.heads.dynamics.now.")
    assert all(name.startswith(hidden) for name in found) and "model.memory.place.weight" not in found
    assert {g["lr"] for g in muon.param_groups} == {0.5} and {g["lr"] for g in adamw.param_groups} == {0.25}


class TwoLayers(nn.Module):
    """A hidden layer for Muon and an output layer for AdamW."""

    progress = 0.0

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token, self.outcome = nn.Linear(3, 4), nn.Linear(4, 2)

    @property
    def model(self) -> TwoLayers:
        return self

    def hidden_matrices(self) -> list[nn.Parameter]:
        return [self.token.weight]

    def param_groups(self) -> dict[str, nn.Module]:
        return {}


def test_muon_and_adamw_step_as_they_would_alone() -> None:
    def loss(layers: TwoLayers) -> torch.Tensor:
        return layers.outcome(layers.token(torch.ones(1, 3))).square().sum()

    ours, theirs = TwoLayers(), TwoLayers()
    made = make_muon(ours, matrix_lr=0.1, lr=0.01, weight_decay=0.0, eps=1e-8, warmup=0)["optimizer"]
    matrix = theirs.token.weight
    alone = [
        torch.optim.Muon([matrix], lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([p for p in theirs.parameters() if p is not matrix], 0.01, (0.9, 0.99), weight_decay=0.0),
    ]
    for _ in range(3):
        made.zero_grad()
        value = made.step(lambda: (x := loss(ours)).backward() or x)
        theirs.zero_grad()
        expected = loss(theirs)
        expected.backward()
        for optimizer in alone:
            optimizer.step()
        torch.testing.assert_close(value, expected)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    # saved and loaded, it takes the same further step
    again = make_muon(ours, matrix_lr=0.1, lr=0.01, weight_decay=0.0, eps=1e-8, warmup=0)["optimizer"]
    again.load_state_dict(made.state_dict())
    theirs.zero_grad()
    loss(theirs).backward()
    for optimizer in alone:
        optimizer.step()
    again.zero_grad()
    again.step(lambda: loss(ours).backward())
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_muon_without_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match="optimizer=muon: the world model has no matrices"):
        make_muon(Layer())
