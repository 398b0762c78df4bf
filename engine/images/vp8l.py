"""What decoding lossless WebP takes besides its pixels: tables of prefix codes, counted before libwebp makes any.

A lossless image has groups of five prefix codes, each group with tables of its own, of 6 to 20 KB; a file of 160 KB can
name 2^16 of them. How many there are is said by a small image of numbers, which comes after the images of the
transforms, and of all these only the end matters: no pixel of them is made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.images.errors import DamagedImageError, UnsupportedImageError

MAX_GROUPS = 2**14
"""Of all frames that are decoded for one picture; libwebp's encoder makes 2600 a frame at most."""

MAX_SYMBOLS = 2**19
"""Of the small images that are read for one picture."""

STREAM_SYMBOLS, USED_SYMBOLS, SYMBOL_ENTRIES = 64, 2, 128
"""Opening an image counts as so many symbols, each that a code has as two, and so many entries of its table as one."""

SIGNATURE, HEADER_BYTES = 0x2F, 5
PREDICTOR, CROSS_COLOR, COLOR_INDEXING = 0, 1, 3  # transforms; the other says nothing else
LITERALS, LENGTHS, DISTANCES = 256, 24, 40  # symbols
LENGTHS_ORDER = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
REPETITIONS = {16: (2, 3), 17: (3, 3), 18: (7, 11)}  # bits of the number, and the least
LARGEST_CACHE = 11  # bits
WINDOW = 10  # bytes that hold whatever a symbol of each code and its number take

# entries of libwebp's tables at most, for codes of up to 15 bits of which 8 are looked up at once
GREEN_ENTRIES = (654, 656, 658, 662, 670, 686, 718, 782, 912, 1168, 1680, 2704)  # by bits of the cache of colors
OTHER_ENTRIES = 3 * 630 + 410
ENTRY_BYTES, GROUP_BYTES = 4, 568  # of an entry, and of a group besides its tables
SPARSE = 1000  # numbers, beyond which libwebp makes no tables for those that no block has

Table = list[int]  # by the next bits of the file: symbol << 4 | bits of its code


@dataclass(frozen=True)
class Stream:
    """A lossless image, which begins, without its header, at a byte of a file."""

    data: bytes
    start: int
    width: int
    height: int


def stream_at(data: bytes, at: int) -> Stream:
    """The one whose header is at this byte; raises DamagedImageError."""
    head = int.from_bytes(data[at : at + HEADER_BYTES], "little")
    if head & 0xFF != SIGNATURE:
        raise _damaged("its header cannot be read")
    return Stream(data, at + HEADER_BYTES, (head >> 8 & 0x3FFF) + 1, (head >> 22 & 0x3FFF) + 1)


def table_bytes(streams: Iterable[Stream]) -> int:
    """Bytes of the largest tables of these images, which are decoded one by one.

    Raises UnsupportedImageError for more than MAX_GROUPS groups, DamagedImageError where libwebp would stop as well.
    """
    groups = most = 0
    symbols = MAX_SYMBOLS
    for stream in streams:
        reader = _Reader(stream.data, stream.start, symbols - STREAM_SYMBOLS)
        named, kept, cache_bits = reader.groups(stream.width, stream.height)
        symbols = reader.symbols
        groups += named
        if groups > MAX_GROUPS or symbols < 0:
            raise UnsupportedImageError(
                f"lossless WebP with more than {MAX_GROUPS} groups of prefix codes, or too intricate to count them, is "
                "not read: send PNG"
            )
        most = max(most, kept * (GROUP_BYTES + ENTRY_BYTES * (OTHER_ENTRIES + GREEN_ENTRIES[cache_bits])))
    return most


