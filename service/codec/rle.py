"""Run lengths as the COCO tools write them: column by column, zeros first, each length in a few printable characters.

A length from the fourth on is written as its difference to the one two before it; a number goes out in groups of five
bits, the lowest first, with bit 5 set while more follow (the last group's bit 4 is the sign), and 48 added to each.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

BAND = 2**15  # pixels that are worked on at a time: each may be a run, which takes a hundred bytes meanwhile
COLUMNS = 64  # that are turned at a time: a row of them is a line of the cache


def encode(foreground: NDArray[np.bool_]) -> Iterator[str]:
    """The `counts` of `foreground`, bool [h, w], in pieces: what pycocotools.mask.encode gives, as ASCII text."""
    last, begun, count = False, 0, 0  # of the run that is open: its value, its begin, how many there were before
    before = np.zeros(2, np.int64)  # the lengths of the last two
    for first, band in _by_columns(foreground):
        changes = np.flatnonzero(np.concatenate([[band[0] != last], band[1:] != band[:-1]])) + first
        lengths = np.diff(changes, prepend=begun)
        if first + band.size == foreground.size:
            lengths = np.append(lengths, foreground.size - (changes[-1] if changes.size else begun))
        if lengths.size:
            lengths_before = np.concatenate([before, lengths])
            yield _text(_groups(lengths - np.where(np.arange(count, count + lengths.size) < 3, 0, lengths_before[:-2])))
            count, before = count + lengths.size, lengths_before[-2:]
        if changes.size:
            last, begun = bool(band[-1]), int(changes[-1])


def _by_columns(foreground: NDArray[np.bool_]) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """The pixels column by column, at most BAND at a time, and how many were before them."""
    height, width = foreground.shape
    for first in range(0, width, COLUMNS):
        turned = foreground[:, first : first + COLUMNS].T.ravel()
        for start in range(0, turned.size, BAND):
            yield first * height + start, turned[start : start + BAND]


def of_objects(starts: Integers, ends: Integers, first: Integers, pixels: int) -> list[str]:
    """The same, in one piece each, of several masks of `pixels` pixels, from their runs of ones, column by column.

    Those of mask k begin at first[k]; runs that meet are joined.
    """
    begins = np.zeros(len(starts), np.bool_)
    begins[first] = True
    kept = begins.copy()
    kept[1:] |= starts[1:] != ends[:-1]
    mask = (np.cumsum(begins) - 1)[kept]
    starts, ends = starts[kept], ends[np.append(kept[1:], True)]

    sizes = 2 * np.bincount(mask, minlength=len(first)) + 1  # of each: where its ones begin and end, and its end
    opened = np.cumsum(sizes) - sizes
    closed = opened + sizes - 1
    at = 2 * np.arange(len(starts)) + mask
    places = np.empty(int(sizes.sum()), np.int64)
    places[at], places[at + 1], places[closed] = starts, ends, pixels
    lengths = np.diff(places, prepend=0)
    lengths[opened] = places[opened]
    numbers = lengths.copy()
    later = np.flatnonzero(np.arange(len(places)) - np.repeat(opened, sizes) >= 3)
    numbers[later] -= lengths[later - 2]
    there = np.ones(len(places), np.bool_)
    there[closed] = lengths[closed] != 0
    text, counts = _characters(numbers[there])
    bounds = np.append(0, np.cumsum(counts))[np.append(0, np.cumsum(there)[closed])].tolist()
    return [text[start:end] for start, end in pairwise(bounds)]


def _characters(numbers: Integers) -> tuple[str, Integers]:
    """The text of all numbers, and how many characters each of them has."""
    texts, counts = [], np.empty(len(numbers), np.int64)
    for first in range(0, len(numbers), BAND):
        some = slice(first, first + BAND)
        characters = _groups(numbers[some])
        counts[some] = np.count_nonzero(characters, axis=1)
        texts.append(_text(characters))
    return "".join(texts), counts


def _text(characters: NDArray[np.uint8]) -> str:
    return bytes(characters[characters != 0]).decode("ascii")


def _groups(numbers: Integers) -> NDArray[np.uint8]:
    """The characters of each number, [n, as many as the longest has]; 0 is none."""
    bits = int(max(numbers.max(), -1 - numbers.min())).bit_length() + 1  # with the sign's
    characters = np.zeros((numbers.size, -(-bits // 5)), np.uint8)
    rows = np.arange(numbers.size)
    for group in range(characters.shape[1]):
        low = numbers & 31
        numbers = numbers >> 5
        more = numbers != np.where(low & 16, -1, 0)
        characters[rows, group] = low + 32 * more + 48
        rows, numbers = rows[more], numbers[more]
        if not rows.size:
            break
    return characters
