"""Everything wrong with a data set, in one pass: files, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.images import Pixels
from engine.train.data import facts, files, leaks
from engine.train.data.dataset import TEST, VOID, Dataset, Fault, Sample, split, too_few, usable
from engine.train.data.facts import SampleFacts
from engine.train.data.files import DataError
from engine.train.data.leaks import Thumbnail

T = TypeVar("T")

BETTER, CLEARLY = 3.0, 0.15  # a turned mask explains so many times as much of an image's variance, and so much more
TURNS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "by 180 degrees": lambda mask: mask[::-1, ::-1],
    "upside down": lambda mask: mask[::-1],
    "left to right": lambda mask: mask[:, ::-1],
    "by a quarter to the left": lambda mask: np.rot90(mask),
    "by a quarter to the right": lambda mask: np.rot90(mask, -1),
    "over its diagonal": lambda mask: mask.T,
    "over its other diagonal": lambda mask: np.rot90(mask, 2).T,
}


@dataclass(frozen=True)
class _Seen:
    """What is kept of a sample that can be read."""

    sample: Sample
    thumbnail: Thumbnail
    classes: frozenset[int]


def check(
    found: Dataset,
    classes: int,
    share: float,
    seed: int,
    watch: Callable[[Sequence[Sample]], Iterable[Sample]] = lambda samples: samples,
    tell: Callable[[SampleFacts], None] = lambda facts: None,
) -> list[Fault]:
    """All faults of a recognised folder, every file opened.

    `classes` above 0 means masks of class indices; `share` and `seed` are those of the split into training and
    validation. `watch` goes through the samples, with a progress bar, for example; `tell` is told what each that can be
    used looks like, but for a test part.
    """
    faults, seen = list(found.faults), []
    for sample in watch(found.samples):
        of_sample, kept = _look(sample, classes, tell)
        faults += of_sample
        seen += [kept] if kept else []
    occurring = frozenset[int]().union(*(kept.classes for kept in seen))
    if seen and not occurring - {0} and not classes:
        faults.append(Fault(found.folder, "every mask is empty: there is nothing to learn"))
    missing = sorted({*range(1, classes)} - occurring) if seen else []
    faults += [Fault(found.folder, f"class {number} occurs in no mask", stops=False) for number in missing]
    if len(seen) == len(found.samples):
        faults += _too_few(found, share, seed)
    return faults + _leaks(seen, share, seed)


def _too_few(found: Dataset, share: float, seed: int) -> list[Fault]:
    """What keeps a run from its split; a test part alone is not for one."""
    said = too_few(*split(found.samples, share, seed))
    return [Fault(found.folder, said)] if said and usable(found.samples) else []


def _look(sample: Sample, classes: int, tell: Callable[[SampleFacts], None]) -> tuple[list[Fault], _Seen | None]:
    """One sample: what is wrong with its image, with its mask, and with both together."""
    faults: list[Fault] = []
    image = _read(partial(files.read_image, sample.image, sample.selection), sample.image, faults)
    parts = {path: _read(partial(sample.read, path, classes), path, faults) for path in sample.masks}
    if image is None:
        return faults, None
    sizes = {path: _size(path) if mask is None else mask.shape[::-1] for path, mask in parts.items()}
    faults += [fault for path, size in sizes.items() if size for fault in _other_size(image, size, path)]
    sound = [mask for mask in parts.values() if mask is not None and mask.shape == image.shape[:2]]
    if image.min() == image.max():
        faults.append(Fault(sample.image, f"is constant: every sample is {image.min()}", stops=False))
    if len(sound) < len(parts):
        return faults, None
    whole = np.maximum.reduce(sound)
    if sample.part != TEST:  # settings follow from what is told
        tell(facts.of_sample(image, whole, classes))
    if not classes:
        faults += _foreground(sample, leaks.grey(image), whole)
    return faults, _Seen(sample, leaks.thumbnail(sample, image), frozenset(np.unique(whole).tolist()) - {VOID})


def _read(read: Callable[[], T], path: Path, faults: list[Fault]) -> T | None:
    try:
        return read()
    except DataError as error:
        faults.append(Fault(path, str(error).removeprefix(f"{path}: ")))
        return None


def _size(path: Path) -> tuple[int, int] | None:
    """(width, height) of what cannot be used, where its header tells them."""
    try:
        return files.read_size(path)
    except DataError:
        return None


def _other_size(image: Pixels, size: tuple[int, ...], path: Path) -> list[Fault]:
    """A fault where a mask of `size`, (width, height), has another than its image."""
    height, width = image.shape[:2]
    if size == (width, height):
        return []
    turned = size == (height, width)
    hint = ": turned by a quarter, perhaps by an orientation that only one of them has" if turned else ""
    return [Fault(path, f"is {size[0]} x {size[1]}, but its image {width} x {height}{hint}")]


def _foreground(sample: Sample, grey: NDArray[np.float32], mask: NDArray[np.uint8]) -> list[Fault]:
    if mask.all():
        return [Fault(sample.mask, "is all foreground", stops=False)]
    as_it_is = _explained(grey, mask)
    for name, turn in TURNS.items():
        turned = turn(mask)
        if turned.shape == mask.shape and _explained(grey, turned) > BETTER * as_it_is + CLEARLY:
            return [Fault(sample.mask, f"fits its image better when it is turned {name}", stops=False)]
    return []


def _explained(grey: NDArray[np.float32], mask: NDArray[np.uint8]) -> float:
    """What share of an image's variance its foreground and background explain (eta squared)."""
    inside, variance = mask != 0, float(grey.var())
    part = float(inside.mean())
    if not 0 < part < 1 or not variance:
        return 0.0
    return part * (1 - part) * float(grey[inside].mean() - grey[~inside].mean()) ** 2 / variance


def _leaks(seen: Sequence[_Seen], share: float, seed: int) -> list[Fault]:
    """Images held for validation that the training side has too, or nearly."""
    sides = ({sample.name for sample in part} for part in split([kept.sample for kept in seen], share, seed))
    training, held = ([kept.thumbnail for kept in seen if kept.sample.name in names] for names in sides)
    return [Fault(leak.held.image, str(leak), stops=False) for leak in leaks.between(training, held)]
