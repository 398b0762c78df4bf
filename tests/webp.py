"""Lossless WebP written bit by bit: prefix codes as no encoder makes them and every decoder takes them."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pictures import file_of

Bits = list[int]

REPEAT = 16  # among lengths of codes: the last one again, 3 to 6 times
LENGTHS_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
COLORS, GREENS, DISTANCES = 256, 280, 40  # symbols of an alphabet; of green without a cache
LARGEST_CACHE = 11  # bits
LARGEST = {  # how many codes of 1, 2, ... 15 bits need the largest tables of an alphabet, as a search has found
    DISTANCES: (1, 1, 1, 1, 1, 0, 0, 1, 3, 17, 9, 1, 1, 1, 2),
    COLORS: (1, 1, 0, 0, 0, 0, 0, 0, 79, 33, 121, 17, 1, 1, 2),
    GREENS: (1, 1, 0, 0, 0, 0, 0, 0, 7, 217, 49, 1, 1, 1, 2),
    GREENS + 2**LARGEST_CACHE: (0, 0, 0, 0, 0, 0, 0, 0, 201, 273, 393, 305, 321, 321, 514),
}
ONE_SYMBOL: Bits = [1, 0, 0, 0]  # the code of the symbol 0 alone, in no bits


def put(*values: tuple[int, int]) -> Bits:
    """Each number in so many bits, the least first."""
    return [value >> bit & 1 for value, count in values for bit in range(count)]


def prefix_code(lengths: Sequence[int]) -> Bits:
    """A code by the lengths of its symbols' codes, the last of which are left out where they are zero."""
    tokens: list[tuple[int, int]] = []  # a length or a repetition, and how often beyond 3
    at = 0
    while at < len(lengths):
        run = next((i for i, length in enumerate(lengths[at:]) if length != lengths[at]), len(lengths) - at)
        tokens.append((lengths[at], 0))
        at, run = at + 1, run - 1
        while run >= 3:
            tokens.append((REPEAT, min(run, 6) - 3))
            at, run = at + min(run, 6), run - min(run, 6)
    bits_of = _code_of([token for token, _ in tokens])
    order = LENGTHS_ORDER[: max(4, 1 + max(LENGTHS_ORDER.index(token) for token in bits_of))]
    head = put((0, 1), (len(order) - 4, 4), *[(max(1, len(bits_of[t])) if t in bits_of else 0, 3) for t in order])
    count = put((1, 1), (7, 3), (len(tokens) - 2, 16))
    body = [bit for token, more in tokens for bit in bits_of[token] + (put((more, 2)) if token == REPEAT else [])]
    return head + count + body


def _code_of(symbols: Sequence[int]) -> dict[int, Bits]:
    """The bits of each of these symbols: one for the most frequent, as many for all others; none where it is alone."""
    often = [symbol for symbol, _ in Counter(symbols).most_common()]
    if len(often) == 1:
        return {often[0]: []}
    others = len(often) - 1
    deep = max(0, others - 1).bit_length()
    short = (1 << deep) - others
    lengths = {often[0]: 1} | {symbol: 1 + deep - (i < short) for i, symbol in enumerate(often[1:])}
    bits_of, code, last = {}, 0, 0
    for symbol, length in sorted(lengths.items(), key=lambda item: (item[1], item[0])):
        code <<= length - last
        bits_of[symbol] = [code >> (length - 1 - i) & 1 for i in range(length)]
        code, last = code + 1, length
    return bits_of


def large_codes(cache_bits: int = LARGEST_CACHE) -> Bits:
    """A group of five codes whose tables are as large as the format lets them be."""
    green = GREENS + (1 << cache_bits if cache_bits else 0)
    return [bit for alphabet in (green, COLORS, COLORS, COLORS, DISTANCES) for bit in prefix_code(_by_length(alphabet))]


def _by_length(alphabet: int) -> list[int]:
    return [length for length, count in enumerate(LARGEST[alphabet], 1) for _ in range(count)]


