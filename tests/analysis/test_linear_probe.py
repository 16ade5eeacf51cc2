"""Linear and perceptron probes on data with a known answer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worldmodel.analysis.probes.linear import held_out, layers_figure, probe, probe_layers, r_squared, ridge


def data(rows: int = 2000, width: int = 6) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(rows, width), torch.arange(rows) // 20


def test_ridge_finds_the_map_and_ignores_a_constant_feature() -> None:
    x, _ = data()
    x = torch.cat([x, torch.full((len(x), 1), 7.0)], 1)
    weight = torch.randn(7, 3)
    weight[6] = 0
    found = ridge(x, x @ weight + 2, penalty=0.0 + 1e-9)
    torch.testing.assert_close(found.weight, weight.double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(found(x), (x @ weight + 2).double(), atol=1e-4, rtol=0)


def test_ridge_by_hand() -> None:
    # one standardised feature ±1: weight = mean(x y) / (1 + penalty)
    found = ridge(torch.tensor([[-1.0], [1.0]]), torch.tensor([[0.0], [4.0]]), penalty=1.0)
    torch.testing.assert_close(found.weight, torch.tensor([[1.0]]).double())
    torch.testing.assert_close(found.bias, torch.tensor([2.0]).double())


def test_r_squared_by_hand() -> None:
    y = torch.tensor([[0.0], [2.0]])
    assert r_squared(y, y) == 1 and r_squared(y, torch.ones(2, 1)) == 0 and r_squared(y, 2 - y) == -3


def test_whole_episodes_are_held_out() -> None:
    groups = torch.arange(200) // 20
    test = held_out(groups, 0.3, seed=1)
    assert test.sum() == 60 and len(groups[test].unique()) == 3
    assert not torch.equal(test, held_out(groups, 0.3, seed=2))
    with pytest.raises(ValueError, match="1 episode, a held-out split needs at least 2"):
        held_out(torch.zeros(5))


def test_what_is_linear_is_found_and_the_control_finds_nothing() -> None:
    x, groups = data()
    found = probe(x, x[:, :2] @ torch.randn(2, 3), groups)
    assert found.score > 0.999 and abs(found.shuffled) < 0.05 and found.baseline == 0
    labels = probe(x, x[:, :3].argmax(1), groups)
    assert labels.score > 0.9 and abs(labels.shuffled - 1 / 3) < 0.08 and abs(labels.baseline - 1 / 3) < 0.08


def test_noise_of_half_the_variance_leaves_half() -> None:
    x, groups = data(10_000)
    assert probe(x, x[:, 0] + torch.randn(len(x)), groups).score == pytest.approx(0.5, abs=0.03)


def test_an_episode_that_is_its_own_label_is_not_read_off_new_episodes() -> None:
    _, groups = data()
    name = torch.nn.functional.one_hot(groups).float()  # features which say the episode and nothing else
    per_episode = torch.randn(int(groups.max()) + 1)[groups]
    assert probe(name, per_episode, groups).score < 0.1


def test_a_perceptron_finds_what_a_linear_probe_does_not() -> None:
    x, groups = data(2000, 2)
    y = x[:, 0] * x[:, 1]
    assert probe(x, y, groups).score < 0.05 and probe(x, y, groups, "mlp").score > 0.9
    labels = (y > 0).long()
    assert probe(x, labels, groups).score < 0.6 and probe(x, labels, groups, "mlp").score > 0.9
    with pytest.raises(ValueError, match="kind=deep: allowed are linear, mlp"):
        probe(x, y, groups, "deep")


def test_layers_by_variables_with_a_random_network() -> None:
    x, groups = data()
    table = probe_layers({"0": x[:, :3], "1": x}, {"a": x[:, 5], "b": x[:, 0]}, groups, control={"0": x, "1": x[:, :3]})
    score = {(row["layer"], row["variable"]): row for row in table}
    assert score["1", "a"]["score"] > 0.99 > 0.1 > score["0", "a"]["score"]
    assert score["0", "a"]["random_network"] > 0.99 > 0.1 > score["1", "a"]["random_network"]
    assert len(layers_figure(table).axes[0].texts) == 4
