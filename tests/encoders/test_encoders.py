"""Encoders: output shapes for each space, orthogonal weights, gradients, and errors."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import encoders
from encoders.table import Table

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
VIEW = spaces.Box(0, 255, (7, 7, 3), np.uint8)
PIXELS = {
    "hwc": spaces.Box(0, 255, (64, 48, 3), np.uint8),
    "stack": spaces.Box(0, 255, (4, 84, 84), np.uint8),
    "grey": spaces.Box(0, 255, (40, 40), np.uint8),
    "tiny": VIEW,
    "tiny_chw": spaces.Box(0, 1, (3, 9, 9), np.float32),
    "mid": spaces.Box(0, 255, (20, 20, 1), np.uint8),
}
VIT = dict(model_type="vit", hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
           image_size=16, patch_size=4)  # fmt: skip
RESNET = dict(model_type="resnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
FEW = {"small": dict(backbone=VIT), "res": dict(backbone=RESNET)}


def sample(space: gym.Space, *lead: int):
    """Observations of a space, as tensors with leading dimensions; symbolic views hold codes of MiniGrid."""
    if isinstance(space, spaces.Dict):
        return {k: sample(s, *lead) for k, s in space.items()}
    if space is VIEW:
        codes = [torch.randint(0, n, (*lead, 7, 7), dtype=torch.uint8) for n in (11, 6, 4)]
        return torch.stack(codes, -1)
    flat = np.stack([space.sample() for _ in range(max(1, int(np.prod(lead))))])
    return torch.as_tensor(flat)[: int(np.prod(lead))].reshape(*lead, *space.shape)


def cases():
    for name, space in PIXELS.items():
        for spatial in (False, True):
            yield pytest.param(encoders.Conv, space, dict(spatial=spatial), id=f"conv-{name}-{spatial}")
            yield pytest.param(encoders.ResNet, space, dict(spatial=spatial), id=f"resnet-{name}-{spatial}")
    for i, options in enumerate(
        [{}, {"hidden": (8,)}, {"channels": (4, 8)}, {"spatial": True}, {"channels": (4,), "spatial": True}]
    ):
        yield pytest.param(encoders.Grid, VIEW, options, id=f"grid-{i}")
    yield pytest.param(encoders.MLP, spaces.Box(-np.inf, np.inf, (5,), np.float32), {}, id="mlp")
    yield pytest.param(encoders.MLP, spaces.Box(0, 1, (2, 3), np.float64), {"symlog": False}, id="mlp-2d")
    yield pytest.param(encoders.MLP, spaces.MultiBinary(4), {"hidden": ()}, id="mlp-binary")
    yield pytest.param(encoders.Discrete, spaces.Discrete(6, start=2), {}, id="discrete")
    yield pytest.param(encoders.Discrete, spaces.MultiDiscrete([3, 4]), {}, id="multidiscrete")
    both = spaces.Dict({"image": VIEW, "direction": spaces.Discrete(4), "v": spaces.Box(-1, 1, (3,))})
    yield pytest.param(encoders.Dict, both, {}, id="dict")
    for name, options in FEW.items():
        for spatial in (False, True):
            space = PIXELS["hwc"] if spatial else PIXELS["grey"]
            options = options | dict(spatial=spatial)
            yield pytest.param(encoders.Pretrained, space, options, id=f"pretrained-{name}-{spatial}")


@pytest.mark.parametrize("make, space, options", cases())
def test_shapes_gradients_and_leading_dimensions(make, space, options):
    torch.manual_seed(0)
    encoder = make(space, dim=12, **options).eval()
    assert isinstance(encoder, encoders.Encoder)
    assert encoder.shape[0] == 12 and len(encoder.shape) == (3 if options.get("spatial") else 1)

    obs = sample(space, 2, 3)
    first = encoders.Dict if isinstance(space, spaces.Dict) else None
    row = {k: v[1, 2] for k, v in obs.items()} if first else obs[1, 2]
    z = encoder(obs)
    assert z.shape == (2, 3, *encoder.shape) and z.dtype == torch.float32 and z.isfinite().all()
    torch.testing.assert_close(encoder(row), z[1, 2], rtol=1e-4, atol=1e-5)  # no leading dimension at all
    empty = {k: v[:, :0] for k, v in obs.items()} if first else obs[:, :0]
    assert encoder(empty).shape == (2, 0, *encoder.shape)

    z.square().sum().backward()
    learnt = {k: p for k, p in encoder.named_parameters() if p.requires_grad}
    assert learnt and all(p.grad is not None and p.grad.isfinite().all() for p in learnt.values())
    assert any(p.grad.abs().sum() > 0 for p in learnt.values())


def test_pixels_of_both_layouts_agree():
    chw = encoders.Conv(spaces.Box(0, 255, (3, 64, 48), np.uint8), dim=8)
    hwc = encoders.Conv(PIXELS["hwc"], dim=8)
    hwc.load_state_dict(chw.state_dict())
    image = sample(PIXELS["hwc"], 2)
    torch.testing.assert_close(hwc(image), chw(image.movedim(-1, -3)), rtol=1e-4, atol=1e-5)
    assert encoders.Conv(spaces.Box(0, 255, (7, 7, 12), np.uint8)).image == (12, 7, 7)  # four stacked views
    assert hwc.normalise(torch.full((64, 48, 3), 51)).unique().tolist() == pytest.approx([0.2])


def test_table_equals_its_one_hot_matrix_and_gradient():
    torch.manual_seed(0)
    sizes = [3, 2, 5]
    table = Table(sizes, 4, "grid")
    torch.nn.init.normal_(table.bias)
    codes = torch.stack([torch.randint(0, n, (50,)) for n in sizes], 1)
    hot = torch.cat([torch.nn.functional.one_hot(c, n) for c, n in zip(codes.T, sizes, strict=True)], 1).float()
    out = table(codes.to(torch.uint8))
    torch.testing.assert_close(out, hot @ table.weight + table.bias)
    grad = torch.randn(50, 4)
    out.backward(grad)
    torch.testing.assert_close(table.weight.grad, hot.T @ grad)
    torch.testing.assert_close(table.bias.grad, grad.sum(0))


def test_grid_distinguishes_every_channel_of_every_cell():
    torch.manual_seed(0)
    for options in ({}, {"channels": (8,)}, {"spatial": True}):
        encoder = encoders.Grid(VIEW, dim=16, **options)
        blank = torch.zeros(7, 7, 3, dtype=torch.uint8)
        seen = [encoder(blank)]
        for cell in ((0, 0), (3, 6)):
            for channel, n in enumerate((11, 6, 4)):
                view = blank.clone()
                view[*cell, channel] = n - 1
                seen.append(encoder(view))
        gaps = torch.pdist(torch.stack(seen).flatten(1))
        assert gaps.min() > 1e-3, options


def test_a_spatial_grid_changes_only_around_the_changed_cell():
    encoder = encoders.Grid(VIEW, dim=8, channels=(8, 8), spatial=True)
    before = sample(VIEW)
    after = before.clone()
    after[0, 0, 0] = (after[0, 0, 0] + 1) % 11
    changed = (encoder(after) - encoder(before)).abs().sum(0) > 0
    assert changed[0, 0] and not changed[3:].any() and not changed[:, 3:].any()  # two 3x3 layers reach two cells


@pytest.mark.parametrize("bad", [-1, 11])
def test_grid_refuses_unknown_codes(bad):
    view = torch.zeros(2, 7, 7, 3, dtype=torch.int64)
    view[1, 2, 3, 0] = bad
    for options in ({}, {"spatial": True}):
        with pytest.raises(ValueError, match=f"num_values allows 0 to 10, an observation holds {bad}"):
            encoders.Grid(VIEW, dim=8, **options)(view)


def test_orthogonal_initialisation():
    encoder = encoders.MLP(spaces.Box(-1, 1, (6,)), dim=8, hidden=(16,))
    first, last = encoder.net[0], encoder.net[-1]
    torch.testing.assert_close(first.weight.T @ first.weight, 2 * torch.eye(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(last.weight @ last.weight.T, torch.eye(8), atol=1e-5, rtol=0)
    kernel = encoders.Conv(PIXELS["hwc"]).body[0].weight.flatten(1)
    torch.testing.assert_close(kernel @ kernel.T, 2 * torch.eye(32), atol=1e-5, rtol=0)
    rows = encoders.Discrete(spaces.Discrete(5), dim=16).table.weight
    torch.testing.assert_close(rows @ rows.T, 16 * torch.eye(5), atol=1e-4, rtol=0)
    z = encoders.Grid(VIEW)(sample(VIEW, 256))
    assert 0.8 < z.square().mean() < 1.2


def test_symlog_squashes():
    encoder = encoders.MLP(spaces.Box(-np.inf, np.inf, (2,)))
    torch.testing.assert_close(
        encoder.normalise(torch.tensor([0.0, 1 - np.e])), torch.tensor([0.0, -1.0]), check_dtype=False
    )


@pytest.mark.parametrize(
    "make, space, words",
    [
        (encoders.Conv, spaces.Discrete(3), "encoder=conv with space=Discrete(3)"),
        (encoders.ResNet, spaces.Box(-1, 1, (4,)), "encoder=resnet with space=Box("),
        (encoders.Grid, PIXELS["stack"], "encoder=grid with space=Box("),
        (encoders.Grid, spaces.Box(0, 1, (7, 7, 3), np.float32), "encoder=grid with space=Box("),
        (encoders.MLP, spaces.Discrete(3), "encoder=mlp with space=Discrete(3)"),
        (encoders.Discrete, spaces.Box(-1, 1, (4,)), "encoder=discrete with space=Box("),
        (encoders.Dict, VIEW, "encoder=dict with space=Box("),
        (encoders.Dict, spaces.Dict({"text": spaces.Text(5)}), "encoder=auto with space=Text("),
        (partial(encoders.Pretrained, backbone=VIT), PIXELS["stack"], "encoder=pretrained with 4 image channels"),
        (partial(encoders.Conv, layers=[(8, 8, 4)]), VIEW, "encoder=conv with an image of 7x7"),
        (partial(encoders.Grid, channels=(4,) * 7), VIEW, "encoder.channels="),
        (partial(encoders.Grid, spatial=True, hidden=(4,)), VIEW, "encoder.hidden="),
        (partial(encoders.Dict, parts={"x": encoders.MLP}), spaces.Dict({"y": VIEW}), "encoder.parts.x: no such key"),
    ],
)  # fmt: skip
def test_a_space_that_does_not_suit_is_refused_in_one_line(make, space, words):
    with pytest.raises(ValueError) as error:
        make(space)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_dict_builds_its_parts():
    space = spaces.Dict({"image": VIEW, "vector": spaces.Box(-1, 1, (3,)), "pixels": PIXELS["hwc"]})
    encoder = encoders.Dict(space, dim=8, parts={"image": partial(encoders.Grid, dim=4, spatial=True)})
    kinds = {k: type(p) for k, p in encoder.parts.items()}
    assert kinds == {"image": encoders.Grid, "vector": encoders.MLP, "pixels": encoders.Conv}
    assert encoder.head.in_features == 4 * 49 + 8 + 8
    obs = sample(space, 3)
    z = encoder(obs)
    for key in obs:  # every key is heard
        changed = encoder(obs | {key: torch.zeros_like(obs[key])})
        assert not torch.allclose(changed, z)


@pytest.mark.parametrize("name", FEW)
def test_a_frozen_backbone_never_learns_and_never_trains(name):
    encoder = encoders.Pretrained(PIXELS["hwc"], dim=8, frozen=True, **FEW[name])
    assert not encoder.train().body.model.training
    obs = sample(PIXELS["hwc"], 4)
    z = encoder(obs)
    z.sum().backward()
    assert all(p.grad is None for p in encoder.body.parameters())
    assert all(p.grad is not None for p in encoder.head.parameters())
    assert torch.equal(encoder(obs), z)  # no batch statistics moved

    free = encoders.Pretrained(PIXELS["hwc"], dim=8, frozen=False, **FEW[name])
    free(obs).sum().backward()
    learnt = [p for p in free.body.parameters() if p.requires_grad]
    assert free.body.model.training and learnt and all(p.grad is not None for p in learnt)


@pytest.mark.parametrize("name", FEW)
def test_the_latent_of_a_row_does_not_depend_on_other_rows(name):
    encoder = encoders.Pretrained(PIXELS["hwc"], dim=8, frozen=False, **FEW[name]).train()
    obs = sample(PIXELS["hwc"], 4)
    before, other = encoder(obs), obs.clone()
    other[1:] = 255 - other[1:]
    after = encoder(other)
    torch.testing.assert_close(after[0], before[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(after[1:], before[1:], atol=1e-3)


def test_pretrained_loads_a_folder_with_its_preprocessing(tmp_path):
    from transformers import AutoConfig, AutoModel

    options = dict(VIT)
    model = AutoModel.from_config(AutoConfig.for_model(options.pop("model_type"), **options))
    model.save_pretrained(tmp_path)
    encoder = encoders.Pretrained(PIXELS["hwc"], dim=4, backbone=str(tmp_path))
    assert encoder.body.mean.flatten().tolist() == [0.5] * 3 and encoder.body.size == 16
    torch.testing.assert_close(
        encoder.body.model.state_dict()["layernorm.weight"], model.state_dict()["layernorm.weight"]
    )
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "size": {"height": 16, "width": 16}})
    )
    encoder = encoders.Pretrained(PIXELS["hwc"], dim=4, backbone=str(tmp_path))
    assert encoder.body.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.body.std.flatten().tolist() == [1, 2, 3]


def test_tokens_become_the_map_that_they_came_from():
    encoder = encoders.Pretrained(PIXELS["hwc"], dim=4, backbone=VIT, spatial=True)
    assert encoder.shape == (4, 4, 4)
    tokens = torch.arange(17.0)[None, :, None]  # one class token, 4 x 4 patches
    assert encoder.body._map(tokens)[0, 0].tolist() == (torch.arange(16.0).view(4, 4) + 1).tolist()


def test_importing_encoders_is_light_and_alone():
    code = "import sys, encoders; print({'transformers', 'worldmodel'} & sys.modules.keys())"
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, cwd=CONFIGS.parent, check=True).stdout
    assert out.strip() == "set()"


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONFIGS / "encoder").glob("*.yaml")))
def test_configs_name_every_option(name):
    import inspect

    with initialize_config_dir(str(CONFIGS), version_base=None):
        node = compose(overrides=[f"+encoder={name}"]).encoder
    make = instantiate(node)
    options = set(inspect.signature(make.func).parameters) - {"space"}
    assert set(make.keywords) == options
    suited = {"grid": VIEW, "mlp": spaces.Box(-1, 1, (3,)), "discrete": spaces.Discrete(3)}
    suited["dict"] = spaces.Dict({"a": spaces.Discrete(3)})
    space = suited.get(name, PIXELS["hwc"])
    if name == "pretrained":
        make = partial(make, backbone=VIT)
    assert make(space)(sample(space, 2)).shape == (2, 128)