class _Reader:
    """Bits from a byte of a file on, the least of each byte first; zeros beyond its end."""

    def __init__(self, data: bytes, start: int, symbols: int) -> None:
        self.symbols = symbols  # that may still be read; less than zero once there were more
        self._data = data
        self._at = 8 * start  # bits

    def groups(self, width: int, height: int) -> tuple[int, int, int]:
        """(groups in the file, those that tables are made for, bits of the cache of colors)"""
        seen = set()
        while self._take(1):
            kind = self._take(2)
            if kind in seen:
                raise _damaged("a transform comes twice")
            seen.add(kind)
            if kind in (PREDICTOR, CROSS_COLOR):
                self._image(_blocks(width, height, self._take(3) + 2))
            elif kind == COLOR_INDEXING:
                colors = self._take(8) + 1
                self._image(colors)
                width = -(-width // (8 if colors <= 2 else 4 if colors <= 4 else 2 if colors <= 16 else 1))
        cache_bits = self._cache_bits()
        if not self._take(1):
            return 1, 1, cache_bits
        numbers = self._image(_blocks(width, height, self._take(3) + 2)) | {0}
        named = max(numbers) + 1
        return named, len(numbers) if named > SPARSE else named, cache_bits

    def _image(self, pixels: int) -> set[int]:
        """Pass over an image; the red and green, as one number, of all its pixels that are no copies."""
        cache_bits = self._cache_bits()
        alphabets = (LITERALS + LENGTHS + (1 << cache_bits if cache_bits else 0), *[LITERALS] * 3, DISTANCES)
        green, red, blue, alpha, distance = (self._code(alphabet) for alphabet in alphabets)
        masks = [len(table) - 1 for table in (green, red, blue, alpha, distance)]
        of_green, of_red, of_blue, of_alpha, of_distance = masks
        if not any(masks):  # all pixels are the same, by no bits: one literal, or what is in an empty cache
            return {red[0] >> 4 << 8 | green[0] >> 4 if green[0] >> 4 < LITERALS else 0}
        data, at, found, symbols = self._data, self._at, set(), self.symbols
        while pixels > 0 and symbols >= 0:
            symbols -= 1
            window = int.from_bytes(data[at >> 3 : (at >> 3) + WINDOW], "little") >> (at & 7)
            entry = green[window & of_green]
            bits, symbol = entry & 15, entry >> 4
            if symbol < LITERALS:
                entry = red[window >> bits & of_red]
                found.add(entry >> 4 << 8 | symbol)
                bits += entry & 15
                bits += blue[window >> bits & of_blue] & 15
                bits += alpha[window >> bits & of_alpha] & 15
                pixels -= 1
            elif symbol < LITERALS + LENGTHS:
                more = max(0, symbol - LITERALS - 2 >> 1)
                number = window >> bits & (1 << more) - 1
                pixels -= symbol - LITERALS + 1 if not more else (2 + (symbol & 1) << more) + number + 1
                bits += more
                entry = distance[window >> bits & of_distance]
                bits += (entry & 15) + max(0, (entry >> 4) - 2 >> 1)
            else:
                pixels -= 1
            at += bits
        self._at, self.symbols = at, symbols
        return found

    def _cache_bits(self) -> int:
        bits = self._take(4) if self._take(1) else 0
        if bits > LARGEST_CACHE:
            raise _damaged("its cache of colors is too large")
        return bits

    def _code(self, alphabet: int) -> Table:
        if self._take(1):
            two, wide = self._take(1), self._take(1)
            lengths = [0] * LITERALS
            for bits in [8 if wide else 1] + [8] * two:
                lengths[self._take(bits)] = 1
        else:
            lengths = self._lengths(alphabet)
        table = _table(lengths)
        self.symbols -= USED_SYMBOLS * (len(lengths) - lengths.count(0)) + len(table) // SYMBOL_ENTRIES
        return table

    def _lengths(self, alphabet: int) -> list[int]:
        """Of the codes of all symbols."""
        of_lengths = [0] * len(LENGTHS_ORDER)
        for symbol in LENGTHS_ORDER[: self._take(4) + 4]:
            of_lengths[symbol] = self._take(3)
        table = _table(of_lengths)
        most = 2 + self._take(2 + 2 * self._take(3)) if self._take(1) else alphabet
        lengths: list[int] = []
        last = 8
        while len(lengths) < alphabet and most:
            most -= 1
            entry = table[self._peek() & len(table) - 1]
            self._at += entry & 15
            symbol = entry >> 4
            if symbol in REPETITIONS:
                bits, least = REPETITIONS[symbol]
                lengths += [last if symbol == 16 else 0] * (least + self._take(bits))
            else:
                lengths.append(symbol)
                last = symbol or last
        if len(lengths) > alphabet:
            raise _damaged("a prefix code has too many symbols")
        return lengths

    def _peek(self) -> int:
        return int.from_bytes(self._data[self._at >> 3 : (self._at >> 3) + 4], "little") >> (self._at & 7)

    def _take(self, count: int) -> int:
        value = self._peek() & (1 << count) - 1
        self._at += count
        return value


def _table(lengths: list[int]) -> Table:
    """To look up a code by its bits as they come in the file; raises DamagedImageError for one that is not full."""
    symbols = sorted((length, symbol) for symbol, length in enumerate(lengths) if length)
    if len(symbols) == 1:
        return [symbols[0][1] << 4]
    deepest = symbols[-1][0] if symbols else 0
    if not symbols or sum(1 << deepest - length for length, _ in symbols) != 1 << deepest:
        raise _damaged("a prefix code is not full")
    table, code = [0] * (1 << deepest), 0  # the next code, as if all had the most bits
    for length, symbol in symbols:
        first = int(f"{code:0{deepest}b}"[::-1], 2)
        table[first :: 1 << length] = [symbol << 4 | length] * (1 << deepest - length)
        code += 1 << deepest - length
    return table


def _blocks(width: int, height: int, bits: int) -> int:
    return -(-width >> bits) * -(-height >> bits)


def _damaged(why: str) -> DamagedImageError:
    return DamagedImageError(f"the WebP image is truncated or damaged: {why}")
