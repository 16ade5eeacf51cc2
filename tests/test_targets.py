"""Latent targets: where gradients flow, what each loss says, and that ranks agree."""

import inspect
from functools import partial
from math import log, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from gymnasium import spaces
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

import encoders
from worldmodel import targets
from worldmodel.targets.inverse import ActionHead
from worldmodel.targets.target import touched

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
VIEW = spaces.Box(0, 255, (7, 7, 3), np.uint8)
ACTS = spaces.Discrete(4)
B, L, D = 3, 5, 8


def views(*lead):
    return torch.stack([torch.randint(0, n, (*lead, 7, 7), dtype=torch.uint8) for n in (11, 6, 4)], -1)


def build(kind, make_encoder=None, obs_space=VIEW, act_space=ACTS, **options):
    """A target, with the main encoder that it goes with."""
    make = make_encoder or partial(encoders.Grid, dim=D)

    def fresh(**overrides):
        return make(obs_space, **overrides)

    encoder = fresh()
    known = dict(encoder=encoder, make_encoder=fresh, obs_space=obs_space, act_space=act_space)
    taken = inspect.signature(kind).parameters
    return encoder, kind(**{k: v for k, v in known.items() if k in taken}, **options)


def batch():
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, :2] = mask[1, 3] = False
    return views(B, L + 1), torch.randint(0, 4, (B, L)), mask


