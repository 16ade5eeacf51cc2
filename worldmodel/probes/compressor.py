"""A real compressor: any predictor of symbols, and arithmetic coding. What comes out of it comes back, bit for bit."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

HEADER = struct.Struct("<III")  # streams, rows, checksum
DAMAGED = "compressed data: damaged, or made with another predictor, machine or number of threads"
LEAST = 2.0**-22  # the least probability that is coded; the coder's own steps are 2^-24


class Predictor(Protocol):
    """History -> probabilities of what comes next, for S streams at once.

    A row of a stream is P symbols. They are coded in stages, in order: `stages[i]` are the columns of stage i, and what
    is predicted for it may depend on all rows before and on the stages before it in this row. Encoder and decoder
    make the same calls in the same order with the same shapes, so that they compute the same bits.
    """

    stages: Sequence[slice]

    def reset(self, streams: int) -> None:
        """Forget everything; S streams begin."""
        ...

    def predict(self, stage: int, row: np.ndarray) -> np.ndarray:
        """row (S, P) int64, of which the columns of later stages hold anything -> probabilities (S, width, A) of the
        columns of this stage, which share an alphabet of A symbols."""
        ...

    def update(self, row: np.ndarray) -> None:
        """The row (S, P) is known now."""
        ...


@dataclass
class Compressed:
    """What was sent, and what it should have cost."""

    data: bytes
    stage_bits: np.ndarray  # (stages,) what the predictor's probabilities say: -sum log2 p

    @property
    def bits(self) -> int:
        """The size of the data, header included."""
        return 8 * len(self.data)


def compress(predictor: Predictor, symbols: np.ndarray) -> Compressed:
    """Range-code symbols (S, R, P) with the predictor's probabilities (Martin 1979; constriction's range coder)."""
    coder, categorical = _constriction()
    encoder = coder.RangeEncoder()
    streams, rows, _ = symbols.shape
    ideal = np.zeros(len(predictor.stages))
    predictor.reset(streams)
    for t in range(rows):
        row = symbols[:, t].astype(np.int64)
        for i, columns in enumerate(predictor.stages):
            probs = _codable(predictor.predict(i, row.copy()))
            wanted = row[:, columns].reshape(-1)
            if wanted.size and not 0 <= wanted.min() <= wanted.max() < probs.shape[1]:
                raise ValueError(f"symbols of stage {i}: allowed are 0 to {probs.shape[1] - 1}, not {wanted.max()}")
            ideal[i] -= np.log2(probs[np.arange(len(wanted)), wanted]).sum()
            if probs.shape[1] > 1:  # an alphabet of one costs nothing, and the coder has no model of it
                encoder.encode(wanted.astype(np.int32), categorical, probs)
        predictor.update(row)
    header = HEADER.pack(streams, rows, _checksum(symbols))
    return Compressed(header + encoder.get_compressed().astype("<u4").tobytes(), ideal)


def decompress(predictor: Predictor, data: bytes) -> np.ndarray:
    """The symbols (S, R, P) int64 again. ValueError where the data is damaged or of another predictor."""
    coder, categorical = _constriction()
    if len(data) < HEADER.size or (len(data) - HEADER.size) % 4:
        raise ValueError(f"compressed data of {len(data)} bytes: allowed are {HEADER.size} and whole words of 4 more")
    streams, rows, checksum = HEADER.unpack_from(data)
    decoder = coder.RangeDecoder(np.frombuffer(data, "<u4", offset=HEADER.size).astype(np.uint32))
    width = max(columns.stop for columns in predictor.stages)
    symbols = np.zeros((streams, rows, width), dtype=np.int64)
    predictor.reset(streams)
    for t in range(rows):
        row = symbols[:, t]
        for i, columns in enumerate(predictor.stages):
            probs = _codable(predictor.predict(i, row.copy()))
            if probs.shape[1] > 1:
                try:
                    row[:, columns] = decoder.decode(categorical, probs).reshape(streams, -1)
                except AssertionError:  # what constriction raises for bits that no symbol has
                    raise ValueError(DAMAGED) from None
        predictor.update(row)
    if _checksum(symbols) != checksum:
        raise ValueError(DAMAGED)
    return symbols


def general_purpose_bits(symbols: np.ndarray) -> dict[str, int]:
    """Sizes in bits by gzip -9, xz -9e and zstd -22, each at the better of two layouts: symbols (S, R, P), all below
    256, as bytes stream by stream, row by row or column by column."""
    import zstandard

    if symbols.min(initial=0) < 0 or symbols.max(initial=0) > 255:
        raise ValueError(f"symbols from {symbols.min()} to {symbols.max()}: allowed as bytes are 0 to 255")
    rows = symbols.astype(np.uint8)
    layouts = [rows.tobytes(), np.ascontiguousarray(rows.transpose(2, 0, 1)).tobytes()]
    packers = {
        "gzip": lambda data: gzip.compress(data, 9, mtime=0),
        "xz": lambda data: lzma.compress(data, preset=9 | lzma.PRESET_EXTREME),
        "zstd": zstandard.ZstdCompressor(level=zstandard.MAX_COMPRESSION_LEVEL).compress,
    }
    return {name: min(8 * len(pack(data)) for data in layouts) for name, pack in packers.items()}


def _codable(probs: np.ndarray) -> np.ndarray:
    """(S, width, A) -> (S * width, A) float64 that sums to one, none of it too small to be coded."""
    probs = np.asarray(probs, dtype=np.float64).reshape(-1, probs.shape[-1])
    probs = probs / probs.sum(1, keepdims=True)
    return np.ascontiguousarray((1 - LEAST * probs.shape[1]) * probs + LEAST)


def _checksum(symbols: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(symbols, dtype="<i8").tobytes())


def _constriction():
    """The stream module and a model family. An optional dependency, so it is imported where it is needed."""
    import constriction

    return constriction.stream.queue, constriction.stream.model.Categorical(perfect=False)
