"""From samples on disk to batches of crops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from engine import preprocess
from engine.model import Preprocessing
from engine.train.data.dataset import Sample

Pixels = NDArray[np.uint8]
Loaded = tuple[Pixels, Pixels]
"""(image [h, w, 3], mask [h, w])."""
Cut = Callable[[Pixels, Pixels, int, np.random.Generator], Loaded]
"""A crop of an image and its mask, of that many pixels a side."""


def load(sample: Sample, classes: int, how: Preprocessing) -> Loaded:
    """(image, mask) of `sample` as the network is to see them: what crops are taken from."""
    image, mask = sample.load(classes)
    prepared = preprocess.preprocess(image, how)
    return prepared, preprocess.resize_nearest(mask, *prepared.shape[:2])


def batches(
    loaded: Iterable[Loaded], seeds: Iterable[Sequence[int]], batch: int, side: int, cut: Cut
) -> Iterator[Loaded]:
    """For each of `seeds` a batch (uint8 [batch, 3, side, side], uint8 [batch, side, side]) that depends on it alone.

    Large images are drawn more often than small ones, by the root of their pixels.
    """
    items = list(loaded)
    weights = np.sqrt([mask.size for _, mask in items])
    weights /= weights.sum()
    for seed in seeds:
        rng = np.random.default_rng(seed)
        chosen = rng.choice(len(items), batch, p=weights)
        cuts = [cut(image, mask, side, rng) for image, mask in (items[i] for i in chosen)]
        yield np.stack([image.transpose(2, 0, 1) for image, _ in cuts]), np.stack([mask for _, mask in cuts])
