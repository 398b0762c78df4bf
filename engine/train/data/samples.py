"""From samples on disk to batches of crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine import preprocess
from engine.model import Preprocessing
from engine.train.data.augment import Place
from engine.train.data.dataset import VOID, Sample
from engine.train.data.empty import EmptyParts

Pixels = NDArray[np.uint8]
Loaded = tuple[Pixels, Pixels]
"""(image [h, w, 3], mask [h, w])."""
Seed = Sequence[int]
PLACES = 512  # that are kept of a class in an image, evenly chosen


class Cut(Protocol):
    """A crop of an image and its mask."""

    def __call__(
        self, image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, around: Place | None = None
    ) -> Loaded:
        """`size` pixels a side, showing the pixel `around` where one is given."""


def load(sample: Sample, classes: int, how: Preprocessing) -> Loaded:
    """(image, mask) of `sample` as the network is to see them: what crops are taken from."""
    image, mask = sample.load(classes)
    prepared = preprocess.preprocess(image, how)
    return prepared, preprocess.resize_nearest(mask, *prepared.shape[:2])


class Sampler:
    """Batches of crops of `loaded`: a seed gives (uint8 [batch, 3, side, side], uint8 [batch, side, side]).

    Large images are drawn more often than small ones, by the root of their pixels. The share `foreground` of crops is
    made sure to show a class other than the background: the class is drawn first, so that rare ones are seen as often
    as others, then an image that has it, then a pixel of it. The share `empty` of crops is made of a part of an image
    that shows the background alone, of any size down to a pixel, as an image of it alone would be by `fit`.
    """

    def __init__(
        self,
        loaded: Iterable[Loaded],
        batch: int,
        side: int,
        cut: Cut,
        foreground: float = 0.0,
        empty: float = 0.0,
        fit: Callable[[Pixels], Pixels] = lambda pixels: pixels,
    ) -> None:
        self.batch, self.side = batch, side
        self._empty, self._fit = empty, fit
        self._items, self._cut, self._foreground = list(loaded), cut, foreground
        weights = np.sqrt([mask.size for _, mask in self._items])
        self._weights = weights / weights.sum()
        self._places = _places(mask for _, mask in self._items) if foreground else []
        self._empty_parts = EmptyParts(self._items, weights) if empty else None

    def __call__(self, seed: Seed) -> Loaded:
        """The batch of `seed`, which depends on that alone."""
        rng, places = np.random.default_rng(seed), self._places
        chosen = [(int(i), None) for i in rng.choice(len(self._items), self.batch, p=self._weights)]
        drawn = [_place(places, rng) if places and rng.random() < self._foreground else one for one in chosen]
        cuts = [self._crop(*one, rng) for one in drawn]
        return np.stack([image.transpose(2, 0, 1) for image, _ in cuts]), np.stack([mask for _, mask in cuts])

    def _crop(self, i: int, around: Place | None, rng: np.random.Generator) -> Loaded:
        if self._empty_parts and rng.random() < self._empty:
            alone = self._fit(self._empty_parts(rng))
            return self._cut(alone, np.zeros(alone.shape[:2], np.uint8), self.side, rng)
        return self._cut(*self._items[i], self.side, rng, around)


def pixels_of_classes(items: Iterable[Loaded], classes: int) -> NDArray[np.int64]:
    """How many pixels of all masks are of each class, int64 [classes]."""
    counts = np.zeros(classes, np.int64)
    for _, mask in items:
        counts += np.bincount(mask.ravel(), minlength=256)[:classes]
    return counts


def _places(masks: Iterable[Pixels]) -> list[list[tuple[int, NDArray[np.intp]]]]:
    """For every class but the background that occurs, each image that has it, and (row, column) of pixels of it."""
    found: dict[int, list[tuple[int, NDArray[np.intp]]]] = {}
    for i, mask in enumerate(masks):
        for k in sorted(set(np.unique(mask).tolist()) - {0, VOID}):
            at = np.flatnonzero(mask == k)
            at = at[:: -(-len(at) // PLACES)]
            found.setdefault(k, []).append((i, np.stack(np.unravel_index(at, mask.shape), axis=1)))
    return [found[k] for k in sorted(found)]


def _place(
    places: Sequence[Sequence[tuple[int, NDArray[np.intp]]]], rng: np.random.Generator
) -> tuple[int, Place | None]:
    """(image, a pixel of it) of a class drawn at random."""
    of_class = places[int(rng.integers(len(places)))]
    image, pixels = of_class[int(rng.integers(len(of_class)))]
    row, column = pixels[int(rng.integers(len(pixels)))]
    return image, (int(row), int(column))
