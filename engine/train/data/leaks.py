"""Images that lie, equal or nearly so, on both sides of a split."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from engine import preprocess
from engine.images import Pixels
from engine.train.data import files
from engine.train.data.dataset import Sample
from engine.train.data.files import DataError

THUMBNAIL = 32  # pixels a side, by which images are compared
NEARLY = 2.0  # grey levels of 255, root mean square over a thumbnail: images that differ by less are nearly equal
SECONDS = 5.0  # in which a run compares what it can


@dataclass(frozen=True)
class Thumbnail:
    """A sample's image in small: float32 [THUMBNAIL ** 2] of the stretched image's grey levels; empty of a flat one."""

    sample: Sample
    shape: tuple[int, ...]
    greys: NDArray[np.float32]


@dataclass(frozen=True)
class Leak:
    """A sample that is held for validation, and the nearest of those that are learned from."""

    held: Sample
    learned: Sample
    equal: bool

    def __str__(self) -> str:
        how = "equal to" if self.equal else "nearly equal to"
        return f"is held for validation, and {how} {self.learned.image.name} on the other side"


def grey(image: Pixels) -> NDArray[np.float32]:
    """Grey levels [h, w] of the stretched image."""
    levels: NDArray[np.float32] = preprocess.stretch(image).mean(axis=2, dtype=np.float32)
    return levels


def thumbnail(sample: Sample, image: Pixels) -> Thumbnail:
    """Means of the `image` of `sample` over a grid of THUMBNAIL x THUMBNAIL."""
    levels = grey(image)
    rows, columns = (np.linspace(0, side, THUMBNAIL + 1).astype(int)[:-1] for side in levels.shape)
    sums = np.add.reduceat(np.add.reduceat(levels, rows, axis=0), columns, axis=1)
    tall, wide = np.diff(rows, append=levels.shape[0]), np.diff(columns, append=levels.shape[1])
    means = (sums / np.outer(np.maximum(tall, 1), np.maximum(wide, 1))).astype(np.float32).reshape(-1)
    return Thumbnail(sample, image.shape, means if np.ptp(means) > NEARLY else np.empty(0, np.float32))


def between(training: Sequence[Thumbnail], held: Sequence[Thumbnail]) -> list[Leak]:
    """What of `held` the training side has too, or nearly; images of one shape are compared."""
    found = []
    for shape in sorted({one.shape for one in held}):
        learned = [one for one in training if one.shape == shape and one.greys.size]
        if not learned:
            continue
        greys = np.stack([one.greys for one in learned])
        for one in (one for one in held if one.shape == shape and one.greys.size):
            distances = np.sqrt(np.mean((greys - one.greys) ** 2, axis=1))
            nearest = int(np.argmin(distances))
            if distances[nearest] < NEARLY:
                found.append(Leak(one.sample, learned[nearest].sample, not distances[nearest]))
    return found


def warning(
    training: Sequence[Sample],
    held: Sequence[Sample],
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> str:
    """A sentence on images of both sides that are nearly equal; "" where none is, as far as `seconds` go."""
    until = clock() + seconds
    seen: tuple[list[Thumbnail], list[Thumbnail]] = ([], [])
    for pair in zip_longest(training, held):
        for side, sample in zip(seen, pair, strict=True):
            if sample is not None and clock() < until:
                side += _read(sample)
    found = between(*seen)
    if not found:
        return ""
    first = f"{found[0].held.image.name} is as {found[0].learned.image.name}"
    some = f" ({len(seen[1])} were compared)" if len(seen[1]) < len(held) else ""
    return (
        f"{len(found)} of {len(held)} validation images{some} lie on the training side too, equal or nearly so "
        f"({first}), and their scores will flatter: --group REGEX keeps together what belongs together, "
        "and mbunet data check lists them"
    )


def _read(sample: Sample) -> list[Thumbnail]:
    try:
        return [thumbnail(sample, files.read_image(sample.image, sample.selection))]
    except DataError:
        return []