def equal_codes(length: int) -> Bits:
    """A code of 2^length symbols, all of so many bits, in as few bits of the file as there may be."""
    order = LENGTHS_ORDER[: max(4, 1 + LENGTHS_ORDER.index(length))]
    one = put((0, 1), (len(order) - 4, 4), *[(int(other == length), 3) for other in order])
    return one + put((1, 1), (7, 3), (2**length - 2, 16))


def fine_transforms(side: int) -> NDArray[np.uint8]:
    """Bits of a predictor and of colors for every 4 x 4 pixels of an image, each of four numbers 0 in 8 bits."""
    codes = prefix_code([8] * COLORS) * 4 + ONE_SYMBOL
    numbers = np.zeros(32 * blocks(side), np.uint8)
    return np.concatenate([part for kind in (0, 1) for part in ([1, *put((kind, 2), (0, 3), (0, 1)), *codes], numbers)])


def blocks(side: int) -> int:
    """Of 4 x 4 pixels."""
    return (-(-side // 4)) ** 2


def image_stream(
    side: int,
    group: Bits,
    groups: int,
    cache_bits: int = 0,
    transforms: NDArray[np.uint8] | None = None,
    named: int = 0,
) -> bytes:
    """A lossless image of one color, without its header: so many groups of codes, one for each 4 x 4 pixels in turn.

    The file has `named` groups, if these are more: the last pixels then have the last.
    """
    named = max(named, groups)
    of_block = np.arange(blocks(side)) % groups
    of_block[-1] = named - 1 if named > groups else of_block[-1]
    flat = equal_codes(8)
    transforms = np.zeros(0, np.uint8) if transforms is None else transforms
    head = [0, *(put((1, 1), (cache_bits, 4)) if cache_bits else [0])]
    numbering = [*put((1, 1), (0, 3), (0, 1)), *flat, *flat, *ONE_SYMBOL * 3]
    numbers = np.unpackbits(np.stack([of_block & 255, of_block >> 8], axis=1).astype(np.uint8), axis=1).ravel()
    codes = np.tile(np.array(group, np.uint8), named)
    bits = np.concatenate([transforms, np.array([*head, *numbering], np.uint8), numbers, codes])
    pixels = bytes(8 + 5 * side**2)  # each the first of its codes, of no more than 40 bits
    return np.packbits(bits, bitorder="little").tobytes() + pixels


def lossless(side: int, *what: Any, **options: Any) -> bytes:
    """The file of an image_stream."""
    return riff(_lossless(side, *what, **options))


def _lossless(side: int, *what: Any, **options: Any) -> bytes:
    head = np.packbits(put((0x2F, 8), (side - 1, 14), (side - 1, 14), (0, 4)), bitorder="little").tobytes()
    return chunk(b"VP8L", head + image_stream(side, *what, **options))


def alpha(side: int, *what: Any, **options: Any) -> bytes:
    """The file of a lossy image whose alpha is an image_stream."""
    lossy = file_of(Image.new("RGB", (side, side)), "WEBP")
    return riff(_extended(side, 0x10), chunk(b"ALPH", b"\1" + image_stream(side, *what, **options)), lossy[12:])


def animation(side: int, group: Bits, groups: int, cache_bits: int, frames: int) -> bytes:
    """The file of so many lossless frames, each an image_stream."""
    head = bytes(6) + (side - 1).to_bytes(3, "little") * 2 + bytes(4)
    frame = chunk(b"ANMF", head + _lossless(side, group, groups, cache_bits))
    return riff(_extended(side, 2), chunk(b"ANIM", bytes(6)), *[frame] * frames)


def _extended(side: int, flags: int) -> bytes:
    return chunk(b"VP8X", bytes([flags, 0, 0, 0]) + (side - 1).to_bytes(3, "little") * 2)


def chunk(name: bytes, payload: bytes) -> bytes:
    return name + struct.pack("<I", len(payload)) + payload + bytes(len(payload) % 2)


def riff(*chunks: bytes) -> bytes:
    """A file of these chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body
