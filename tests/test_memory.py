"""Memories: causality, isolation, and that acting and learning compute the same h."""

import pytest
import torch

from worldmodel.memory import GRU, MLP, HuggingFace, Memory, Transformer

DIM, N, K, T = 32, 3, 5, 9
L = K + T
MAKERS = {
    "transformer": lambda: Transformer(DIM, depth=2, heads=4),
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
    """h (N, L, D) as it comes while acting."""
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


def test_cache_skips_an_invalid_row_amid_an_episode(memory):
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
