"""Lossless compression with any predictor of symbols, by range coding."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np

HEADER = struct.Struct("<III")  # streams, rows, checksum
DAMAGED = "compressed data: damaged, or made with another predictor, machine or number of threads"
LEAST = 2.0**-22  # smallest coded probability; the coder's resolution is 2^-24


class Send(Protocol):
    """One exchange of symbols between sender and receiver."""

    def __call__(self, part: str, streams: np.ndarray, columns: np.ndarray, probs: np.ndarray) -> np.ndarray:
        """Exchange the symbols (M,) of this row at `streams` and `columns`, predicted by probs (M, A).

        `streams` and `columns` are (M,) ints each, or one for all. `part` is the name under which bits are counted.
        """
        ...


class Predictor(Protocol):
    """Probabilities of the next symbols given the history, for S streams at once.

    Sender and receiver run the same code. It receives a row only through `send`, so that both sides compute the same in
    the same order and with the same shapes, and get the same bits.
    """

    width: int  # P, the symbols of a row

    def reset(self, streams: int) -> None:
        """Start S new streams with an empty history."""
        ...

    def row(self, send: Send) -> None:
        """Predict the next row of all streams and send its S P symbols, in any order and portions.

        A symbol that is not sent is 0.
        """
        ...


@dataclass
class Compressed:
    """Compressed data, and its ideal size."""

    data: bytes
    parts: dict[str, float]  # bits of each part by the predictor's probabilities: -sum log2 p

    @property
    def bits(self) -> int:
        """The size of the data, header included."""
        return 8 * len(self.data)

    @property
    def ideal_bits(self) -> float:
        """The predictor's own cross-entropy, over all symbols."""
        return sum(self.parts.values())


def compress(predictor: Predictor, symbols: np.ndarray) -> Compressed:
    """Range-code symbols (S, R, P) with the predictor's probabilities (Martin 1979; constriction's range coder)."""
    coder, categorical = _constriction()
    encoder = coder.RangeEncoder()
    parts: dict[str, float] = {}
    predictor.reset(len(symbols))
    for row in symbols.transpose(1, 0, 2).astype(np.int64):

        def send(part: str, streams: np.ndarray, columns: np.ndarray, probs: np.ndarray, row=row) -> np.ndarray:
            probs, wanted = _codable(probs), row[streams, columns]
            if not 0 <= wanted.min(initial=0) <= wanted.max(initial=0) < probs.shape[1]:
                raise ValueError(f"{part} from {wanted.min()} to {wanted.max()}: allowed are 0 to {probs.shape[1] - 1}")
            parts[part] = parts.get(part, 0.0) - float(np.log2(probs[np.arange(len(wanted)), wanted]).sum())
            if probs.shape[1] > 1:  # the coder has no model of an alphabet of one, which costs nothing
                encoder.encode(wanted.astype(np.int32), categorical, probs)
            return wanted

        predictor.row(send)
    header = HEADER.pack(*symbols.shape[:2], _checksum(symbols))
    return Compressed(header + encoder.get_compressed().astype("<u4").tobytes(), parts)


def decompress(predictor: Predictor, data: bytes) -> np.ndarray:
    """Return the symbols (S, R, P) int64. Raises ValueError where the data is damaged or of another predictor."""
    coder, categorical = _constriction()
    if len(data) < HEADER.size or (len(data) - HEADER.size) % 4:
        raise ValueError(f"compressed data of {len(data)} bytes: allowed are {HEADER.size} and whole words of 4 more")
    streams, rows, checksum = HEADER.unpack_from(data)
    decoder = coder.RangeDecoder(np.frombuffer(data, "<u4", offset=HEADER.size).astype(np.uint32))
    symbols = np.zeros((rows, streams, predictor.width), dtype=np.int64)
    predictor.reset(streams)
    for row in symbols:

        def send(part: str, streams: np.ndarray, columns: np.ndarray, probs: np.ndarray, row=row) -> np.ndarray:
            probs = _codable(probs)
            if probs.shape[1] > 1:
                try:
                    row[streams, columns] = decoder.decode(categorical, probs)
                except AssertionError:  # what constriction raises for bits that no symbol has
                    raise ValueError(DAMAGED) from None
            return row[streams, columns]

        predictor.row(send)
    symbols = symbols.transpose(1, 0, 2)
    if _checksum(symbols) != checksum:
        raise ValueError(DAMAGED)
    return symbols


def general_purpose_bits(symbols: np.ndarray) -> dict[str, int]:
    """Sizes in bits of symbols (S, R, P), all below 256, by gzip -9, xz -9e and zstd -22.

    Each compresses bytes stream by stream, row by row or column by column, whichever is shorter.
    """
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
    """Return float64 rows (M, A) that sum to one, without entries too small for the coder."""
    probs = np.asarray(probs, dtype=np.float64)
    probs = probs / probs.sum(1, keepdims=True)
    return np.ascontiguousarray((1 - LEAST * probs.shape[1]) * probs + LEAST)


def _checksum(symbols: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(symbols, dtype="<i8").tobytes())


def _constriction():
    """Return the stream module and a model family of constriction, an optional dependency."""
    import constriction

    return constriction.stream.queue, constriction.stream.model.Categorical(perfect=False)
