"""A data folder: `images/NAME.png|jpg` beside `masks/NAME.png`, optionally grouped by an `index.csv`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


class DataError(ValueError):
    """A data folder that cannot be trained on; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Pair:
    """One image and its mask on disk. `group` is the `modality` column of index.csv, or ''."""

    name: str
    image: Path
    mask: Path
    group: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) from the image's header."""
        try:
            with Image.open(self.image) as file:
                width, height = file.size
        except OSError as error:
            raise DataError(f"{self.image}: cannot be read: {error}") from error
        return width, height

    def load(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(image uint8 [h, w, 3], mask uint8 [h, w] of class indices: 0 background, 1 foreground)."""
        try:
            with Image.open(self.image) as file:
                image = np.asarray(file.convert("RGB"))
            with Image.open(self.mask) as file:
                mask = np.asarray(file.convert("L"))
        except OSError as error:
            raise DataError(f"{self.name}: cannot be read: {error}") from error
        if image.shape[:2] != mask.shape:
            raise DataError(f"{self.mask}: its image is {image.shape[:2]} (h, w) but the mask is {mask.shape}")
        values = np.unique(mask)
        if np.count_nonzero(values) > 1:
            raise DataError(f"{self.mask}: not a binary mask: it holds the values {values[:8].tolist()}")
        return image, (mask > 0).astype(np.uint8)


def pairs(folder: str | Path) -> list[Pair]:
    """Every image of `folder` with its mask, sorted by name; raises DataError for what is missing or unpaired."""
    folder = Path(folder)
    if not (folder / "images").is_dir() or not (folder / "masks").is_dir():
        raise DataError(f"{folder}: needs the folders images/ and masks/")
    images = {f.stem: f for f in sorted((folder / "images").iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES}
    masks = {f.stem: f for f in sorted((folder / "masks").iterdir()) if f.suffix.lower() in IMAGE_SUFFIXES}
    if not images:
        raise DataError(f"{folder / 'images'}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    if images.keys() != masks.keys():
        odd = sorted(images.keys() ^ masks.keys())
        raise DataError(f"{folder}: {len(odd)} names lack an image or a mask, for example {', '.join(odd[:5])}")
    groups = _groups(folder / "index.csv")
    return [Pair(name, images[name], masks[name], groups.get(name, "")) for name in sorted(images)]


def split(items: list[Pair], share: float = 0.2, seed: int = 0) -> tuple[list[Pair], list[Pair]]:
    """(training, validation) pairs: of every group and image size, a seeded random `share` is held for validation.

    Images of one size usually come from one instrument, so both parts see every instrument in the same proportion.
    Sizes too rare to give an image of their own are taken together.
    """
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


def _groups(index: Path) -> dict[str, str]:
    if not index.is_file():
        return {}
    with index.open(newline="") as file:
        return {row["name"]: row.get("modality", "") for row in csv.DictReader(file)}
