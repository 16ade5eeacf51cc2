"""Compression of Mess3 with the exact Bayes predictor: round trip, known rate, and other compressors."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import numpy as np
import pytest
from helpers.hidden_markov import BayesPredictor, mess3, sample

from worldmodel.analysis.probes.compressor import compress, decompress, general_purpose_bits
from worldmodel.analysis.probes.markov import contexts, markov_code

pytest.importorskip("constriction")
RATE = 1.144717  # bits a symbol, the entropy rate of Mess3(.05, .85)


@pytest.fixture(scope="module")
def tokens() -> np.ndarray:
    return sample(mess3(), streams=32, rows=800)[0][..., None]


def test_mess3_comes_back_and_costs_what_its_predictor_says(tokens: np.ndarray) -> None:
    packed = compress(BayesPredictor(mess3()), tokens)
    assert np.array_equal(decompress(BayesPredictor(mess3()), packed.data), tokens)
    ideal = packed.ideal_bits
    assert packed.parts == {"token": ideal}
    assert ideal <= packed.bits <= 1.01 * ideal
    # the first symbol costs log2 3, the first few more than the rate: 0.571 bits a stream in all (excess entropy)
    assert ideal / tokens.size == pytest.approx(RATE + 0.571 / 800, rel=0.01)


def test_the_exact_predictor_beats_all_others(tokens: np.ndarray) -> None:
    packed, others = compress(BayesPredictor(mess3()), tokens), general_purpose_bits(tokens)
    markov = markov_code(tokens, orders=range(7))
    assert packed.bits < markov.bits < min(others.values())
    assert markov.order > 0 and markov.bits / tokens.size < 1.2


@pytest.mark.parametrize("change", ["short", "bit"])
def test_damaged_data_is_refused(change: str, tokens: np.ndarray) -> None:
    data = compress(BayesPredictor(mess3()), tokens[:2, :50]).data
    data = data[:-3] if change == "short" else data[:20] + bytes([data[20] ^ 1]) + data[21:]
    with pytest.raises(ValueError, match="compressed data"):
        decompress(BayesPredictor(mess3()), data)


def test_another_predictor_is_noticed(tokens: np.ndarray) -> None:
    data = compress(BayesPredictor(mess3()), tokens[:2, :50]).data
    with pytest.raises(ValueError, match="another predictor"):
        decompress(BayesPredictor(mess3(x=0.15, a=0.6)), data)


class Chained:
    """Three columns, of which the second and third equal the first; probabilities of zero among them."""

    width = 3

    def reset(self, streams: int) -> None:
        self.streams = np.arange(streams)

    def row(self, send: Callable[..., np.ndarray]) -> None:
        first = send("first", self.streams, 0, np.full((len(self.streams), 4), 0.25))
        for column in (1, 2):
            send("copies", self.streams, column, np.eye(4)[first])


def test_what_is_sent_later_is_predicted_from_what_was_sent_before() -> None:
    first = np.random.default_rng(0).integers(4, size=(5, 100, 1))
    symbols = np.repeat(first, 3, 2)
    packed = compress(Chained(), symbols)
    assert np.array_equal(decompress(Chained(), packed.data), symbols)
    assert packed.parts == pytest.approx({"first": 1000, "copies": 0}, abs=0.1)
    symbols[3, 50, 2] += 1 if symbols[3, 50, 2] < 3 else -1  # what was held impossible still comes back
    packed = compress(Chained(), symbols)
    assert np.array_equal(decompress(Chained(), packed.data), symbols) and packed.parts["copies"] > 20
    symbols[0, 0, 0] = 4
    with pytest.raises(ValueError, match="first from 0 to 4: allowed are 0 to 3"):
        compress(Chained(), symbols)


def test_general_purpose_sizes_are_those_of_the_files() -> None:
    symbols = np.random.default_rng(0).integers(7, size=(2, 300, 3))
    sizes = general_purpose_bits(symbols)
    by_row, by_column = (symbols.astype(np.uint8), np.ascontiguousarray(symbols.transpose(2, 0, 1)).astype(np.uint8))
    assert sizes["gzip"] == 8 * min(len(gzip.compress(x.tobytes(), 9)) for x in (by_row, by_column))
    assert sizes.keys() == {"gzip", "xz", "zstd"}
    with pytest.raises(ValueError, match="allowed as bytes are 0 to 255"):
        general_purpose_bits(np.full((1, 1, 1), 256))


def test_contexts_by_hand() -> None:
    codes = np.array([[[0, 1], [1, 1], [0, 1], [1, 0]]])
    before = contexts(codes, 1, 0)
    # first rows, then after 0 or 1 in the same column
    assert before[0, 0, 0] == before[0, 0, 1] and before[0, 1, 0] == before[0, 3, 0] != before[0, 1, 1]
    assert before[0, 2, 0] == before[0, 2, 1] == before[0, 3, 1] and len(np.unique(before)) == 3
    beside = contexts(codes, 0, 1)
    assert beside[0, 1, 1] == beside[0, 3, 1] != beside[0, 0, 1] and len(np.unique(beside)) == 3


def test_a_markov_chain_costs_its_entropy_rate_at_its_own_order() -> None:
    rng, flips = np.random.default_rng(0), 0.1
    x = (rng.random((4, 5000)) < flips).cumsum(1) % 2
    code = markov_code(x[..., None])
    entropy = -(flips * np.log2(flips) + (1 - flips) * np.log2(1 - flips))
    assert code.order == 1 and code.bits / x.size == pytest.approx(entropy, rel=0.03)


def test_rows_are_coded_with_what_stands_beside() -> None:
    x = np.random.default_rng(0).integers(3, size=(2, 500, 1))
    code = markov_code(np.concatenate([x, x], 2))
    assert code.beside == 1 and code.bits == pytest.approx(1000 * np.log2(3), rel=0.03)
