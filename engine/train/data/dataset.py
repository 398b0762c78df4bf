"""A data set: its samples, each an image and its mask on disk, and the seeded split into training and validation."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import FIRST, Pixels, Selection
from engine.train.data import files
from engine.train.data.files import DataError

VOID = 255  # in masks: pixels that nobody has named; they are neither learned nor scored
PARTS = TRAINING, VALIDATION, TEST = "training", "validation", "test"
"""Parts that a data set itself divides its samples into. Of a test part no run learns, and by it none is chosen."""
DIGITS = 8  # of a digest of a name
MOST_TOLD = 12_000  # digests in a model file, whose description is bounded (engine.format.MAX_TEXT)


@dataclass(frozen=True)
class Drawn:
    """How masks are drawn, where not as `engine.images.read_mask` has it.

    Of class indices `void` names no class. With `paints` each of a sample's masks is a shape of that class, the higher
    class on top. From the grey value `cut` on a soft mask is foreground.
    """

    void: int | None = None
    paints: tuple[int, ...] = ()
    cut: int = 0


@dataclass(frozen=True)
class Sample:
    """One image and its mask on disk.

    `stratum` is what the split holds an equal share of: the `modality` column of index.csv, or ''. Samples of one
    `split_group` (a car, a patient) are never split. With `instances` the mask is all of these masks together, and
    `mask` the folder that they lie in. `selection` chooses of an image with several channels or pages. `part` is the
    one that the data set itself puts it in, or "". `drawn` says how its masks are.
    """

    name: str
    image: Path
    mask: Path
    stratum: str = ""
    split_group: str = ""
    instances: tuple[Path, ...] = ()
    selection: Selection = FIRST
    part: str = ""
    drawn: Drawn = Drawn()

    @property
    def masks(self) -> tuple[Path, ...]:
        """The files that make the mask."""
        return self.instances or (self.mask,)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) from the image's header; raises DataError."""
        return files.read_size(self.image)

    def read(self, path: Path, classes: int = 0) -> NDArray[np.uint8]:
        """One of its masks, [h, w] of class indices and VOID. Raises DataError."""
        how = self.drawn
        if how.cut:
            return (files.read_image(path)[..., 0] >= how.cut).astype(np.uint8)
        if how.paints and classes:
            return files.read_mask(path) * np.uint8(how.paints[self.masks.index(path)])
        if how.void is None or not classes:
            return files.read_mask(path, classes)
        mask = files.read_mask(path, 256)
        strange = mask[(mask >= classes) & (mask != how.void)]
        if strange.size:
            raise DataError(f"{path}: holds class {strange.max()}, but the {classes} classes are 0 to {classes - 1}")
        return np.where(mask == how.void, np.uint8(VOID), mask)

    def load(self, classes: int = 0) -> tuple[Pixels, NDArray[np.uint8]]:
        """(image uint8 or uint16 [h, w, 3], mask uint8 [h, w] of class indices: 0 background, 1 foreground, VOID).

        With `classes` above 0 the mask's own values, palette indices where it has a palette, are the classes. Raises
        DataError.
        """
        image = files.read_image(self.image, self.selection)
        mask = np.zeros(image.shape[:2], np.uint8)
        for path in self.masks:
            part = self.read(path, classes)
            if part.shape != mask.shape:
                raise DataError(f"{path}: its image is {mask.shape} (h, w) but the mask is {part.shape}")
            mask = np.maximum(mask, part)
        return image, mask


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, or a folder. A data set with one that `stops` is not trained on."""

    file: Path
    what: str
    stops: bool = True

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Dataset:
    """A recognised folder: the name of its layout, its samples sorted by name, and what is wrong with its files' names.

    `classes` are the names of its classes, where its layout has several.

    What is wrong inside the files only `check.check` finds.
    """

    folder: Path
    layout: str
    samples: list[Sample]
    faults: list[Fault]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """The split of a run, which it keeps: names of the samples it learns from and of those it holds for validation.

    A model file keeps digests of them (`digested`), for names may tell more than they should, or counts alone.
    """

    training: frozenset[str]
    validation: frozenset[str]
    digested: bool = False

    @classmethod
    def of(cls, training: Iterable[Sample], validation: Iterable[Sample]) -> Parts:
        """The names of both parts."""
        return cls(frozenset(s.name for s in training), frozenset(s.name for s in validation))

    @classmethod
    def told(cls, story: Mapping[str, Any]) -> Parts | None:
        """What `tell` has told; None where it told counts alone, or nothing."""
        digests = story.get("digests", {})
        if not all(isinstance(digests.get(part), str) for part in ("training", "validation")):
            return None
        training, validation = (
            frozenset(digests[part][i : i + DIGITS] for i in range(0, len(digests[part]), DIGITS))
            for part in ("training", "validation")
        )
        return cls(training, validation, digested=True)

    def tell(self) -> dict[str, Any]:
        """Both parts as JSON for a model file: counts, and the digests of up to MOST_TOLD names, one after another.

        Of more names there is one digest, of those held for validation.
        """
        parts = {"training": self.training, "validation": self.validation}
        counts: dict[str, Any] = {part: len(names) for part, names in parts.items()}
        if sum(counts.values()) > MOST_TOLD:
            return counts | {"digest": _digest("\n".join(sorted(self.validation)))}
        return counts | {"digests": {part: "".join(sorted(map(_digest, names))) for part, names in parts.items()}}

    def divide(self, samples: Iterable[Sample]) -> tuple[list[Sample], list[Sample], list[Sample]]:
        """(training, validation, new): `samples` by part, and those of neither; a test part is not looked at."""
        divided: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
        for sample in usable(samples):
            name = _digest(sample.name) if self.digested else sample.name
            divided[0 if name in self.training else 1 if name in self.validation else 2].append(sample)
        return divided

    def missing(self, samples: Iterable[Sample]) -> list[str]:
        """Names of both parts that `samples` lack."""
        return sorted((self.training | self.validation) - {sample.name for sample in samples})


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:DIGITS]


def usable(samples: Iterable[Sample]) -> list[Sample]:
    """All but a test part: of it no run learns, and by it nothing is chosen."""
    return [sample for sample in samples if sample.part != TEST]


def grouped(samples: Sequence[Sample], pattern: str) -> list[Sample]:
    """`samples` in the split groups that `pattern`, a regular expression, finds in their names; raises DataError.

    A group is what the first parentheses hold, or where they hold nothing the whole match. Without a pattern groups
    stay as they are.
    """
    if not pattern:
        return list(samples)
    found = []
    for sample in samples:
        match = re.search(pattern, sample.name)
        if match is None:
            raise DataError(f"{sample.image}: the group {pattern!r} is not found in the name {sample.name}")
        found.append(replace(sample, split_group=(match.re.groups and match[1]) or match[0]))
    return found


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(training, validation): of every stratum and image size, a seeded random `share` is held for validation.

    Images of one size usually come from one instrument, so both parts see every instrument in the same proportion.
    Sizes too rare to give an image of their own are taken together. Where samples belong to split groups (cars), a
    share of the groups is held, whole, and sizes do not matter. Where the data set itself holds some for validation,
    those are held; its test part is in neither.
    """
    samples = usable(samples)
    if any(sample.part == VALIDATION for sample in samples):
        return [s for s in samples if s.part != VALIDATION], [s for s in samples if s.part == VALIDATION]
    groups = sorted({sample.split_group for sample in samples})
    if any(groups):
        held = set(_drawn(groups, max(1, round(share * len(groups))), seed))
        return [s for s in samples if s.split_group not in held], [s for s in samples if s.split_group in held]
    strata: dict[tuple[str, tuple[int, int]], list[str]] = {}
    for sample in sorted(samples, key=lambda sample: sample.name):
        strata.setdefault((sample.stratum, sample.size), []).append(sample.name)
    held = set()
    rest: list[str] = []
    for _, names in sorted(strata.items()):
        chosen = _drawn(names, round(share * len(names)), seed)
        held.update(chosen)
        rest += names if not chosen else []
    held.update(_drawn(rest, int(share * len(rest)), seed))
    if not held and len(samples) > 1:  # a handful of samples: one is better than none
        names = sorted(sample.name for sample in samples)
        held.add(names[int(np.random.default_rng(seed).integers(len(names)))])
    return [s for s in samples if s.name not in held], [s for s in samples if s.name in held]