KINDS = {
    targets.Frozen: ({"dim": D}, []),
    targets.Inverse: ({"dim": D}, ["inverse"]),
    targets.EMA: ({}, []),
    targets.SIGReg: ({}, ["sigreg"]),
    targets.VICReg: ({}, ["variance", "covariance"]),
    targets.Reconstruction: ({}, ["reconstruction"]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spatial", [False, True])
def test_shapes_and_where_gradients_flow(kind, spatial):
    torch.manual_seed(0)
    options, names = KINDS[kind]
    encoder, target = build(kind, partial(encoders.Grid, dim=D, spatial=spatial), **options)
    obs, act, mask = batch()
    z = encoder(obs)
    y = target(obs, z)
    assert target.shape == ((D, 7, 7) if spatial else (D,)) and y.shape == (B, L + 1, *target.shape)
    assert y.requires_grad == (kind in (targets.SIGReg, targets.VICReg))

    losses = target.losses(obs, act, z, y, mask)
    assert list(losses) == names and all(x.shape == (B, L) and x.isfinite().all() for x in losses.values())
    if losses:
        sum(torch.where(mask, x, 0.0).sum() for x in losses.values()).backward()
        reached = any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
        assert reached == (kind is not targets.Inverse)
    trainable = [p for p in target.parameters() if p.requires_grad]
    assert bool(trainable) == (kind in (targets.Inverse, targets.Reconstruction))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trainable)
    owned = {id(p) for p in target.parameters()}
    assert not owned & {id(p) for p in encoder.parameters()}  # the main encoder is the world model's


def test_batch_losses_are_repeated_so_that_a_masked_mean_gives_them_back():
    for kind in (targets.SIGReg, targets.VICReg):
        encoder, target = build(kind)
        obs, act, mask = batch()
        z = encoder(obs)
        for x in target.losses(obs, act, z, z, mask).values():
            assert x.unique().numel() == 1


def test_frozen_features_stay_as_they_were():
    vit = dict(model_type="vit", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
               image_size=8, patch_size=4, hidden_dropout_prob=0.5)  # fmt: skip
    features = partial(encoders.Pretrained, backbone=vit, frozen=False, dim=99)
    for options, shape in (({}, VIEW), ({"features": features}, spaces.Box(0, 255, (32, 32, 3), np.uint8))):
        make = partial(encoders.Grid if shape is VIEW else encoders.Conv, dim=D)
        _, target = build(targets.Frozen, make, obs_space=shape, dim=6, **options)
        obs = views(B, L + 1) if shape is VIEW else torch.randint(0, 256, (B, L + 1, 32, 32, 3))
        before, y = {k: v.clone() for k, v in target.state_dict().items()}, target(obs, None)
        target.train()
        assert not any(m.training for m in target.features.modules())
        assert y.shape[-1] == 6 and torch.equal(target(obs, None), y)
        assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
        assert not any(p.requires_grad for p in target.parameters())


def test_random_features_are_orthogonal():
    _, target = build(targets.Frozen, dim=16)
    weight = target.features.net[0].weight  # (49 * 21, 16)
    torch.testing.assert_close(weight.T @ weight, 7 * torch.eye(16), atol=1e-4, rtol=0)


def test_ema_by_hand():
    encoder, target = build(targets.EMA, partial(encoders.MLP, dim=1, hidden=()), spaces.Box(-9, 9, (1,)), decay=0.9)
    with torch.no_grad():
        target.slow.net[0].weight.fill_(1.0)
        encoder.net[0].weight.fill_(2.0)
    target.update()
    assert target.slow.net[0].weight.item() == pytest.approx(1.1)  # .9 * 1 + .1 * 2
    target.update()
    assert target.slow.net[0].weight.item() == pytest.approx(1.19)
    assert not target.train().slow.training and encoder.net[0].weight.item() == 2.0

    with pytest.raises(ValueError, match=r"target\.decay=2"):
        targets.EMA(encoder, decay=2.0)
    with pytest.raises(ValueError, match=r"target\.normalise=l1"):
        targets.EMA(encoder, normalise="l1")


@pytest.mark.parametrize("spatial", [False, True])
def test_ema_of_unit_length(spatial):
    encoder, target = build(targets.EMA, partial(encoders.Grid, dim=D, spatial=spatial), normalise="l2")
    obs = views(B, L + 1)
    y = target(obs, encoder(obs))
    lengths = y.norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_touched_rows():
    mask = torch.tensor([[False, True, False, False, True, True]])
    assert touched(mask).tolist() == [[False, True, True, False, True, True, True]]


def test_sigreg_of_a_gaussian_and_of_a_collapsed_batch():
    torch.manual_seed(0)
    _, target = build(targets.SIGReg, directions=256)
    valid = torch.ones(1, 512, dtype=torch.bool)
    # E |phi_n - phi|^2 = (1 - phi^2) / n, integrated against exp(-t^2/2)
    expected = sqrt(2 * pi) * (1 - 1 / sqrt(3)) / 512
    seen = [float(target.statistic(torch.randn(1, 512, D), valid)) for _ in range(40)]
    assert np.mean(seen) == pytest.approx(expected, rel=0.15)
    gaussian = torch.randn(1, 512, D)
    # a point: integral of (1 - exp(-t^2/2))^2 exp(-t^2/2)
    collapsed = sqrt(2 * pi) * (1 - 2 / sqrt(2) + 1 / sqrt(3))
    assert float(target.statistic(torch.zeros(1, 512, D), valid)) == pytest.approx(collapsed, rel=0.03)
    one_missing = gaussian * (torch.arange(D) > 0)
    for worse in (one_missing, 3 * gaussian, gaussian + 1, gaussian[..., :1].expand(1, 512, D)):
        assert target.statistic(worse, valid) > 3 * expected
    # rows that aren't valid don't count
    half = torch.cat([gaussian, torch.full_like(gaussian, 50.0)], 1)
    torch.testing.assert_close(target.statistic(half, torch.cat([valid, ~valid], 1)), target.statistic(gaussian, valid))


def test_sigreg_revives_a_collapsed_batch():
    torch.manual_seed(0)
    _, target = build(targets.SIGReg)
    y = (0.01 * torch.randn(1, 128, D)).requires_grad_()
    optimiser = torch.optim.Adam([y], lr=0.03)
    valid = torch.ones(1, 128, dtype=torch.bool)
    for _ in range(150):
        optimiser.zero_grad()
        target.statistic(y, valid).backward()
        optimiser.step()
        target.update()
    assert 0.7 < targets.latent_std(y, valid) < 1.3 and targets.effective_rank(y, valid) > 7


def test_sigreg_draws_new_directions_and_remembers_where_it_was():
    _, target = build(targets.SIGReg, directions=4)
    _, twin = build(targets.SIGReg, directions=4)
    y, valid = torch.randn(1, 64, D), torch.ones(1, 64, dtype=torch.bool)
    before = target.statistic(y, valid)
    torch.randn(3)  # no matter where the global generator is
    assert target.statistic(y, valid) == before
    target.update()
    assert target.statistic(y, valid) != before
    twin.load_state_dict(target.state_dict())
    assert twin.statistic(y, valid) == target.statistic(y, valid)


def test_vicreg_by_hand():
    _, target = build(targets.VICReg)
    y = torch.tensor([[[1.0, 0.5], [-1.0, -0.5], [9.0, 9.0]]])
    valid = torch.tensor([[True, True, False]])
    variance, covariance = target.terms(y, valid)
    # variances 2 and .5, covariance 1
    assert variance.item() == pytest.approx((1 - sqrt(0.5 + 1e-4)) / 2, abs=1e-6)
    assert covariance.item() == pytest.approx(2 * 1.0 / 2)
    variance, covariance = target.terms(torch.full((1, 3, 2), 7.0), valid)
    assert variance.item() == pytest.approx(0.99) and covariance.item() == 0.0


def gradients(rows, mask, ranks):
    """Gradient of a linear encoder's weight under the sum of both regularisers; averaged over ranks, as DDP does."""
    torch.manual_seed(0)
    net = nn.Linear(rows.shape[-1], D)
    net.shape = (D,)
    z = net(rows)
    found = []
    for kind in (targets.SIGReg, targets.VICReg):
        for loss in kind(net).losses(None, None, z, z, mask).values():
            # what a masked mean over all ranks, averaged over ranks, makes of a repeated scalar
            total = mask.sum().float()
            if ranks > 1:
                torch.distributed.all_reduce(total)
            mean = torch.where(mask, loss, 0.0).sum() * ranks / total
            (grad,) = torch.autograd.grad(mean, net.weight, retain_graph=True)
            value = mean.detach()
            if ranks > 1:
                torch.distributed.all_reduce(grad)
                torch.distributed.all_reduce(value)
            found.append((value / ranks, grad / ranks))
    return found


def work(rank, store, rows, mask, out):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    found = gradients(rows[rank::2], mask[rank::2], 2)
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


def test_two_ranks_at_half_the_batch_agree_with_one(tmp_path):
    torch.manual_seed(1)
    rows = 0.5 + torch.randn(4, 7, 5)
    mask = torch.rand(4, 6) > 0.3
    mask[1] = False  # the ranks have different numbers of rows
    out = tmp_path / "gradients.pt"
    mp.spawn(work, args=(tmp_path / "store", rows, mask, out), nprocs=2)
    for (one, grad_one), (two, grad_two) in zip(gradients(rows, mask, 1), torch.load(out), strict=True):
        assert grad_one.abs().max() > 1e-5
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(grad_two, grad_one, rtol=1e-4, atol=1e-6)


def test_inverse_learns_an_action_that_can_be_seen():
    torch.manual_seed(0)
    space = spaces.Box(-1, 1, (4,))
    _, target = build(targets.Inverse, partial(encoders.MLP, hidden=(32,)), space, dim=D, hidden=32)
    optimiser = torch.optim.Adam(target.parameters(), lr=3e-3)

    def loss():
        act = torch.randint(0, 4, (16, 8))
        seen = torch.eye(4)[act]  # what the row after the action shows
        obs = torch.cat([torch.randn(16, 1, 4), seen], 1)
        mask = torch.ones(16, 8, dtype=torch.bool)
        return target.losses(obs, act, None, None, mask)["inverse"].mean()

    first = loss().item()
    assert first == pytest.approx(log(4), abs=0.3)
    for _ in range(150):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < 0.1


@pytest.mark.parametrize(
    "space, act, expected",
    [
        (spaces.Discrete(4, start=3), [[5, 0]], log(4)),
        (spaces.MultiDiscrete([2, 3]), [[[1, 2], [99, 99]]], log(2) + log(3)),
        (spaces.Box(np.array([0.0, -1.0]), np.array([4.0, 1.0])), [[[4.0, 0.0], [0.0, 0.0]]], 0.5),
        (spaces.Box(-np.inf, np.inf, (1,)), [[[3.0], [0.0]]], 9.0),
    ],
)
def test_action_losses_by_hand(space, act, expected):
    head = ActionHead(2, space, 4)
    nn.init.zeros_(head.net[-1].weight)
    nn.init.zeros_(head.net[-1].bias)
    loss = head.loss(torch.randn(1, 2, 2), torch.tensor(act), torch.tensor([[True, False]]))
    assert loss[0].tolist() == pytest.approx([expected, 0.0])


def test_inverse_refuses_other_actions():
    with pytest.raises(ValueError, match="target=inverse with act_space=MultiBinary"):
        ActionHead(2, spaces.MultiBinary(3), 4)


RECONSTRUCTED = {
    "grid": (partial(encoders.Grid, dim=D), VIEW),
    "pixels": (partial(encoders.Conv, dim=D), spaces.Box(0, 255, (36, 44, 3), np.uint8)),
    "tiny": (partial(encoders.Conv, dim=D), spaces.Box(0, 255, (3, 8, 8), np.uint8)),
    "vector": (partial(encoders.MLP, dim=D), spaces.Box(-1, 1, (3,))),
    "state": (partial(encoders.Discrete, dim=D), spaces.Discrete(5, start=1)),
    "dict": (partial(encoders.Dict, dim=D), spaces.Dict({"image": VIEW, "direction": spaces.Discrete(4)})),
}


@pytest.mark.parametrize("name", RECONSTRUCTED)
def test_reconstruction_of_every_kind_of_observation(name):
    torch.manual_seed(0)
    make, space = RECONSTRUCTED[name]
    encoder, target = build(targets.Reconstruction, make, space)
    if name == "dict":
        obs = {"image": views(B, L + 1), "direction": torch.randint(0, 4, (B, L + 1))}
    elif name == "grid":
        obs = views(B, L + 1)
    else:
        obs = torch.as_tensor(np.stack([space.sample() for _ in range(B * (L + 1))]))
        obs = obs.view(B, L + 1, *space.shape)
    mask = torch.ones(B, L, dtype=torch.bool)
    both = nn.ModuleList([encoder, target])
    optimiser = torch.optim.Adam(both.parameters(), lr=3e-3)
    seen = []
    for _ in range(30):
        z = encoder(obs)
        loss = target.losses(obs, None, z, z, mask)["reconstruction"]
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
        seen.append(float(loss.mean()))
    assert loss.shape == (B, L) and seen[-1] < 0.9 * seen[0]


def test_reconstruction_by_hand():
    encoder, target = build(targets.Reconstruction)
    (decoder,) = target.decoders.values()
    nn.init.zeros_(decoder.net[-1].weight)
    nn.init.zeros_(decoder.net[-1].bias)
    obs, act, mask = batch()
    loss = target.losses(obs, act, encoder(obs), None, mask)["reconstruction"]
    torch.testing.assert_close(loss, torch.full((B, L), log(11) + log(6) + log(4)))


def test_latent_std_by_hand():
    y = torch.tensor([[[1.0, 0.0], [-1.0, 0.0], [77.0, 77.0]]])
    mask = torch.tensor([[True, True, False]])
    assert targets.latent_std(y, mask).item() == pytest.approx((sqrt(2) + 0) / 2)
    assert targets.latent_std(torch.full((4, 5, 2), 0.3), torch.ones(4, 5).bool()).item() == pytest.approx(0, abs=1e-6)
    assert targets.latent_std(y, torch.zeros(1, 3).bool()).isnan()


def test_effective_rank_by_hand():
    ones = torch.ones(1, 8, dtype=torch.bool)
    cross = torch.cat([torch.eye(4), -torch.eye(4)])[None]  # isotropic in 4 of 6 dimensions
    cross = nn.functional.pad(cross, (0, 2))
    assert targets.effective_rank(5 + cross, ones).item() == pytest.approx(4, rel=1e-4)
    assert targets.effective_rank(cross.view(1, 8, 2, 3, 1), ones).item() == pytest.approx(4, rel=1e-4)
    line = torch.arange(8.0)[None, :, None] * torch.tensor([1.0, 2.0, 3.0])
    assert targets.effective_rank(line, ones).item() == pytest.approx(1, abs=1e-3)
    uneven = cross * torch.tensor([3.0, 1, 0, 0, 0, 0])  # singular values 3 : 1
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25))
    assert targets.effective_rank(uneven, ones).item() == pytest.approx(np.exp(entropy), rel=1e-4)
    assert targets.effective_rank(torch.full((1, 8, 3), 0.1), ones).item() == 1.0
    assert targets.effective_rank(cross, torch.zeros_like(ones)).isnan()
    torch.manual_seed(0)
    many = torch.randn(10, 1000, 16)
    assert targets.effective_rank(many, torch.ones(10, 1000).bool()).item() > 15


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "target").glob("*.yaml")))
def test_configs_name_every_option(name):
    with initialize_config_dir(str(CONFIGS), version_base=None):
        node = compose(overrides=[f"+target={name}"]).target
    make = instantiate(node)
    known = {"encoder", "make_encoder", "obs_space", "act_space"}
    assert set(make.keywords) == set(inspect.signature(make.func).parameters) - known
    options = dict(make.keywords)
    if name == "pretrained":
        assert options["features"].keywords["dim"] == 64
        options["features"] = encoders.Grid  # no download in a test
    encoder, target = build(make.func, **options)
    obs, act, mask = batch()
    y = target(obs, encoder(obs))
    assert y.shape == (B, L + 1, *target.shape)
    target.losses(obs, act, encoder(obs), y, mask)
    target.update()
