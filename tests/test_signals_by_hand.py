"""Rewards and losses of the learnt signals on transitions small enough to compute by hand."""

from __future__ import annotations

from math import e, exp, log, pi, sqrt

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch import Tensor, nn
from torch.nn import functional as F

from encoders import Conv, Grid
from encoders import Dict as DictEncoder
from worldmodel.actions import ActionCode
from worldmodel.curiosity import (
    AMA,
    ICM,
    MAX,
    RND,
    BYOLExplore,
    CuriosityCritic,
    Disagreement,
    LearningProgress,
    Plan2Explore,
    RandomFeatureError,
)
from worldmodel.curiosity.ensemble import Ensemble, EnsembleLinear
from worldmodel.curiosity.features import Flat
from worldmodel.curiosity.forward_model import ForwardModel
from worldmodel.curiosity.max import jensen_renyi
from worldmodel.curiosity.whitening import Whitening
from worldmodel.heads import bound_logvar
from worldmodel.types import Rollout
from worldmodel.world_model import Outputs

PLANE, ACTS = Box(-10, 10, (2,), np.float32), Discrete(4)
OBS = [[0.0, 0.0], [1.0, 2.0], [9.0, 2.0]]  # two transitions
WHITE = torch.tensor([[[-1.0, -1.0], [1.0, 1.0], [5.0, 1.0]]])  # by the first two rows; 17 is cut to 5


class Same(nn.Module):
    """An encoder of the plane that does nothing, and that nothing is learnt by."""

    shape = (2,)

    def __init__(self, space: Box = PLANE, dim: int = 2):
        super().__init__()
        self.space = space

    def forward(self, obs: Tensor) -> Tensor:
        return obs.float()


class Stub(nn.Module):
    """A network that is a function."""

    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args):
        return self.fn(*args)


def rollout(obs: list, act: list, mask: list | None = None, new: int | None = None) -> Rollout:
    """One sequence: its rows of observations, actions (of all rows but the last) and masks (the same)."""
    rows = len(obs)
    mask = torch.tensor([[*(mask or [True] * (rows - 1)), False]])
    started = F.pad(~mask[:, :-1], (1, 0)).long()  # a masked row is the last one of its episode
    return Rollout(
        obs=torch.tensor([obs]),
        act=torch.tensor([[*act, 0]]),
        episode=started.cumsum(1),
        valid=torch.ones(1, rows, dtype=torch.bool),
        mask=mask,
        rew_ext=torch.zeros(1, rows),
        end=~mask,
        trunc=torch.zeros(1, rows, dtype=torch.bool),
        logp=torch.zeros(1, new or rows - 1),
    )


def outputs(y: list, error: list | None = None) -> Outputs:
    """What the world model made of it: latents (1, T+1, D) and errors (1, T, D); h is zero and of width 3."""
    y = torch.tensor([y])
    h = torch.zeros(1, y.shape[1] - 1, 3)
    return Outputs(y, y, h, None, None if error is None else torch.tensor([error]), None, None)


ROLL = rollout(OBS, [1, 0])
SIZES = {"make_encoder": Same, "obs_space": PLANE, "encoder": Same(), "dim": 2}


def shift(phi: Tensor, act: Tensor) -> Tensor:
    """phi moved by the action, as one forward model of an ensemble."""
    return (phi + act[..., None])[None]


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


def test_a_forward_model_sees_the_action_in_every_layer() -> None:
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
    whitening = Whitening(PLANE, Same())
    whitening.update(ROLL)  # the closing row is the first of the next rollout
    torch.testing.assert_close(whitening(ROLL.obs), WHITE)
    late = rollout([[50.0, 50.0], *OBS], [0, 1, 0], new=2)  # context was taken in before
    whitening = Whitening(PLANE, Same())
    whitening.update(late)
    torch.testing.assert_close(whitening(ROLL.obs), WHITE)


def test_only_numbers_are_whitened() -> None:
    view, image = Box(0, 255, (7, 7, 3), np.uint8), Box(0, 255, (40, 40, 3), np.uint8)
    cells = Whitening(view, Grid(view))
    assert cells.space == view and not list(cells.moments)
    assert Conv(Whitening(image, Conv(image)).space, dim=4)(torch.randn(2, 40, 40, 3)).shape == (2, 4)
    space = Dict({"pos": PLANE, "dir": Discrete(4), "view": view})
    mixed = Whitening(space, DictEncoder(space))
    assert list(mixed.moments) == ["of_pos"] and mixed.space["view"] == view and mixed.space["dir"] == Discrete(4)
    obs = {"pos": torch.tensor([[100.0, 2.0]]), "dir": torch.tensor([3]), "view": torch.zeros(1, 7, 7, 3)}
    assert mixed(obs)["pos"].tolist() == [[5.0, 2.0]] and mixed(obs)["dir"] is obs["dir"]


