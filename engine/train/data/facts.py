"""What the samples of a folder look like: sizes, contrast, shares of the classes, how thin they are. numpy only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine import images
from engine.images import Pixels
from engine.train.data.dataset import VOID

EDGE = 2  # pixels: what lies so near to an edge of its class is its rim
GREY_RANGE = (0.005, 0.995)  # quantiles between which an image's grey range lies


@dataclass(frozen=True)
class SampleFacts:
    """One sample: its size, the part of its depth's range that its greys take, and its pixels by class.

    `pixels` and `rims` hold, for every class but the background, all its pixels and those within EDGE of its edge.
    `largest` is the share of the image that its largest object covers, and `objects` how many there are.
    """

    size: tuple[int, int]  # (width, height)
    deep: bool  # more than 8 bits
    grey_range: float
    pixels: tuple[int, ...]
    rims: tuple[int, ...]
    largest: float
    objects: int


def of_sample(image: Pixels, mask: NDArray[np.uint8], classes: int = 0) -> SampleFacts:
    """Facts of image [h, w, 3] and mask [h, w]; of the foreground alone where `classes` is 0."""
    shown = [mask == k for k in range(1, classes)] if classes else [(mask != 0) & (mask != VOID)]
    areas = np.zeros(1, np.int64)
    if any(part.any() for part in shown):
        labels, _ = images.label(np.logical_or.reduce(shown).astype(np.uint8))
        areas = np.bincount(labels.ravel())[1:]
    return SampleFacts(
        size=(mask.shape[1], mask.shape[0]),
        deep=image.dtype == np.uint16,
        grey_range=float(np.diff(np.quantile(image[::2, ::2], GREY_RANGE))[0]) / np.iinfo(image.dtype).max,
        pixels=tuple(int(part.sum()) for part in shown),
        rims=tuple(int(_rim(part).sum()) for part in shown),
        largest=float(areas.max()) / mask.size,
        objects=int((areas > 0).sum()),
    )


def _rim(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of `part` that EDGE erosions by a cross take away; beyond the image everything belongs to it."""
    core = part
    for _ in range(EDGE):
        padded = np.pad(core, 1, constant_values=True)
        core = core & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return part & ~core


@dataclass(frozen=True)
class ClassFacts:
    """A class over all samples: its share of all pixels, the samples that show it, and the share of it that is rim."""

    name: str
    share: float
    samples: int
    rim: float


@dataclass(frozen=True)
class Facts:
    """A folder in numbers, each the median over its samples unless it says otherwise."""

    samples: int
    sizes: tuple[tuple[int, int], ...]  # (width, height), distinct, smallest first
    side: float  # the shorter one
    deep: int  # samples of more than 8 bits
    grey_range: float
    classes: tuple[ClassFacts, ...]
    largest: float
    objects: float
    empty: int  # samples without foreground
    full: int  # samples without background

    @property
    def lines(self) -> list[str]:
        """What a person wants to know, a line each."""
        shown = [f"{w} x {h}" for w, h in self.sizes]
        sizes = ", ".join(shown) if len(shown) <= 3 else f"{len(shown)}, from {shown[0]} to {shown[-1]}"
        bits = f"{self.deep} of more than 8 bits; " if self.deep else ""
        said = [f"sizes (w x h): {sizes}", f"contrast: {bits}greys take {self.grey_range:.0%} of the range"]
        said += [
            f"{entry.name}: {entry.share:.2%} of all pixels, in {entry.samples} of {self.samples} samples; "
            f"{entry.rim:.0%} of it within {EDGE} pixels of an edge"
            for entry in self.classes
        ]
        said.append(f"objects: {self.objects:g} an image, the largest {self.largest:.1%} of it")
        odd = [f"{count} {name}" for count, name in ((self.empty, "empty"), (self.full, "all foreground")) if count]
        return [*said, *([f"masks: {', '.join(odd)}"] if odd else [])]


def of_samples(found: Sequence[SampleFacts], names: Sequence[str] = ()) -> Facts:
    """All of them together; `names` are those of the classes, the background first. Raises ValueError of none."""
    if not found:
        raise ValueError("there are no samples to look at")
    total = sum(one.size[0] * one.size[1] for one in found)
    classes = []
    for k, name in enumerate(names[1:] or ["foreground"]):
        pixels, rims = sum(one.pixels[k] for one in found), sum(one.rims[k] for one in found)
        showing = sum(one.pixels[k] > 0 for one in found)
        classes.append(ClassFacts(name, pixels / total, showing, rims / max(pixels, 1)))
    foreground = [(sum(one.pixels), one.size[0] * one.size[1]) for one in found]
    sizes = Counter(one.size for one in found)
    with_objects = [one for one in found if one.objects]
    return Facts(
        samples=len(found),
        sizes=tuple(sorted(sizes, key=lambda size: size[0] * size[1])),
        side=float(np.median([min(one.size) for one in found])),
        deep=sum(one.deep for one in found),
        grey_range=float(np.median([one.grey_range for one in found])),
        classes=tuple(classes),
        largest=float(np.median([one.largest for one in with_objects])) if with_objects else 0.0,
        objects=float(np.median([one.objects for one in found])),
        empty=sum(pixels == 0 for pixels, _ in foreground),
        full=sum(pixels == whole for pixels, whole in foreground),
    )
