"""Run lengths as the COCO tools write them: column by column, zeros first, each length in a few printable characters.

A length from the fourth on is written as its difference to the one two before it; a number goes out in groups of five
bits, the lowest first, with bit 5 set while more follow (the last group's bit 4 is the sign), and 48 added to each.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GROUPS = 13  # of five bits: enough for 64-bit numbers


def encode(foreground: NDArray[np.bool_]) -> str:
    """The `counts` of `foreground`, bool [h, w]: what pycocotools.mask.encode gives, as ASCII text."""
    columns = foreground.T.ravel()
    changes = np.flatnonzero(columns[1:] != columns[:-1]) + 1
    begin = [0, 0] if columns[0] else [0]  # the first run is always of zeros
    return _characters(np.diff(np.concatenate([begin, changes, [columns.size]])))


def of_runs(starts: NDArray[np.int64], ends: NDArray[np.int64], pixels: int) -> str:
    """The same from the runs of ones in `pixels` pixels, column by column; runs that meet are joined."""
    meet = starts[1:] == ends[:-1]
    starts, ends = starts[np.append(True, ~meet)], ends[np.append(~meet, True)]
    changes = np.stack([starts, ends], axis=1).ravel()
    lengths = np.diff(changes, prepend=0, append=pixels)
    return _characters(lengths[:-1] if lengths[-1] == 0 else lengths)


def _characters(lengths: NDArray[np.int64]) -> str:
    numbers = lengths.copy()
    numbers[3:] -= lengths[1:-2]
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
