"""Whose turn it is: the engine's time is shared by pixels.

Images are of four kinds: small, which one turn of the engine is enough for, or large, which run window by window; and
of normal or of low priority. **Of the kinds that have something to do, the one is next that has had the fewest pixels
for its weight; within a kind, the image whose own pixels, added to those that the kind had had when it came, are
fewest.** So a small image waits for one window and not for an image, a large one has at least a fifth of the engine
however many small ones come, and low priority has a fifth or less while there is anything else to do, but never
nothing. And of two images of one kind the smaller overtakes the larger, but no longer than the larger itself takes;
equal ones go by arrival.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

NORMAL_WEIGHT, LOW_WEIGHT = 4, 1


class Kind(NamedTuple):
    """What shares the engine with others. Kinds that have had the same are served in this order."""

    low_priority: bool
    large: bool

    @property
    def weight(self) -> int:
        """How many pixels it gets for one of another kind, by both weights."""
        return LOW_WEIGHT if self.low_priority else NORMAL_WEIGHT


KINDS = tuple(Kind(low, large) for low in (False, True) for large in (False, True))


class Shares:
    """What every kind has had: pixels by weight. Who had nothing to do saves nothing up."""

    def __init__(self) -> None:
        self._had = dict.fromkeys(KINDS, 0.0)
        self._pixels = dict.fromkeys(KINDS, 0)
        self._latest = 0.0  # what the kind that was served last had before

    def begin(self, kind: Kind) -> None:
        """From now on, and not before, it has something to do."""
        self._had[kind] = max(self._had[kind], self._latest)

    def next(self, kinds: Iterable[Kind]) -> Kind:
        """Which of these, at least one, is served next."""
        return min(kinds, key=lambda kind: (self._had[kind], kind))

    def rank(self, kind: Kind, pixels: int) -> int:
        """Of an image of so many pixels that comes now: who has the lowest of the kind is next."""
        return self._pixels[kind] + pixels

    def charge(self, kind: Kind, pixels: int) -> None:
        """It has been served."""
        self._latest = self._had[kind]
        self._had[kind] += pixels / kind.weight
        self._pixels[kind] += pixels
