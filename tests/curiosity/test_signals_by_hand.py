"""Rewards and losses of the learnt signals, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import e, exp, log, pi

import pytest
import torch
from helpers.by_hand import OBS, ROLL, SPEC, Stub, outputs, rollout, shift
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from worldmodel.curiosity import (
    AMA,
    ICM,
    MAX,
    RE3,
    RND,
    BYOLExplore,
    CuriosityCritic,
    Disagreement,
    LearningProgress,
    Plan2Explore,
    RandomFeatureError,
)
from worldmodel.curiosity.max import jensen_renyi
from worldmodel.curiosity.re3 import kth_distances
from worldmodel.model.heads.dynamics import bound_logvar


def test_rnd() -> None:
    signal = RND(SPEC, dim=2)
    signal.distillation.predictor = Stub(lambda x: 2 * x)
    signal.distillation.target = Stub(lambda x: x)
    expected = torch.tensor([[1.0, 13.0]])  # of where a transition led: (1 + 1) / 2, (25 + 1) / 2
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    expected[0, 0] += 1.0  # of the episode's first observation, (1 + 1) / 2
    torch.testing.assert_close(signal.losses(ROLL, None)["rnd"], expected)
    signal.proportion = 0.25
    torch.manual_seed(0)
    drawn = torch.stack([signal.losses(ROLL, None)["rnd"] for _ in range(2000)])
    assert set(drawn.unique().tolist()) == {0.0, 8.0, 52.0}
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0.1, atol=0.0)


def test_first_observations_of_episodes_train_the_distillation_once() -> None:
    """The third row ends an episode, the fourth begins another; the window before the new steps is context."""
    roll = rollout(
        [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0], [5.0, 0.0]], [0, 0, 0, 0], [True, True, False, True]
    )
    distillation = RND(SPEC, dim=2).distillation
    distillation.whitening = Stub(lambda x: x)
    distillation.predictor, distillation.target = Stub(lambda x: x[..., :1]), Stub(lambda x: 0 * x[..., :1])
    loss, mask = distillation.loss(roll), roll.new_steps(roll.mask)
    assert loss[mask].tolist() == [1.0 + 4.0, 9.0, 16.0 + 25.0]
    roll.num_new = 3
    assert distillation.loss(roll)[roll.new_steps(roll.mask)].tolist() == [9.0, 16.0 + 25.0]


def test_re3() -> None:
    signal = RE3(SPEC, neighbours=2)
    points = [[0.0], [0.0], [1.0], [3.0], [7.0]]
    roll = rollout([[p[0], 0.0] for p in points], [0, 0, 0, 0], [True, True, True, True])
    signal.features.update_and_encode = lambda roll: torch.tensor([points])
    # of 0, 1, 3 and 7: the second nearest of the other three
    torch.testing.assert_close(signal.reward(roll, None), torch.tensor([[3.0, 2.0, 3.0, 6.0]]).log1p())
    roll.mask[0, 1] = False  # a reset: 1 is no observation that an action led to
    torch.testing.assert_close(signal.reward(roll, None), torch.tensor([[7.0, 0.0, 4.0, 7.0]]).log1p())
    assert signal.losses(roll, None) == {}


def test_neighbours_agree_with_scikit_learn() -> None:
    x = torch.randn(2500, 4)
    theirs = NearestNeighbors(n_neighbors=4).fit(x.numpy()).kneighbors(x.numpy())[0][:, 3]
    torch.testing.assert_close(kth_distances(x, 3, 4096), torch.from_numpy(theirs).float(), rtol=1e-4, atol=1e-5)
    assert kth_distances(x[:1], 3, 4096).tolist() == [0.0]
    few = kth_distances(x, 3, 100)
    assert (few >= kth_distances(x, 3, 4096)).all() and few.isfinite().all()


def test_rnd_agrees_with_torchrl() -> None:
    theirs = pytest.importorskip("torchrl.objectives.rnd")
    from tensordict import TensorDict
    from torchrl.envs.transforms.rnd import RunningMeanStd

    torch.manual_seed(0)
    signal, roll = RND(SPEC, dim=16), rollout(torch.randn(33, 2).tolist(), [0] * 32)
    reward = signal.reward(roll, None)
    networks = signal.distillation
    statistics = RunningMeanStd((2,), epsilon=0.0)
    statistics.update(roll.obs[:, :-1])
    loss = theirs.RNDLoss(
        networks.predictor, networks.target, obs_rms=statistics, obs_clip=5.0, reduction="none", update_fraction=1.0
    )
    batch = TensorDict({"next": {"observation": roll.obs[0, 1:]}}, [32])
    torch.testing.assert_close(reward[0], loss(batch)["loss_predictor"], rtol=1e-4, atol=1e-6)


def test_icm() -> None:
    signal = ICM(SPEC, dim=2)
    signal.model = Stub(shift)
    for layer in signal.features.head.net[::2]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    expected = torch.tensor([[0.5, 32.0]])  # (1, 1) - (1, 2) and (1, 2) - (9, 2)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    losses = signal.losses(ROLL, None)
    torch.testing.assert_close(losses["icm_forward"], 0.2 * expected)
    torch.testing.assert_close(losses["icm_inverse"], torch.full((1, 2), 0.8 * log(4)))


def test_the_forward_loss_of_icm_shapes_the_features_by_default() -> None:
    for stop in (False, True):
        signal = ICM(SPEC, dim=2, stop_gradient=stop)
        signal.features.features = nn.Linear(2, 2)
        signal.losses(ROLL, None)["icm_forward"].sum().backward()
        assert (signal.features.features.weight.grad is None) == stop


def test_random_features() -> None:
    signal = RandomFeatureError(SPEC, dim=2)
    signal.model = Stub(shift)
    expected = torch.tensor([[(1.0 + 1) / 2, (16.0 + 0) / 2]])  # (0, 0) - (1, 1) and (1, 1) - (5, 1)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    torch.testing.assert_close(signal.losses(ROLL, None)["random_features"], expected)
    signal.features.scale.var.fill_(4.0)  # in units of a standard deviation of 2
    torch.testing.assert_close(signal.losses(rollout(OBS, [0, 0]), None)["random_features"], torch.tensor([[1.0, 2.0]]))


def test_disagreement() -> None:
    signal = Disagreement(SPEC, dim=2, members=2, drop=0.0)
    signal.model = Stub(lambda phi, act: torch.stack([phi, phi + 2 * act[..., None]]))
    torch.testing.assert_close(signal.reward(ROLL, None), torch.tensor([[1.0, 0.0]]))  # -1 and 1 about their mean
    # 4 and 0; 8 twice
    torch.testing.assert_close(signal.losses(ROLL, None)["disagreement"], torch.tensor([[4.0, 16.0]]))
    signal.drop = 0.2
    torch.manual_seed(0)
    drawn = torch.stack([signal.losses(ROLL, None)["disagreement"] for _ in range(2000)])[:, 0]
    assert sorted(x for x in set(drawn[:, 1].tolist())) == [0.0, 10.0, 20.0]  # of none, one or both members
    torch.testing.assert_close(drawn.mean(0), torch.tensor([4.0, 16.0]), rtol=0.05, atol=0.0)


def test_jensen_renyi_of_two_gaussians() -> None:
    mean, var = torch.tensor([[[0.0], [1.0]], [[2.0], [1.0]]]), torch.ones(2, 2, 1)
    # overlaps exp(-d^2 / 4v) in units of a member's own
    torch.testing.assert_close(jensen_renyi(mean, var), torch.tensor([-log((1 + exp(-1)) / 2), 0.0]))
    far = jensen_renyi(torch.arange(5.0)[:, None] * 1000, torch.full((5, 1), 0.3))
    torch.testing.assert_close(far, torch.tensor(log(5.0)))


def test_jensen_renyi_by_integration() -> None:
    torch.manual_seed(0)
    mean, var = torch.randn(3, 2), torch.rand(3, 2) + 0.3
    x = torch.linspace(-8, 8, 401, dtype=torch.float64)
    density = [
        torch.outer(*(torch.exp(-0.5 * (x - m) ** 2 / v) / (2 * pi * v) ** 0.5 for m, v in zip(*both, strict=True)))
        for both in zip(mean.double(), var.double(), strict=True)
    ]
    cell = (x[1] - x[0]) ** 2
    entropies = [-(p.square().sum() * cell).log() for p in (sum(density) / 3, *density)]
    expected = entropies[0] - sum(entropies[1:]) / 3
    torch.testing.assert_close(jensen_renyi(mean, var), expected.float(), rtol=1e-4, atol=1e-5)


def test_max() -> None:
    signal = MAX(replace(SPEC, target_shape=(1,)), members=2, hidden=4)
    mean = torch.tensor([0.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 1)
    logvar = torch.tensor([-1.0, -3.0]).view(1, 1, 2, 1).expand(2, 1, 2, 1)
    signal.predict = lambda y, act: (mean, logvar)
    out = outputs([[0.0], [1.0], [1.0]])
    # (delta - mu)^2 / v + log v of both members, the change being 1 and 0
    loss = [2 * e - 2, 4 * exp(3) - 6]
    torch.testing.assert_close(signal.losses(ROLL, out)["max"], torch.tensor([loss]))
    variances = [exp(-1), exp(-1) - 0.1 * (exp(-1) - exp(-3))]
    expected = [-log((1 + exp(-1 / v)) / 2) for v in variances]
    torch.testing.assert_close(signal.reward(ROLL, out), torch.tensor([expected]))
    assert signal.delta.mean.tolist() == [0.5] and signal.state.mean.tolist() == [0.5]


@pytest.mark.parametrize("dims", [1, 4, 64])
def test_divergence_per_dimension_does_not_depend_on_their_number(dims: int) -> None:
    mean, var = torch.tensor([[0.0], [0.2]]).expand(2, dims), torch.ones(2, dims)
    near = jensen_renyi(mean, var, per_dimension=True)
    torch.testing.assert_close(near, torch.tensor(-log((1 + exp(-(0.2**2) / 4)) / 2)))
    far = jensen_renyi(100 * mean, var, per_dimension=True)
    torch.testing.assert_close(far, torch.tensor(log(2)))


def test_max_keeps_its_variances_within_bounds() -> None:
    signal = MAX(replace(SPEC, target_shape=(1,)), members=2, hidden=4)
    bias = signal.ensemble.layers[-1].bias
    nn.init.constant_(bias, 1e3)
    for sign, bound in ((1, -1.0), (-1, -5.0)):
        bias.data.abs_().mul_(sign)
        _, logvar = signal.predict(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.long))
        torch.testing.assert_close(logvar, torch.full((2, 1, 1, 1), bound))


def test_plan2explore() -> None:
    signal = Plan2Explore(SPEC, members=2, hidden=4)
    signal.predict = lambda h, y, act: torch.stack([y, y + torch.tensor([2.0, 4.0]) * act[..., None]])
    out = outputs([[0.0, 0.0], [1.0, 1.0], [1.0, 3.0]])
    # halved: (1 + 1) / 2 and (1 + 9) / 2; (0 + 4) / 2 twice
    torch.testing.assert_close(signal.losses(ROLL, out)["plan2explore"], torch.tensor([[3.0, 2.0]]))
    torch.testing.assert_close(signal.reward(ROLL, out), torch.tensor([[1.5, 0.0]]))  # std 1 and 2
    # learnt in units of the latent's own spread, which the reward has taken in: mean (.5, .5), std (.5, .5)
    signal.predict = lambda h, y, act: torch.zeros(2, 1, 2, 2)
    torch.testing.assert_close(signal.losses(ROLL, out)["plan2explore"], torch.tensor([[1.0, (1 + 25) / 2]]))


def test_ama() -> None:
    signal = AMA(SPEC, dim=2, eta=0.5)
    signal.model = Stub(lambda phi, act: torch.cat([shift(phi, act), torch.zeros_like(phi)[None]], -1))
    logvar = float(bound_logvar(torch.zeros(())))
    expected = torch.tensor([[2.0, 16.0]]) - 0.5 * 2 * exp(logvar)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    loss = 0.5 * (torch.tensor([[1.0, 8.0]]) * exp(-logvar) + logvar)
    torch.testing.assert_close(signal.losses(ROLL, None)["ama"], loss)


def test_curiosity_critic() -> None:
    signal = CuriosityCritic(SPEC, hidden=4)
    out = outputs(OBS, [[1.0, 3.0], [2.0, 0.0]])
    torch.testing.assert_close(signal.reward(ROLL, out), torch.tensor([[5.0, 2.0]]))  # at first, plain error
    nn.init.constant_(signal.critic[-1].bias, 0.5)
    torch.testing.assert_close(signal.reward(ROLL, out), torch.tensor([[4.5, 1.5]]))
    loss = signal.losses(ROLL, out)["curiosity_critic"]
    torch.testing.assert_close(loss, torch.tensor([[4.5**2 / 2, 1.5**2 / 2]]))


class Moved(nn.Module):
    """A forward model with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros(()))

    def forward(self, phi: Tensor, act: Tensor) -> Tensor:
        return (phi + self.by)[None]


