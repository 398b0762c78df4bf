"""The objects of a mask as a COCO document: number, class, box, area, shape, mean probability and run lengths of each.

All is counted on runs, the vertical stretches of pixels of one object, so that the work follows the image's pixels
whatever the objects look like. Places are in pixels from the image's upper left corner: the centre of its first pixel
is (0.5, 0.5), and the corners of a box are corners of pixels, as those of `polygons` are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import Labels, row_bands
from engine.model import Model
from service.codec import rle

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DIGITS = 4  # after the point
MAX_RUNS = 2**20
OBJECTS = 2**8  # that are described at a time


class TooManyRunsError(ValueError):
    pass


@dataclass(frozen=True)
class _Runs:
    """Vertical runs in order of their objects: column, first row, length; and of every object its first run."""

    x: Integers
    y: Integers
    length: Integers
    first: Integers

    @classmethod
    def of(cls, labels: Labels) -> _Runs:
        """Raises TooManyRunsError."""
        found, count = [], 0
        for columns in row_bands(labels.T):
            part = _runs_of_columns(labels[:, columns])
            part[0] += columns.start
            count += part.shape[1]
            if count > MAX_RUNS:
                raise TooManyRunsError
            found.append(part)
        x, y, length, owner = np.concatenate(found, axis=1)
        order = np.argsort(owner.astype(np.uint16), kind="stable")  # which for 16 bits takes linear time
        return cls(x[order], y[order], length[order], np.flatnonzero(np.diff(owner[order], prepend=0)))

    def of_objects(self, first: int, last: int) -> _Runs:
        """Those of the objects from `first` up to `last`, which is left out; counted from 0."""
        begin = self.first[first]
        end = self.first[last] if last < len(self.first) else len(self.x)
        runs = slice(begin, end)
        return _Runs(self.x[runs], self.y[runs], self.length[runs], self.first[first:last] - begin)

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of the values of runs, by object."""
        summed: NDArray[Any] = np.add.reduceat(values, self.first)
        return summed


def _runs_of_columns(labels: Labels) -> Integers:
    """Column, first row, length and object of every run, [4, n]."""
    height, width = labels.shape
    columns = np.zeros((width, height + 1), np.int32)  # no run goes on into the next column
    columns[:, :height] = labels.T
    flat = columns.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=0))
    starts, ends = changes[:-1], changes[1:]
    inside = flat[starts] != 0
    starts, ends = starts[inside], ends[inside]
    return np.stack([*np.divmod(starts, height + 1), ends - starts, flat[starts]])


def head(shape: tuple[int, ...], model: Model) -> dict[str, Any]:
    """COCO's document of one image [h, w], but for its annotations."""
    height, width = shape
    names = [entry.name for entry in model.classes]
    categories = [(1, names[0])] if len(names) == 1 else list(enumerate(names))[1:]
    return {
        "model": model.name,
        "images": [{"id": 1, "width": width, "height": height}],
        "categories": [{"id": index, "name": name} for index, name in categories],
    }


def described(labels: Labels, classes: NDArray[np.uint8], scores: Floats) -> Iterator[list[dict[str, Any]]]:
    """COCO's annotation of every object, some at a time. `scores` are the mean probabilities.

    Beyond COCO's fields there are `score` (of COCO's results), `centroid` [x, y], `equivalent_diameter`, that of the
    disc of the same area, and `eccentricity`, that of the ellipse with the same second moments: 0 for a disc, towards
    1 for a line. Raises TooManyRunsError, before there is any.
    """
    if not len(classes):
        return
    runs = _Runs.of(labels)
    for first in range(0, len(classes), OBJECTS):
        last = min(first + OBJECTS, len(classes))
        some = slice(first, last)
        described = _columns(runs.of_objects(first, last), scores[some], labels.shape)
        numbers, indices = range(first + 1, last + 1), classes[some].tolist()
        yield [
            {"id": number, "image_id": 1, "category_id": index, "iscrowd": 0}
            | dict(zip(described, values, strict=True))
            for number, index, *values in zip(numbers, indices, *described.values(), strict=True)
        ]


def _columns(runs: _Runs, scores: Floats, shape: tuple[int, ...]) -> dict[str, list[Any]]:
    """What is said of every object, by its name."""
    area = runs.sum(runs.length)
    return {
        "bbox": _boxes(runs).tolist(),
        "area": area.tolist(),
        "score": _rounded(scores),
        "centroid": _rounded(np.stack(_centroids(runs, area), axis=1)),
        "equivalent_diameter": _rounded(np.sqrt(4 * area / np.pi)),
        "eccentricity": _rounded(_eccentricities(runs, area)),
        "segmentation": _segmentations(runs, shape),
    }


def _rounded(values: Floats) -> list[Any]:
    rounded: list[Any] = np.round(values, DIGITS).tolist()
    return rounded


def _boxes(runs: _Runs) -> Integers:
    """x, y, width, height."""
    left, right = np.minimum.reduceat(runs.x, runs.first), np.maximum.reduceat(runs.x + 1, runs.first)
    top, bottom = np.minimum.reduceat(runs.y, runs.first), np.maximum.reduceat(runs.y + runs.length, runs.first)
    return np.stack([left, top, right - left, bottom - top], axis=1)


def _centroids(runs: _Runs, area: Integers) -> tuple[Floats, Floats]:
    return runs.sum(runs.length * (runs.x + 0.5)) / area, runs.sum(runs.length * (runs.y + runs.length / 2)) / area


def _eccentricities(runs: _Runs, area: Integers) -> Floats:
    """From the second moments of the objects as unions of squares: a square of side 1 has 1/12 of its own."""
    x, y = _centroids(runs, area)
    counts = np.diff(np.append(runs.first, len(runs.x)))
    dx = runs.x + 0.5 - np.repeat(x, counts)
    dy = runs.y + runs.length / 2 - np.repeat(y, counts)
    xx = runs.sum(runs.length * (dx**2 + 1 / 12)) / area
    yy = runs.sum(runs.length * (dy**2 + runs.length**2 / 12)) / area
    xy = runs.sum(runs.length * dx * dy) / area
    spread = np.hypot(xx - yy, 2 * xy)
    least, greatest = xx + yy - spread, xx + yy + spread
    return np.sqrt(np.clip(1 - least / greatest, 0, 1))


def _segmentations(runs: _Runs, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """COCO's run lengths of every object in the whole image."""
    height, width = shape
    starts = runs.x * height + runs.y
    size = [height, width]
    counts = rle.of_objects(starts, starts + runs.length, runs.first, height * width)
    return [{"size": size, "counts": text} for text in counts]
