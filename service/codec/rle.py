"""Run lengths as the COCO tools write them: column by column, zeros first, each length in a few printable characters.

A length from the fourth on is written as its difference to the one two before it; a number goes out in groups of five
bits, the lowest first, with bit 5 set while more follow (the last group's bit 4 is the sign), and 48 added to each.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

GROUPS = 13  # of five bits: enough for 64-bit numbers
BAND = 2**17  # pixels that are worked on at a time: each may be a run, which takes a hundred bytes meanwhile


def encode(foreground: NDArray[np.bool_]) -> Iterator[str]:
    """The `counts` of `foreground`, bool [h, w], in pieces: what pycocotools.mask.encode gives, as ASCII text."""
    height, width = foreground.shape
    columns = max(1, BAND // height)
    last, begun, count = False, 0, 0  # of the run that is open: its value, its begin, how many there were before
    before = np.zeros(2, np.int64)  # the lengths of the last two
    for first in range(0, width, columns):
        band = foreground[:, first : first + columns].T.ravel()
        changes = np.flatnonzero(np.concatenate([[band[0] != last], band[1:] != band[:-1]])) + first * height
        lengths = np.diff(changes, prepend=begun)
        if first + columns >= width:
            lengths = np.append(lengths, height * width - (changes[-1] if changes.size else begun))
        if lengths.size:
            lengths_before = np.concatenate([before, lengths])
            numbers = lengths - np.where(np.arange(count, count + lengths.size) < 3, 0, lengths_before[:-2])
            yield _characters(numbers)
            count, before = count + lengths.size, lengths_before[-2:]
        if changes.size:
            last, begun = bool(band[-1]), int(changes[-1])


def of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], pixels: int) -> str:
    """The same, in one piece, from the runs of ones in `pixels` pixels, column by column; runs that meet are joined."""
    meet = starts[1:] == ends[:-1]
    starts, ends = starts[np.append(True, ~meet)], ends[np.append(~meet, True)]
    changes = np.stack([starts, ends], axis=1).ravel()
    lengths = np.diff(changes, prepend=0, append=pixels)
    numbers = lengths[:-1] if lengths[-1] == 0 else lengths
    numbers[3:] = numbers[3:] - numbers[1:-2]
    return _characters(numbers)


def _characters(numbers: NDArray[np.int64]) -> str:
    characters = np.zeros((numbers.size, GROUPS), np.uint8)  # 0: none
    rows = np.arange(numbers.size)
    for group in range(GROUPS):
        low = numbers & 31
        numbers >>= 5
        more = numbers != np.where(low & 16, -1, 0)
        characters[rows, group] = low + 32 * more + 48
        rows, numbers = rows[more], numbers[more]
        if not rows.size:
            break
    text: bytes = characters[characters != 0].tobytes()
    return text.decode("ascii")