def test_rnd() -> None:
    signal = RND(**SIZES)
    signal.distillation.predictor = Stub(lambda x: 2 * x)
    signal.distillation.target = Stub(lambda x: x)
    expected = torch.tensor([[1.0, 13.0]])  # of where a transition led: (1 + 1) / 2, (25 + 1) / 2
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    torch.testing.assert_close(signal.losses(ROLL, None)["rnd"], expected)
    signal.proportion = 0.25
    torch.manual_seed(0)
    drawn = torch.stack([signal.losses(ROLL, None)["rnd"] for _ in range(2000)])
    assert set(drawn.unique().tolist()) == {0.0, 4.0, 52.0}
    torch.testing.assert_close(drawn.mean(0), expected, rtol=0.1, atol=0.0)


def test_rnd_agrees_with_torchrl() -> None:
    theirs = pytest.importorskip("torchrl.objectives.rnd")
    from tensordict import TensorDict
    from torchrl.envs.transforms.rnd import RunningMeanStd

    torch.manual_seed(0)
    signal, roll = RND(**(SIZES | {"dim": 16})), rollout(torch.randn(33, 2).tolist(), [0] * 32)
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
    signal = ICM(make_encoder=Same, act_space=ACTS, dim=2)
    signal.model = Stub(shift)
    for layer in signal.features.head.net[::2]:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    expected = torch.tensor([[0.5, 32.0]])  # (1, 1) - (1, 2) and (1, 2) - (9, 2)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    losses = signal.losses(ROLL, None)
    torch.testing.assert_close(losses["icm_forward"], 0.2 * expected)
    torch.testing.assert_close(losses["icm_inverse"], torch.full((1, 2), 0.8 * log(4)))


def test_the_forward_loss_of_icm_shapes_the_features_unless_told_otherwise() -> None:
    for stop in (False, True):
        signal = ICM(make_encoder=Same, act_space=ACTS, dim=2, stop_gradient=stop)
        signal.features.features = nn.Linear(2, 2)
        signal.losses(ROLL, None)["icm_forward"].sum().backward()
        assert (signal.features.features.weight.grad is None) == stop


def test_random_features() -> None:
    signal = RandomFeatureError(**SIZES, act_space=ACTS)
    signal.model = Stub(shift)
    expected = torch.tensor([[(1.0 + 1) / 2, (16.0 + 0) / 2]])  # (0, 0) - (1, 1) and (1, 1) - (5, 1)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    torch.testing.assert_close(signal.losses(ROLL, None)["random_features"], expected)
    signal.features.scale.var.fill_(4.0)  # in units of a standard deviation of 2
    torch.testing.assert_close(signal.losses(rollout(OBS, [0, 0]), None)["random_features"], torch.tensor([[1.0, 2.0]]))


def test_disagreement() -> None:
    signal = Disagreement(**SIZES, act_space=ACTS, members=2, drop=0.0)
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
    signal = MAX((1,), ACTS, members=2, hidden=4)
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


def test_max_keeps_its_variances_within_bounds() -> None:
    signal = MAX((1,), ACTS, members=2, hidden=4)
    bias = signal.ensemble.layers[-1].bias
    nn.init.constant_(bias, 1e3)
    for sign, bound in ((1, -1.0), (-1, -5.0)):
        bias.data.abs_().mul_(sign)
        _, logvar = signal.predict(torch.zeros(1, 1, 1), torch.zeros(1, 1, dtype=torch.long))
        torch.testing.assert_close(logvar, torch.full((2, 1, 1, 1), bound))


def test_plan2explore() -> None:
    signal = Plan2Explore(3, (2,), ACTS, members=2, hidden=4)
    signal.predict = lambda h, y, act: torch.stack([y, y + torch.tensor([2.0, 4.0]) * act[..., None]])
    out = outputs([[0.0, 0.0], [1.0, 1.0], [1.0, 3.0]])
    # halved: (1 + 1) / 2 and (1 + 9) / 2; (0 + 4) / 2 twice
    torch.testing.assert_close(signal.losses(ROLL, out)["plan2explore"], torch.tensor([[3.0, 2.0]]))
    torch.testing.assert_close(signal.reward(ROLL, out), torch.tensor([[1.5, 0.0]]))  # std 1 and 2
    # learnt in units of the latent's own spread, which the reward has taken in: mean (.5, .5), std (.5, .5)
    signal.predict = lambda h, y, act: torch.zeros(2, 1, 2, 2)
    torch.testing.assert_close(signal.losses(ROLL, out)["plan2explore"], torch.tensor([[1.0, (1 + 25) / 2]]))


def test_ama() -> None:
    signal = AMA(**SIZES, act_space=ACTS, eta=0.5)
    signal.model = Stub(lambda phi, act: torch.cat([shift(phi, act), torch.zeros_like(phi)[None]], -1))
    logvar = float(bound_logvar(torch.zeros(())))
    expected = torch.tensor([[2.0, 16.0]]) - 0.5 * 2 * exp(logvar)
    torch.testing.assert_close(signal.reward(ROLL, None), expected)
    loss = 0.5 * (torch.tensor([[1.0, 8.0]]) * exp(-logvar) + logvar)
    torch.testing.assert_close(signal.losses(ROLL, None)["ama"], loss)


