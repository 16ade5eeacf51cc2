"""Building blocks of the learnt signals: action codes, ensembles, forward models and whitening."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from helpers.by_hand import ACTS, OBS, PLANE, ROLL, WHITE, Same, rollout
from helpers.tiny import tiny_config
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Dict as DictEncoder
from encoders import Grid
from worldmodel.curiosity.blocks.ensemble import Ensemble, EnsembleLinear
from worldmodel.curiosity.blocks.features import with_convolutions
from worldmodel.curiosity.blocks.forward_model import ForwardModel
from worldmodel.model.action_embedding import ActionCode
from worldmodel.obs_normalizer import signal_normalizer
from worldmodel.training.build import build_agent, env_spec


def test_codes_of_actions() -> None:
    assert ActionCode(ACTS)(torch.tensor([[2]])).tolist() == [[[0, 0, 1, 0]]]
    pair = ActionCode(MultiDiscrete([2, 3]))
    assert pair.width == 5 and pair(torch.tensor([1, 0])).tolist() == [0, 1, 1, 0, 0]
    box = ActionCode(Box(-1, 1, (2, 2)))
    assert box.width == 4 and box(torch.arange(4.0).view(1, 2, 2)).tolist() == [[0, 1, 2, 3]]


def test_members_of_an_ensemble_are_networks_of_their_own() -> None:
    torch.manual_seed(0)
    ensemble, x = Ensemble(3, [4, 5, 2]), torch.randn(2, 6, 4)
    first, second = ensemble.layers
    for layer in (first, second):
        nn.init.normal_(layer.bias)
    out = ensemble(x)
    assert out.shape == (3, 2, 6, 2)
    for k in range(3):
        hidden = F.silu(x @ first.weight[k] + first.bias.view(3, -1)[k])
        torch.testing.assert_close(out[k], hidden @ second.weight[k] + second.bias.view(3, -1)[k])
    assert not torch.allclose(out[0], out[1])


def test_a_forward_model_reads_the_action_in_every_layer() -> None:
    torch.manual_seed(0)
    model = ForwardModel(2, ACTS, hidden=5, blocks=1, count=2, outputs=3)
    phi, act = torch.randn(1, 3, 2), torch.tensor([[0, 3, 1]])
    code = F.one_hot(act, 4).float()

    def layer(linear: EnsembleLinear, x: Tensor, k: int) -> Tensor:
        return torch.cat([x, code], -1) @ linear.weight[k]

    for k, out in enumerate(model(phi, act)):
        x = F.leaky_relu(layer(model.inp, phi, k))
        ((one, two),) = model.blocks
        x = x + layer(two, F.leaky_relu(layer(one, x, k)), k)
        torch.testing.assert_close(out, layer(model.out, x, k))


def test_whitening_by_hand() -> None:
    whitening, _ = signal_normalizer(PLANE, Same())
    whitening.update(ROLL)  # the closing row is the first of the next rollout
    torch.testing.assert_close(whitening(ROLL.obs), WHITE)
    late = rollout([[50.0, 50.0], *OBS], [0, 1, 0], num_new=2)  # the statistics have the context already
    whitening, _ = signal_normalizer(PLANE, Same())
    whitening.update(late)
    torch.testing.assert_close(whitening(ROLL.obs), WHITE)


def test_only_numbers_are_whitened() -> None:
    view = Box(0, 255, (7, 7, 3), np.uint8)
    cells, same = signal_normalizer(view, Grid(view))
    assert same == view and not list(cells.moments)
    space = Dict({"pos": PLANE, "dir": Discrete(4), "view": view})
    mixed, white = signal_normalizer(space, DictEncoder(space))
    assert list(mixed.moments) == ["of_pos"] and white["view"] == view and white["dir"] == Discrete(4)
    obs = {"pos": torch.tensor([[100.0, 2.0]]), "dir": torch.tensor([3]), "view": torch.zeros(1, 7, 7, 3)}
    assert mixed(obs)["pos"].tolist() == [[5.0, 2.0]] and mixed(obs)["dir"] is obs["dir"]


def test_cells_are_convolved_for_signals_alone() -> None:
    view, space = Box(0, 255, (7, 7, 3), np.uint8), Dict({"view": Box(0, 255, (7, 7, 3), np.uint8), "pos": PLANE})
    make = with_convolutions(Grid, (16, 32))
    net = make(view, dim=8).net
    assert [m.out_channels for m in net if isinstance(m, nn.Conv2d)] == [16, 32] and make(view, dim=8).shape == (8,)
    nested = with_convolutions(DictEncoder, (16,))(space, dim=8)
    assert nested.part("view").convolved and nested.part("pos").name == "mlp"
    obs = {"view": torch.zeros(2, 7, 7, 3, dtype=torch.uint8), "pos": torch.zeros(2, 2)}
    assert nested(obs).shape == (2, 8)
    assert with_convolutions(Grid, ()) is Grid
    own = with_convolutions(partial(Grid, hidden=(5,)), (16,))(view)
    assert not own.convolved, "layers of its own"
    tiny = with_convolutions(partial(Grid, num_values=(4, 4)), (16, 32, 64))(Box(0, 255, (3, 3, 2), np.uint8))
    assert tiny(torch.ones(5, 3, 3, 2)).shape == (5, 128) and sum(isinstance(m, nn.Conv2d) for m in tiny.net) == 2


def test_the_agents_signals_have_convolutions_and_its_world_model_none() -> None:
    cfg = tiny_config("curiosity=deir")
    agent = build_agent(cfg, env_spec(cfg))
    assert agent.curiosity.features.encoder.convolved and not agent.model.encoder.convolved
    cfg.signal_channels = [0]
    with pytest.raises(ValueError, match=r"signal_channels=0: allowed"):
        build_agent(cfg, env_spec(cfg))
    del cfg.signal_channels  # a run of before
    assert not build_agent(cfg, env_spec(cfg)).curiosity.features.encoder.convolved
