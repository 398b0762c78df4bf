"""Images and their masks on disk, and the seeded split into training and validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class DataError(ValueError):
    """A data folder that cannot be trained on; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Pair:
    """One image and its mask on disk.

    `group` is the `modality` column of index.csv, or ''. Pairs of one `unit` (a car, a patient) are never split.
    With `instances` the mask is all of these masks together, and `mask` the folder that they lie in.
    """

    name: str
    image: Path
    mask: Path
    group: str = ""
    unit: str = ""
    instances: tuple[Path, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) from the image's header."""
        try:
            with Image.open(self.image) as file:
                width, height = file.size
        except OSError as error:
            raise DataError(f"{self.image}: cannot be read: {error}") from error
        return width, height

    def load(self, classes: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(image uint8 [h, w, 3], mask uint8 [h, w] of class indices: 0 background, 1 foreground).

        With `classes` above 0 the mask's own values, palette indices where it has a palette, are the classes.
        """
        try:
            with Image.open(self.image) as file:
                image = np.asarray(file.convert("RGB"))
        except OSError as error:
            raise DataError(f"{self.image}: cannot be read: {error}") from error
        mask = np.zeros(image.shape[:2], np.uint8)
        for path in self.instances or (self.mask,):
            mask = np.maximum(mask, _load_mask(path, image.shape[:2], classes))
        return image, mask


def split(items: list[Pair], share: float = 0.2, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(training, validation) pairs: of every group and image size, a seeded random `share` is held for validation.

    Images of one size usually come from one instrument, so both parts see every instrument in the same proportion.
    Sizes too rare to give an image of their own are taken together. Where pairs belong to units (cars), a share of
    the units is held, whole, and sizes do not matter.
    """
    if any(pair.unit for pair in items):
        units = sorted({pair.unit for pair in items})
        order = np.random.default_rng(seed).permutation(len(units))
        chosen_units = {units[i] for i in order[: max(1, round(share * len(units)))]}
        return [p for p in items if p.unit not in chosen_units], [p for p in items if p.unit in chosen_units]
    strata: dict[tuple[str, tuple[int, int]], list[str]] = {}
    for pair in sorted(items, key=lambda pair: pair.name):
        strata.setdefault((pair.group, pair.size), []).append(pair.name)
    held: set[str] = set()
    rest: list[str] = []
    for _, names in sorted(strata.items()):
        order = np.random.default_rng(seed).permutation(len(names))
        chosen = [names[i] for i in order[: round(share * len(names))]]
        held.update(chosen)
        rest += names if not chosen else []
    order = np.random.default_rng(seed).permutation(len(rest))
    held.update(rest[i] for i in order[: int(share * len(rest))])
    if not held and len(items) > 1:  # a handful of pairs: one is better than none
        held.add(sorted(pair.name for pair in items)[int(np.random.default_rng(seed).integers(len(items)))])
    return [p for p in items if p.name not in held], [p for p in items if p.name in held]


def _load_mask(path: Path, shape: tuple[int, ...], classes: int) -> NDArray[np.uint8]:
    """uint8 [h, w] of 0 and 1, or of class indices below `classes`; raises DataError for anything else."""
    try:
        with Image.open(path) as file:
            mask = np.asarray(file if classes and file.mode == "P" else file.convert("L"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if mask.shape != shape:
        raise DataError(f"{path}: its image is {shape} (h, w) but the mask is {mask.shape}")
    values = np.unique(mask)
    if classes and values[-1] >= classes:
        raise DataError(f"{path}: holds class {values[-1]}, but the {classes} classes are 0 to {classes - 1}")
    if not classes and np.count_nonzero(values) > 1:
        raise DataError(f"{path}: not a binary mask: it holds the values {values[:8].tolist()}")
    return mask.astype(np.uint8) if classes else (mask > 0).astype(np.uint8)
