"""Bits of channels packed into bytes: the order of model files, golden data and CUDA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Packed = NDArray[np.uint8]


def packed_bytes(inputs: Sequence[int]) -> int:
    """Bytes that one bit for every channel of every input takes: each input is rounded up to whole bytes."""
    return sum((channels + 7) // 8 for channels in inputs)


def pack(bits: Bools, inputs: Sequence[int]) -> Packed:
    """Pack bool [..., sum(inputs)] into uint8 [..., packed_bytes(inputs)], least significant bit first."""
    parts = np.split(bits, np.cumsum(inputs)[:-1], axis=-1)
    return np.concatenate([np.packbits(part, axis=-1, bitorder="little") for part in parts], axis=-1)


def unpack(packed: Packed, inputs: Sequence[int]) -> Bools:
    """Unpack uint8 [..., packed_bytes(inputs)] into bool [..., sum(inputs)]; padding bits are dropped."""
    ends = np.cumsum([packed_bytes([channels]) for channels in inputs])
    parts = np.split(packed, ends[:-1], axis=-1)
    bits = [np.unpackbits(p, axis=-1, count=c, bitorder="little") for p, c in zip(parts, inputs, strict=True)]
    return np.concatenate(bits, axis=-1).view(np.bool_)