def test_curiosity_critic() -> None:
    signal = CuriosityCritic(3, (2,), ACTS, hidden=4)
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
    signal = LearningProgress(**SIZES, act_space=ACTS)
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
    ("horizon", "new", "mask", "seen"),
    [
        (3, 3, [1, 1, 1, 1, 1], [3, 3, 3]),  # context foresees the first ones, too
        (1, 3, [1, 1, 1, 1, 1], [1, 1, 1]),
        (3, 5, [1, 1, 1, 1, 1], [1, 2, 3, 3, 3]),  # nothing comes before the window
        (9, 3, [1, 1, 1, 1, 1], [3, 4, 5]),
        (3, 3, [1, 1, 1, 0, 1], [3, 0, 1]),  # and nothing is foreseen over a reset
    ],
)
def test_byol_explore_counts_what_led_there(horizon: int, new: int, mask: list, seen: list) -> None:
    signal = BYOLExplore(make_encoder=Same, act_space=ACTS, dim=2, hidden=4, horizon=horizon)
    signal.predictor = Stub(lambda x: x.new_tensor([3.0, 0.0]).expand(*x.shape[:-1], 2))
    signal.slow = Stub(lambda obs: torch.tensor([0.0, 5.0]).expand_as(obs))  # at right angles: each error is 2
    roll = rollout(torch.randn(6, 2).tolist(), [0, 1, 2, 3, 0], [bool(x) for x in mask], new)
    torch.testing.assert_close(signal.errors(roll), 2.0 * torch.tensor([seen]))
    torch.testing.assert_close(signal.losses(roll, None)["byol_explore"], 2.0 * torch.tensor([seen]) / horizon)


def test_byol_explore_one_prediction_at_a_time() -> None:
    torch.manual_seed(0)
    signal = BYOLExplore(make_encoder=Same, act_space=ACTS, dim=2, hidden=4, horizon=3)
    mask = [True, True, False, True, True, True, True]
    roll = rollout(torch.randn(8, 2).tolist(), [0, 3, 1, 2, 0, 1, 3], mask, 5)
    obs, act, code = roll.obs[0], roll.act[0], signal.code(roll.act)[0]
    (gru,) = signal.belief.cells
    expected = [0.0] * 7
    for start in range(7):
        first = 3 if start >= 3 else 0  # of its episode
        hidden = None
        for t in range(first, start + 1):  # the belief
            before = code[t - 1] if t > first else torch.zeros(4)
            hidden = gru(signal.token(torch.cat([obs[t], before]))[None], hidden)[1]
        state = hidden
        for k in range(3):
            if start + k > 6 or not all(mask[start : start + k + 1]):
                break
            state = signal.ahead(code[start + k][None], state)
            one, other = signal.predictor(state)[0], obs[start + k + 1]
            expected[start + k] += float((one / one.norm() - other / other.norm()).square().sum().detach())
    assert int(act[-1]) == 0 and expected[2] == 0
    torch.testing.assert_close(signal.errors(roll), torch.tensor([expected[2:]]), rtol=1e-4, atol=1e-5)


def test_byol_explore_pays_what_is_above_the_average() -> None:
    signal = BYOLExplore(make_encoder=Same, act_space=ACTS, dim=2, hidden=4)
    seen = iter([torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 5.0]])])
    signal.errors = lambda roll: next(seen)
    torch.testing.assert_close(signal.reward(ROLL, None), torch.tensor([[0.0, 1.0]]))  # std 1, mean 2
    old, new = 0.7 / 1.7, 1 / 1.7  # weights of the two rollouts
    std = sqrt(5 * old + 25 * new - (2 * old + 5 * new) ** 2)
    level = 2 * old + 5 / std * new
    torch.testing.assert_close(signal.reward(ROLL, None), torch.full((1, 2), 5 / std - level), rtol=1e-4, atol=1e-4)


def test_the_slow_copy_of_byol_explore_follows() -> None:
    signal = BYOLExplore(make_encoder=lambda dim: Line(), act_space=ACTS, dim=2, hidden=4, decay=0.75)
    signal.encoder.encoder.weight.data.fill_(4.0)
    signal.update()
    assert float(signal.slow.net.encoder.weight.detach()) == 0.75 * 0.0 + 0.25 * 4.0
    assert isinstance(signal.slow.net, Flat) and not signal.slow.net.training


class Line(Same):
    """An encoder with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: RND(**SIZES, proportion=0.0), "curiosity.proportion=0.0"),
        (lambda: Disagreement(**SIZES, act_space=ACTS, members=1), "curiosity.members=1"),
        (lambda: Disagreement(**SIZES, act_space=ACTS, drop=1.0), "curiosity.drop=1.0"),
        (lambda: Plan2Explore(3, (2,), ACTS, members=1), "curiosity.members=1"),
        (lambda: MAX((2,), ACTS, decay=2.0), "curiosity.decay=2.0"),
        (lambda: BYOLExplore(Same, ACTS, horizon=0), "curiosity.horizon=0"),
        (lambda: AMA(**SIZES, act_space=ACTS, blocks=-1), "curiosity.blocks=-1"),
    ],
)
def test_bad_input(build, words: str) -> None:
    with pytest.raises(ValueError, match=rf"{words}: allowed"):
        build()
