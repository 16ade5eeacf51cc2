"""Memories: causality, isolation of episodes, and equal h step by step and in one pass."""

from pathlib import Path

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch.nn import functional as F

from worldmodel.model.memory import GRU, MLP, HuggingFace, Memory, Transformer
from worldmodel.model.memory import linear as linear_module
from worldmodel.model.memory.attention import Attention, rotate, rotations
from worldmodel.model.memory.linear import Linear
from worldmodel.model.memory.mask import additive, block_mask, visible

DIM, N, K, T = 32, 3, 5, 9
L = K + T
MAKERS = {
    "transformer": lambda: Transformer(DIM, depth=2, heads=4),
    "multihead": lambda: Transformer(DIM, depth=2, heads=4, kv_heads=4),
    "grouped": lambda: Transformer(DIM, depth=2, heads=4, kv_heads=2, activation="silu"),
    "learned": lambda: Transformer(DIM, depth=2, heads=2, position="learned", max_length=64, activation="relu"),
    "gru": lambda: GRU(DIM, depth=2),
    "mlp": lambda: MLP(DIM, depth=2),
    "gpt2": lambda: HuggingFace(DIM, depth=2, heads=4, options={"attn_pdrop": 0, "resid_pdrop": 0, "embd_pdrop": 0}),
    "llama": lambda: HuggingFace(DIM, depth=2, heads=4, model_type="llama", options={"intermediate_size": 64}),
}


@pytest.fixture(params=MAKERS)
def memory(request) -> Memory:
    torch.manual_seed(0)
    return MAKERS[request.param]()


