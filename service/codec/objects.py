"""The objects of a mask as a COCO document: number, class, box, area, shape, mean probability and run lengths of each.

All is counted on runs, the vertical stretches of pixels of one object, so that the work follows the image's pixels
whatever the objects look like. Places are in pixels from the image's upper left corner: the centre of its first pixel
is (0.5, 0.5), and the corners of a box are corners of pixels, as those of `polygons` are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import Labels
from engine.model import Model
from service.codec import rle

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
DIGITS = 4  # after the point


@dataclass(frozen=True)
class _Runs:
    """Vertical runs in order of their objects: column, first row, length; and of every object its first run."""

    x: Integers
    y: Integers
    length: Integers
    first: Integers

    @classmethod
    def of(cls, labels: Labels) -> _Runs:
        height = labels.shape[0]
        columns = np.zeros((labels.shape[1], height + 1), np.int32)  # no run goes on into the next column
        columns[:, :height] = labels.T
        changes = np.flatnonzero(np.diff(columns.ravel(), prepend=0, append=0))
        starts, ends = changes[:-1], changes[1:]
        owner = columns.ravel()[starts]
        order = np.argsort(owner, kind="stable")[np.count_nonzero(owner == 0) :]
        x, y = np.divmod(starts[order], height + 1)
        first = np.flatnonzero(np.diff(owner[order], prepend=0))
        return cls(x, y, (ends - starts)[order], first)

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """Of the values of runs, by object."""
        summed: NDArray[Any] = np.add.reduceat(values, self.first)
        return summed


def document(labels: Labels, classes: NDArray[np.uint8], probability: Floats, model: Model) -> dict[str, Any]:
    """COCO's document of one image. `probability` [h, w] is that of each pixel's own class.

    Beyond COCO's fields an annotation has `score`, the mean probability (of COCO's results), `centroid` [x, y],
    `equivalent_diameter`, that of the disc of the same area, and `eccentricity`, that of the ellipse with the same
    second moments: 0 for a disc, towards 1 for a line.
    """
    height, width = labels.shape
    names = [entry.name for entry in model.classes]
    categories = [(1, names[0])] if len(names) == 1 else list(enumerate(names))[1:]
    return {
        "model": model.name,
        "images": [{"id": 1, "width": width, "height": height}],
        "categories": [{"id": index, "name": name} for index, name in categories],
        "annotations": _annotations(labels, classes.tolist(), probability) if len(classes) else [],
    }


def _annotations(labels: Labels, classes: list[int], probability: Floats) -> list[dict[str, Any]]:
    runs = _Runs.of(labels)
    area = runs.sum(runs.length)
    columns = {
        "bbox": _boxes(runs).tolist(),
        "area": area.tolist(),
        "score": _rounded(runs.sum(_run_sums(runs, probability)) / area),
        "centroid": _rounded(np.stack(_centroids(runs, area), axis=1)),
        "equivalent_diameter": _rounded(np.sqrt(4 * area / np.pi)),
        "eccentricity": _rounded(_eccentricities(runs, area)),
        "segmentation": _segmentations(runs, labels.shape),
    }
    return [
        {"id": number, "image_id": 1, "category_id": index, "iscrowd": 0} | dict(zip(columns, values, strict=True))
        for number, index, *values in zip(range(1, len(classes) + 1), classes, *columns.values(), strict=True)
    ]


def _rounded(values: Floats) -> list[Any]:
    rounded: list[Any] = np.round(values, DIGITS).tolist()
    return rounded


def _boxes(runs: _Runs) -> Integers:
    """x, y, width, height."""
    left, right = np.minimum.reduceat(runs.x, runs.first), np.maximum.reduceat(runs.x + 1, runs.first)
    top, bottom = np.minimum.reduceat(runs.y, runs.first), np.maximum.reduceat(runs.y + runs.length, runs.first)
    return np.stack([left, top, right - left, bottom - top], axis=1)


def _run_sums(runs: _Runs, values: Floats) -> Floats:
    """The sum of `values` [h, w] over every run."""
    height = values.shape[0]
    starts = runs.x * height + runs.y
    bounds = np.stack([starts, starts + runs.length], axis=1).ravel()
    return np.add.reduceat(np.append(values.T.ravel(), 0), bounds)[::2]


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


def _segmentations(runs: _Runs, shape: tuple[int, int]) -> list[dict[str, Any]]:
    """COCO's run lengths of every object in the whole image."""
    height, width = shape
    starts = runs.x * height + runs.y
    ends = starts + runs.length
    bounds = zip(runs.first.tolist(), [*runs.first[1:].tolist(), len(starts)], strict=True)
    size = [height, width]
    return [{"size": size, "counts": rle.of_runs(starts[a:b], ends[a:b], height * width)} for a, b in bounds]
