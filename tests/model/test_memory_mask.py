"""Attention masks, positions and rotations, by hand."""

import torch
from torch.nn import functional as F

from worldmodel.model.memory.attention import rotate, rotations
from worldmodel.model.memory.mask import additive, block_mask, positions, visible

# Padding, two rows of episode 3, an invalid row amid it, one more row of it, two rows of episode 4.
EPISODE = torch.tensor([[0, 3, 3, 3, 3, 4, 4]])
VALID = torch.tensor([[0, 1, 1, 0, 1, 1, 1]], dtype=torch.bool)
SEES = torch.tensor(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ],
    dtype=torch.bool,
)


def test_visible_by_hand():
    assert visible(EPISODE, VALID)[0].equal(SEES)


def test_last_queries_are_the_last_rows_of_the_full_mask():
    for queries in range(1, 8):
        assert visible(EPISODE, VALID, queries)[0].equal(SEES[-queries:])


def test_additive_shows_an_invalid_row_only_itself_besides():
    mask = additive(visible(EPISODE, VALID))
    assert mask.shape == (1, 1, 7, 7)
    assert (mask[0, 0] == 0).equal(SEES | torch.eye(7, dtype=torch.bool))
    assert (mask[0, 0] == -torch.inf).equal(~(SEES | torch.eye(7, dtype=torch.bool)))
    assert additive(visible(EPISODE, VALID, 2))[0, 0].equal(mask[0, 0, -2:])


def test_positions_count_within_the_episode():
    assert positions(visible(EPISODE, VALID))[0, [1, 2, 4, 5, 6]].tolist() == [0, 1, 2, 0, 1]
    assert positions(visible(EPISODE, VALID, 1)).tolist() == [[1]]


def test_block_mask_is_the_same_rule():
    block = block_mask(EPISODE, VALID)
    rows = torch.arange(7)
    seen = torch.stack([torch.stack([block.mask_mod(torch.tensor(0), 0, q, k) for k in rows]) for q in rows])
    assert seen.equal(SEES | torch.eye(7, dtype=torch.bool))


def test_rotation_keeps_norms_and_depends_on_differences_only():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 8).double()
    turn = rotations(20, 8, torch.device("cpu"))

    def score(i: int, j: int) -> torch.Tensor:
        return (rotate(q, turn[i]) * rotate(k, turn[j])).sum()

    torch.testing.assert_close(rotate(q, turn[7]).norm(), q.norm(), atol=1e-5, rtol=0)
    torch.testing.assert_close(score(9, 4), score(14, 9), atol=1e-5, rtol=0)
    assert (score(9, 4) - score(9, 5)).abs() > 1e-3


def test_rotation_by_hand():
    x = torch.tensor([1.0, 0.0, 1.0, 0.0])
    turned = rotate(x, rotations(3, 4, torch.device("cpu"))[2])
    angle = torch.tensor([2.0, 2.0 / 100])  # row 2, speeds 1 and 10000^(-1/2)
    expected = torch.stack([angle.cos(), angle.sin()], 1).flatten()
    torch.testing.assert_close(turned, expected)


def test_fully_masked_rows_have_finite_gradients():
    q = torch.randn(1, 2, 7, 4, requires_grad=True)
    F.scaled_dot_product_attention(q, q, q, additive(visible(EPISODE, VALID))).sum().backward()
    assert q.grad.isfinite().all()