def window(rows: int = L) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, episode, valid: one long episode, one with resets on both sides of the K boundary, one that begins late."""
    torch.manual_seed(1)
    x = torch.randn(N, rows, DIM)
    episode = torch.zeros(N, rows, dtype=torch.long)
    episode[1] = torch.tensor([3, 3, 3, 4, 4, 4, 4, 5, 6, 6, 6, 6, 6, 6])[:rows]
    valid = torch.ones(N, rows, dtype=torch.bool)
    valid[2, : K + 2] = False
    return x, episode, valid


def act(memory: Memory, x, episode, valid, context: int) -> torch.Tensor:
    """h (N, L, D) step by step, as while acting."""
    first, state = memory.prefill(x[:, :context], episode[:, :context], valid[:, :context], x.shape[1])
    steps = [memory.step(x[:, t], episode[:, t], valid[:, t], state) for t in range(context, x.shape[1])]
    return torch.cat([first, torch.stack(steps, 1)], 1)


def test_causality(memory):
    x, episode, valid = window()
    before = memory(x, episode, valid)
    for t in range(L):
        changed = x.clone()
        changed[:, t] *= -1  # a norm would hide a shift
        after = memory(changed, episode, valid)
        torch.testing.assert_close(after[:, :t], before[:, :t], atol=1e-6, rtol=0)
        assert (after[:, t] - before[:, t]).abs().amax(1)[valid[:, t]].min() > 1e-3
        if t + 1 < L and not isinstance(memory, MLP):
            assert (after[0, t + 1] - before[0, t + 1]).abs().max() > 1e-5


def test_isolation(memory):
    x, episode, valid = window()
    before = memory(x, episode, valid)
    for other in (3, 4, 5, 6):
        changed = torch.where((episode == other)[..., None], -x, x)
        after = memory(changed, episode, valid)
        torch.testing.assert_close(after[episode != other], before[episode != other], atol=1e-6, rtol=0)


def test_invalid_rows_change_nothing(memory):
    x, episode, valid = window()
    valid[0, 6] = False
    before = memory(x, episode, valid)
    after = memory(torch.where(valid[..., None], x, -x), episode, valid)
    torch.testing.assert_close(after[valid], before[valid], atol=1e-6, rtol=0)


@pytest.mark.parametrize("left, right", [(4, 0), (0, 4), (3, 2)])
@pytest.mark.parametrize("label", [0, 99])
def test_padding(memory, left, right, label):
    x, episode, valid = window()
    before = memory(x, episode, valid)

    def pad(rows: torch.Tensor, value: float) -> torch.Tensor:
        sides = [torch.full((N, n, *rows.shape[2:]), value).to(rows.dtype) for n in (left, right)]
        return torch.cat([sides[0], rows, sides[1]], 1)

    after = memory(pad(x, 0.5), pad(episode, label), pad(valid, False))[:, left : left + L]
    torch.testing.assert_close(after[valid], before[valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("context", [0, 1, K, L - 1])
def test_cache_equals_full_pass(memory, context):
    x, episode, valid = window()
    with torch.no_grad():
        torch.testing.assert_close(
            act(memory, x, episode, valid, context)[valid],
            memory(x, episode, valid)[valid],
            atol=1e-5,
            rtol=0,
        )


def test_cache_equals_full_pass_without_valid_rows_in_the_context(memory):
    x, episode, valid = window()
    valid[:, :K] = False
    with torch.no_grad():
        torch.testing.assert_close(
            act(memory, x, episode, valid, K)[valid], memory(x, episode, valid)[valid], atol=1e-5, rtol=0
        )


def test_cache_skips_an_invalid_row_within_an_episode(memory):
    x, episode, valid = window()
    valid[:, K + 3] = False
    with torch.no_grad():
        torch.testing.assert_close(
            act(memory, x, episode, valid, K)[valid], memory(x, episode, valid)[valid], atol=1e-5, rtol=0
        )


def test_nothing_valid_is_finite(memory):
    x, episode, _ = window()
    x.requires_grad_()
    h = memory(x, episode, torch.zeros(N, L, dtype=torch.bool))
    h.square().sum().backward()
    assert h.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in memory.parameters() if p.grad is not None)
    _, state = memory.prefill(x[:, :2], episode[:, :2], torch.zeros(N, 2, dtype=torch.bool), 3)
    assert memory.step(x[:, 2], episode[:, 2], torch.zeros(N, dtype=torch.bool), state).isfinite().all()


def test_layers_end_with_forward(memory):
    x, episode, valid = window()
    layers = memory.layers(x, episode, valid)
    assert len(layers) == 2 and all(layer.shape == (N, L, memory.dim) for layer in layers)
    torch.testing.assert_close(layers[-1], memory(x, episode, valid), atol=0, rtol=0)
    assert (layers[0] - layers[1]).abs().max() > 1e-3


def test_every_parameter_learns(memory):
    x, episode, valid = window()
    memory(x, episode, valid)[valid].square().mul(torch.arange(DIM)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in memory.parameters() if p.requires_grad)


def test_capacity(memory):
    x, episode, valid = window()
    _, state = memory.prefill(x[:, :2], episode[:, :2], valid[:, :2], 3)
    memory.step(x[:, 2], episode[:, 2], valid[:, 2], state)
    assert state.length == state.capacity == 3
    with pytest.raises(ValueError, match="capacity=3"):
        memory.step(x[:, 3], episode[:, 3], valid[:, 3], state)
    with pytest.raises(ValueError, match="capacity=4"):
        memory.prefill(x, episode, valid, 4)


def test_autocast(memory):
    x, episode, valid = window()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        full, acted = memory(x, episode, valid), act(memory, x, episode, valid, K)
    assert (full - acted).float()[valid].abs().max() < 0.1
    assert (full.float() - memory(x, episode, valid))[valid].abs().max() < 0.2


def test_rope_does_not_count_from_the_window():
    """The last rows of a window give the same h wherever the window began, if their episode did not begin earlier."""
    torch.manual_seed(0)
    memory = Transformer(DIM, depth=2, heads=4)
    x, episode, valid = window()
    late = memory(x[1:2], episode[1:2], valid[1:2])[:, 8:]
    early = memory(x[1:2, 8:], episode[1:2, 8:], valid[1:2, 8:])
    torch.testing.assert_close(late, early, atol=1e-5, rtol=0)


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_order_matters(position):
    torch.manual_seed(0)
    memory = Transformer(DIM, depth=1, heads=4, position=position)
    x, episode, valid = (rows[:1] for rows in window())
    swapped = x[:, [1, 0, *range(2, L)]]
    assert (memory(x, episode, valid) - memory(swapped, episode, valid))[0, -1].abs().max() > 1e-5


def test_learned_positions_end():
    memory = Transformer(DIM, position="learned", max_length=L - 1)
    with pytest.raises(ValueError, match=f"max_length={L - 1}"):
        memory(*window())


@pytest.mark.parametrize(
    "key, kwargs",
    [
        ("dim", {"dim": 0}),
        ("depth", {"depth": 1.5}),
        ("heads", {"heads": 3}),
        ("heads", {"dim": 6, "heads": 2}),
        ("kv_heads", {"kv_heads": 3}),
        ("position", {"position": "sine"}),
        ("attention", {"attention": "fast"}),
        ("heads", {"dim": 32, "heads": 4, "attention": "flex"}),
        ("activation", {"activation": "tanh"}),
        ("dropout", {"dropout": 1.0}),
        ("mlp_ratio", {"mlp_ratio": 0}),
    ],
)
def test_bad_options_are_named(key, kwargs):
    with pytest.raises(ValueError, match=rf"^memory\.{key}="):
        Transformer(**kwargs)


def test_unknown_backbone_is_named():
    with pytest.raises(ValueError, match=r"^memory\.model_type=gpt99"):
        HuggingFace(model_type="gpt99")


def test_the_rotation_of_a_compiled_model_is_the_same(monkeypatch):
    torch.manual_seed(0)
    x, turn = torch.randn(N, L, 4, 8), rotations(L, 8, torch.device("cpu"))[:, None]
    eager = rotate(x, turn)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(rotate(x, turn), eager, atol=1e-6, rtol=0)


def test_flex_needs_cuda():
    with pytest.raises(ValueError, match="flex on cpu"):
        Transformer(DIM, heads=2, attention="flex")(*window())


def test_flex_equals_sdpa():
    torch.manual_seed(0)
    attention = Attention(DIM, heads=4, kv_heads=2)
    x, episode, valid = window()
    turn = rotations(L, DIM // 4, x.device)[:, None]
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        dense = attention(x, turn, additive(visible(episode, valid)))[0]
        blocks = attention(x, turn, block_mask(episode, valid))[0]
    torch.testing.assert_close(dense, blocks, atol=1e-5, rtol=0)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    memory = Transformer(DIM, dropout=0.5)
    rows = window()
    assert not memory(*rows).equal(memory(*rows))
    memory.eval()
    assert memory(*rows).equal(memory(*rows))


@pytest.mark.skipif(not linear_module.AVAILABLE, reason="this torch has no oneDNN")
@pytest.mark.parametrize("contiguous", [True, False])
def test_fast_products_equal_plain_ones(monkeypatch, contiguous):
    torch.manual_seed(0)
    layer = Linear(8, 24)
    x = torch.randn(16, 32, 8) if contiguous else torch.randn(32, 16, 8).transpose(0, 1)
    grad = torch.randn(16, 32, 24) if contiguous else torch.randn(16, 1, 24).expand(16, 32, 24)
    results = []
    for rows in (10**9, 1):
        monkeypatch.setattr(linear_module, "ROWS", rows)
        leaf = x.clone().requires_grad_()
        y = layer(leaf)
        assert ("OneDNN" in type(y.grad_fn).__name__) == (rows == 1)
        results.append([y, *torch.autograd.grad(y, (leaf, layer.weight), grad)])
    torch.testing.assert_close(*results, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(results[0][0], F.linear(x, layer.weight))


@pytest.mark.parametrize("options", [{}, {"position": "learned", "kv_heads": 4, "activation": "relu"}])
def test_compiles_in_one_graph(options):
    torch.manual_seed(0)
    memory, rows = Transformer(DIM, **options), window()
    compiled = torch.compile(memory, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*rows), memory(*rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["transformer", "gru", "mlp", "huggingface"])
def test_configs_build_and_agree(name):
    config = yaml.safe_load((Path(__file__).parents[2] / f"configs/memory/{name}.yaml").read_text())
    memory = instantiate(config)
    x = torch.randn(2, 3, memory.dim)
    assert memory.dim == 128 and len(memory.layers(x, torch.zeros(2, 3).long(), torch.ones(2, 3).bool())) == 2
