"""Where a data set keeps its images and masks: the layouts of this project, Kaggle DSB-2018, ISIC and Carvana.

Each layout looks at file names alone, as the sets are downloaded and unpacked, and gives the samples that it finds and
everything that is wrong with the folder. What is wrong inside a file only `Dataset.check` finds.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.train.data.dataset import Dataset, Sample
from engine.train.data.files import SUFFIXES, DataError, is_image

Reading = tuple[list[Sample], list[str]]
"""(samples, what is wrong with the folder, a line each)."""


@dataclass(frozen=True)
class Layout:
    """A way to lay out a folder: its name, how people recognize it, and what is in a folder, None for other layouts."""

    name: str
    looks: str
    read: Callable[[Path], Reading | None]


def samples(folder: str | Path) -> list[Sample]:
    """Every image of `folder` with its mask, sorted by name; raises DataError for what is missing or unpaired."""
    found = recognize(folder)
    if found.problems:
        more = f" (and {len(found.problems) - 1} more: `mbunet data check`)" if len(found.problems) > 1 else ""
        raise DataError(f"{found.problems[0]}{more}")
    return found.samples


def recognize(folder: str | Path) -> Dataset:
    """The data set in `folder`, by the first layout that finds samples there; raises DataError where none fits."""
    empty = None
    for layout in LAYOUTS:
        reading = layout.read(Path(folder))
        if reading and reading[0]:
            return Dataset(layout.name, *reading)
        if reading:
            empty = empty or Dataset(layout.name, *reading)
    if empty:
        return empty
    known = "; ".join(f"{layout.name} ({layout.looks})" for layout in LAYOUTS[1:])
    raise DataError(f"{folder}: needs the folders images/ and masks/ ({LAYOUTS[0].looks}), or another layout: {known}")


def _images_and_masks(folder: Path) -> Reading | None:
    if not ((folder / "images").is_dir() and (folder / "masks").is_dir()):
        return None
    images, problems = _by_stem((folder / "images").iterdir())
    masks, more = _by_stem((folder / "masks").iterdir())
    if not images:
        problems.append(f"{folder / 'images'}: holds no images ({', '.join(SUFFIXES)})")
    strata = _strata(folder / "index.csv")
    found = [Sample(n, images[n], masks[n], strata.get(n, "")) for n in sorted(images.keys() & masks.keys())]
    return found, problems + more + _unpaired(images, masks)


def _instances(folder: Path) -> Reading | None:
    """A folder for each image, with one mask for every nucleus."""
    parts = [images.parent for inside in ("*", "stage1_train/*") for images in sorted(folder.glob(f"{inside}/images"))]
    found, problems = [], []
    for part in parts:
        images = [file for file in sorted((part / "images").iterdir()) if is_image(file)]
        masks = [file for file in sorted((part / "masks").glob("*")) if is_image(file)]
        if len(images) != 1:
            problems.append(f"{part / 'images'}: holds {len(images)} images in place of one")
        elif not masks:
            problems.append(f"{part.name}: the image has no masks in {part / 'masks'}")
        else:
            found.append(Sample(part.name, images[0], part / "masks", instances=tuple(masks)))
    return (sorted(found, key=lambda sample: sample.name), problems) if parts else None


def _suffixed(suffix: str, split_group: Callable[[str], str] = lambda _: "") -> Callable[[Path], Reading | None]:
    """Images and masks anywhere below the folder, a mask being NAME + `suffix`."""

    def read(folder: Path) -> Reading | None:
        files = [file for file in sorted(folder.rglob("*")) if is_image(file)]
        masks, problems = _by_stem((f for f in files if f.stem.endswith(suffix)), suffix)
        images, more = _by_stem(f for f in files if not f.stem.endswith(suffix))
        names = sorted(images.keys() & masks.keys())
        found = [Sample(name, images[name], masks[name], split_group=split_group(name)) for name in names]
        return (found, problems + more + _unpaired(images, masks)) if masks else None

    return read


def _by_stem(files: Iterable[Path], suffix: str = "") -> tuple[dict[str, Path], list[str]]:
    """({name: file} of the images among `files`, names less `suffix`; a line for every name that comes twice)."""
    named: dict[str, Path] = {}
    problems = []
    for file in sorted(files):
        name = file.stem.removesuffix(suffix)
        if not is_image(file):
            continue
        if name in named:
            problems.append(f"{file}: a second file of the name {name}, beside {named[name].name}")
        named.setdefault(name, file)
    return named, problems


def _unpaired(images: dict[str, Path], masks: dict[str, Path]) -> list[str]:
    lonely = [f"{images[name]}: has no mask" for name in sorted(images.keys() - masks.keys())]
    return lonely + [f"{masks[name]}: a mask without an image" for name in sorted(masks.keys() - images.keys())]


def _strata(index: Path) -> dict[str, str]:
    if not index.is_file():
        return {}
    with index.open(newline="") as file:
        return {row["name"]: row.get("modality", "") for row in csv.DictReader(file)}


LAYOUTS: Sequence[Layout] = (
    Layout("images and masks", "images/NAME.png|jpg beside masks/NAME.png", _images_and_masks),
    Layout("DSB-2018", "Kaggle's: ID/images, ID/masks", _instances),
    Layout("ISIC", "ISIC_x.jpg, ISIC_x_segmentation.png", _suffixed("_segmentation")),
    Layout("Carvana", "x_01.jpg, x_01_mask.gif", _suffixed("_mask", lambda name: name.rpartition("_")[0])),
)
"""Every layout, in the order in which they are tried."""