def test_learning_progress() -> None:
    signal = LearningProgress(SPEC, dim=2)
    signal.model, signal.past.net = Moved(), Moved()
    nn.init.zeros_(signal.expected[-1].weight)
    nn.init.constant_(signal.expected[-1].bias, 3.0)
    assert signal.reward(ROLL, None).tolist() == [[0.0, 0.0]]  # no model came before
    signal.model.by.data.fill_(1.0)
    now, was = torch.tensor([[1.0, 5.0]]), torch.tensor([[4.0, 8.0]])  # (1 + 1) / 2, (9 + 1) / 2; 4, 16 / 2
    losses = signal.losses(ROLL, None)
    torch.testing.assert_close(losses["learning_progress_model"], now)
    torch.testing.assert_close(losses["learning_progress_error"], 0.5 * (3 - was).square())
    torch.testing.assert_close(signal.eval().reward(ROLL, None), 3 - now)
    assert signal.past.net.by == 0  # an evaluation is no update
    torch.testing.assert_close(signal.train().reward(ROLL, None), 3 - now)
    torch.testing.assert_close(signal.losses(ROLL, None)["learning_progress_error"], 0.5 * (3 - now).square())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RND(SPEC, dim=2, proportion=0.0), "curiosity.proportion=0.0"),
        (lambda: Disagreement(SPEC, dim=2, members=1), "curiosity.members=1"),
        (lambda: Disagreement(SPEC, dim=2, drop=1.0), "curiosity.drop=1.0"),
        (lambda: Plan2Explore(SPEC, members=1), "curiosity.members=1"),
        (lambda: MAX(SPEC, decay=2.0), "curiosity.decay=2.0"),
        (lambda: BYOLExplore(SPEC, horizon=0), "curiosity.horizon=0"),
        (lambda: AMA(SPEC, dim=2, blocks=-1), "curiosity.blocks=-1"),
    ],
)
def test_bad_input(build, words: str) -> None:
    with pytest.raises(ValueError, match=rf"{words}: allowed"):
        build()