def too_few(learned: Sequence[Sample], held: Sequence[Sample]) -> str:
    """A sentence where nothing is left to learn from, or nothing is held for validation; "" elsewhere."""
    if learned and held:
        return ""
    needed = "two groups, which stay whole," if any(sample.split_group for sample in [*learned, *held]) else "two"
    return (
        f"too few samples to learn from ({len(learned)}) and to hold for validation ({len(held)}): "
        f"at least {needed} are needed, one for each"
    )


def lopsided(learned: Sequence[Sample], held: Sequence[Sample], share: float) -> str:
    """A sentence where groups are of such different sizes that less than half or more than twice `share` of all samples
    is held; "" elsewhere, and where the data set itself says what is held."""
    everything = [*learned, *held]
    groups = {sample.split_group for sample in everything}
    told = any(sample.part for sample in everything)
    if told or groups == {""} or share / 2 <= len(held) / len(everything) <= 2 * share:
        return ""
    return (
        f"{len(held)} of {len(everything)} samples are held, not {share:.0%}, as {len(groups)} groups of unequal sizes "
        "stay whole: another --seed holds others, or --group says what else belongs together"
    )


def _drawn(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of `names`, at random."""
    order = np.random.default_rng(seed).permutation(len(names))
    return [names[i] for i in order[:count]]
