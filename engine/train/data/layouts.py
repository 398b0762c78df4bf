"""Where a data set keeps its images and masks: the layouts of this project, Kaggle DSB-2018, ISIC and Carvana.

Each recogniser looks at file names alone, as the sets are downloaded and unpacked, and gives the pairs that it found
and everything that is wrong with the folder. What is wrong inside a file only `check` finds.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.train.data.dataset import DataError, Pair

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
KNOWN = (
    "images/NAME.png|jpg beside masks/NAME.png, Kaggle DSB-2018 (ID/images, ID/masks), "
    "ISIC (ISIC_x.jpg, ISIC_x_segmentation.png) and Carvana (x_01.jpg, x_01_mask.gif)"
)


@dataclass(frozen=True)
class Found:
    """A recognised folder: the name of its layout, its pairs sorted by name, and what is wrong, a line each."""

    layout: str
    pairs: list[Pair]
    problems: list[str]


def pairs(folder: str | Path) -> list[Pair]:
    """Every image of `folder` with its mask, sorted by name; raises DataError for what is missing or unpaired."""
    found = recognise(folder)
    if found.problems:
        more = f" (and {len(found.problems) - 1} more: `mbunet data check`)" if len(found.problems) > 1 else ""
        raise DataError(f"{found.problems[0]}{more}")
    return found.pairs


def recognise(folder: str | Path) -> Found:
    """Layout, pairs and problems of `folder`; raises DataError where it is none of the known layouts."""
    folder = Path(folder)
    plain = _plain(folder) if (folder / "images").is_dir() and (folder / "masks").is_dir() else None
    if plain and plain.pairs:
        return plain
    instances = sorted(folder.glob("*/images")) + sorted(folder.glob("stage1_train/*/images"))
    if instances:
        return _instances([images.parent for images in instances])
    files = [file for file in sorted(folder.rglob("*")) if _is_image(file)]
    for layout, suffix in (("ISIC", "_segmentation"), ("Carvana", "_mask")):
        if any(file.stem.endswith(suffix) for file in files):
            return _suffixed(layout, files, suffix)
    if plain:
        return plain
    raise DataError(f"{folder}: needs the folders images/ and masks/, or another known layout: {KNOWN}")


def check(found: Found, classes: int = 0) -> list[str]:
    """Everything wrong with a recognised folder, every file opened; `classes` above 0 means masks of class indices."""
    problems = list(found.problems)
    foreground = False
    for pair in found.pairs:
        try:
            foreground |= bool(pair.load(classes)[1].any())
        except DataError as error:
            problems.append(str(error))
    if found.pairs and not foreground and not problems:
        problems.append("every mask is empty: there is nothing to learn")
    return problems


def _plain(folder: Path) -> Found:
    images, problems = _by_stem((folder / "images").iterdir())
    masks, more = _by_stem((folder / "masks").iterdir())
    if not images:
        problems.append(f"{folder / 'images'}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    problems += more + _unpaired(images, masks)
    groups = _groups(folder / "index.csv")
    both = sorted(images.keys() & masks.keys())
    return Found("images and masks", [Pair(n, images[n], masks[n], groups.get(n, "")) for n in both], problems)


def _instances(folders: Sequence[Path]) -> Found:
    """DSB-2018: a folder per image, with one mask for every nucleus."""
    found, problems = [], []
    for folder in folders:
        images = [file for file in sorted((folder / "images").iterdir()) if _is_image(file)]
        masks = [file for file in sorted((folder / "masks").glob("*")) if _is_image(file)]
        if len(images) != 1:
            problems.append(f"{folder / 'images'}: holds {len(images)} images in place of one")
        elif not masks:
            problems.append(f"{folder.name}: the image has no masks in {folder / 'masks'}")
        else:
            found.append(Pair(folder.name, images[0], folder / "masks", instances=tuple(masks)))
    return Found("DSB-2018", sorted(found, key=lambda pair: pair.name), problems)


def _suffixed(layout: str, files: Sequence[Path], suffix: str) -> Found:
    """Images and masks anywhere below the folder, a mask being NAME + `suffix`; one Carvana car is many images."""
    masks, problems = _by_stem((f for f in files if f.stem.endswith(suffix)), suffix)
    images, more = _by_stem(f for f in files if not f.stem.endswith(suffix))
    found = [
        Pair(name, images[name], masks[name], unit=name.rpartition("_")[0] if layout == "Carvana" else "")
        for name in sorted(images.keys() & masks.keys())
    ]
    return Found(layout, found, problems + more + _unpaired(images, masks))


def _by_stem(files: Iterable[Path], suffix: str = "") -> tuple[dict[str, Path], list[str]]:
    """({name: file} of the images among `files`, names less `suffix`; a line for every name that comes twice)."""
    named: dict[str, Path] = {}
    problems = []
    for file in sorted(files):
        name = file.stem.removesuffix(suffix)
        if not _is_image(file):
            continue
        if name in named:
            problems.append(f"{file}: a second file of the name {name}, beside {named[name].name}")
        named.setdefault(name, file)
    return named, problems


def _unpaired(images: dict[str, Path], masks: dict[str, Path]) -> list[str]:
    lonely = [f"{images[name]}: has no mask" for name in sorted(images.keys() - masks.keys())]
    return lonely + [f"{masks[name]}: a mask without an image" for name in sorted(masks.keys() - images.keys())]


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")


def _groups(index: Path) -> dict[str, str]:
    if not index.is_file():
        return {}
    with index.open(newline="") as file:
        return {row["name"]: row.get("modality", "") for row in csv.DictReader(file)}
