"""Linear, perceptron, memory and belief probes on data whose answer is known."""

from __future__ import annotations

import pytest
import torch
from hidden_markov import mess3, sample
from torch import Tensor

from worldmodel.probes.belief import fit_belief, simplex, simplex_figure
from worldmodel.probes.linear import held_out, layers_figure, probe, probe_layers, r_squared, ridge
from worldmodel.probes.memory import horizon_figure, lagged, memory_horizon, past_and_change, recent


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
    x, groups = data(4000, 2)
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


def ar1(rho: float, streams: int = 8, rows: int = 2000) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    z = torch.randn(streams, rows)
    for t in range(1, rows):
        z[:, t] = rho * z[:, t - 1] + (1 - rho**2) ** 0.5 * z[:, t]
    episode = torch.arange(streams)[:, None] * 1000 + torch.arange(rows) // 200
    return z[..., None], episode


def test_lagged_pairs_stay_in_their_episode() -> None:
    t = torch.arange(6.0)[None, :, None]
    episode = torch.tensor([[0, 0, 0, 1, 1, 1]])
    h, z, groups = lagged(t, t, episode, 1)
    assert h.flatten().tolist() == [1, 2, 4, 5] and z.flatten().tolist() == [0, 1, 3, 4]
    h, z, groups = lagged(t, t, episode, 1, least=2)
    assert h.flatten().tolist() == [2, 5] and z.flatten().tolist() == [1, 4] and groups.tolist() == [0, 1]
    with pytest.raises(ValueError, match="lag=6: allowed are 0 to 5"):
        lagged(t, t, episode, 6)


def test_an_ar1_process_forgets_by_the_square_of_rho() -> None:
    z, episode = ar1(0.9)
    found = memory_horizon(z, z, episode, [0, 1, 2, 5, 10])
    for k, score in found.items():
        assert score.score == pytest.approx(0.9 ** (2 * k), abs=0.06) and abs(score.shuffled) < 0.02
    assert len(horizon_figure({"h": found}).axes[0].lines) == 2


def test_a_delay_line_of_k_steps_remembers_k_and_not_k_plus_one() -> None:
    torch.manual_seed(0)
    z = torch.randn(4, 500, 2)
    episode = torch.arange(4)[:, None].expand(4, 500)
    found = memory_horizon(recent(z, [0, 1, 2, 3]), z, episode, [0, 2, 3, 4, 6])
    assert [round(found[k].score, 1) for k in (0, 2, 3)] == [1, 1, 1] and max(found[k].score for k in (4, 6)) < 0.05


def test_recent_by_hand() -> None:
    z = torch.arange(1.0, 5.0)[None, :, None]
    assert recent(z, [0, 2])[0].tolist() == [[1, 0], [2, 0], [3, 1], [4, 2]]


def test_variance_is_parted_as_it_was_put_together() -> None:
    """h = past + change, of variances 3 and 1 in each dimension, independent; then with something in common."""
    torch.manual_seed(0)
    past, change, common = (torch.randn(20_000, 4) for _ in range(3))
    groups = torch.arange(20_000) // 100
    parts = past_and_change(3**0.5 * past + change, past, change, groups)
    assert parts.past == pytest.approx(0.75, abs=0.02) and parts.change == pytest.approx(0.25, abs=0.02)
    assert parts.both > 0.999 and abs(parts.shared) < 0.02 and abs(parts.control) < 0.01
    assert parts.past_only == pytest.approx(0.75, abs=0.02) and parts.change_only == pytest.approx(0.25, abs=0.02)
    told_by_both = torch.cat([past, common], 1), torch.cat([change, common], 1)
    assert past_and_change(common, *told_by_both, groups).shared > 0.999


def test_belief_is_found_where_it_is_and_not_among_shuffled_ones() -> None:
    _, belief, _ = map(torch.from_numpy, sample(mess3(), streams=20, rows=300))
    belief, groups = belief.flatten(0, 1), torch.arange(20).repeat_interleave(300)
    h = torch.cat([belief @ torch.randn(3, 10, dtype=torch.double) + 1, torch.randn(len(belief), 4)], 1)
    fit = fit_belief(h, belief, groups)
    assert fit.r2 > 0.9999 and abs(fit.r2_shuffled) < 0.02 and fit.rmse < 1e-2
    torch.testing.assert_close(fit.map(h).sum(1), torch.ones(len(h)).double())
    noise = fit_belief(torch.randn(len(h), 14), belief, groups)
    assert abs(noise.r2) < 0.02
    assert len(simplex_figure(fit).axes) == 2


def test_corners_of_the_simplex() -> None:
    points = simplex(torch.eye(3))
    torch.testing.assert_close(torch.pdist(points), torch.ones(3))
    torch.testing.assert_close(simplex(torch.full((1, 3), 1 / 3)), points.mean(0, keepdim=True))
    with pytest.raises(ValueError, match="belief over 2 states"):
        simplex(torch.ones(1, 2))
