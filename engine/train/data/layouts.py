"""Where a data set keeps its images and masks: the layouts of this project, Kaggle DSB-2018, ISIC and Carvana.

Each layout looks at file names alone, as the sets are downloaded and unpacked, and gives the samples that it finds and
everything that is wrong with the folder. What is wrong inside a file only `check.check` finds.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.images import FIRST, SUFFIXES, Selection, is_named_image
from engine.train.data import index
from engine.train.data.dataset import Dataset, Fault, Sample
from engine.train.data.files import DataError

Reading = tuple[list[Sample], list[Fault]]
"""(samples, what is wrong with the folder)."""


@dataclass(frozen=True)
class Layout:
    """A way to lay out a folder: its name, how people recognize it, and what is in a folder, None for other layouts."""

    name: str
    looks: str
    read: Callable[[Path], Reading | None]


def samples(folder: str | Path, selection: Selection = FIRST) -> list[Sample]:
    """Every image of `folder` with its mask, sorted by name; raises DataError for what is missing or unpaired."""
    found = recognize(folder, selection)
    faults = [fault for fault in found.faults if fault.stops]
    if faults:
        more = f" (and {len(faults) - 1} more: `mbunet data check`)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    return found.samples


def recognize(folder: str | Path, selection: Selection = FIRST) -> Dataset:
    """The data set in `folder`, by the first layout that finds samples there; raises DataError where none fits."""
    empty = None
    for layout in LAYOUTS:
        reading = layout.read(Path(folder))
        if reading:
            chosen = [replace(sample, selection=selection) for sample in reading[0]]
            found = Dataset(Path(folder), layout.name, chosen, reading[1])
            if chosen:
                return found
            empty = empty or found
    if empty:
        return empty
    known = "; ".join(f"{layout.name} ({layout.looks})" for layout in LAYOUTS[1:])
    raise DataError(f"{folder}: needs the folders images/ and masks/ ({LAYOUTS[0].looks}), or another layout: {known}")


def _images_and_masks(folder: Path) -> Reading | None:
    if not ((folder / "images").is_dir() and (folder / "masks").is_dir()):
        return None
    images, faults = _by_stem((folder / "images").iterdir())
    masks, more = _by_stem((folder / "masks").iterdir())
    if not images:
        faults.append(Fault(folder / "images", f"holds no images ({', '.join(SUFFIXES)})"))
    entries, of_index = index.read(folder / "index.csv", images)
    found = []
    for name in sorted(images.keys() & masks.keys()):
        told = entries.get(name, index.Entry())
        found.append(Sample(name, images[name], masks[name], told.stratum, told.split_group, part=told.part))
    return found, faults + more + _unpaired(images, masks) + of_index


def _instances(folder: Path) -> Reading | None:
    """A folder for each image, with one mask for every nucleus."""
    parts = [images.parent for inside in ("*", "stage1_train/*") for images in sorted(folder.glob(f"{inside}/images"))]
    found, faults = [], []
    for part in parts:
        images = [file for file in sorted((part / "images").iterdir()) if is_named_image(file)]
        masks = [file for file in sorted((part / "masks").glob("*")) if is_named_image(file)]
        if len(images) != 1:
            faults.append(Fault(part / "images", f"holds {len(images)} images in place of one"))
        elif not masks:
            faults.append(Fault(part / "masks", "holds no masks of its image"))
        else:
            found.append(Sample(part.name, images[0], part / "masks", instances=tuple(masks)))
    return (sorted(found, key=lambda sample: sample.name), faults) if parts else None


def _suffixed(suffix: str, split_group: Callable[[str], str] = lambda _: "") -> Callable[[Path], Reading | None]:
    """Images and masks anywhere below the folder, a mask being NAME + `suffix`."""

    def read(folder: Path) -> Reading | None:
        files = [file for file in sorted(folder.rglob("*")) if is_named_image(file)]
        masks, faults = _by_stem((f for f in files if f.stem.endswith(suffix)), suffix)
        images, more = _by_stem(f for f in files if not f.stem.endswith(suffix))
        names = sorted(images.keys() & masks.keys())
        found = [Sample(name, images[name], masks[name], split_group=split_group(name)) for name in names]
        return (found, faults + more + _unpaired(images, masks)) if masks else None

    return read


def _by_stem(files: Iterable[Path], suffix: str = "") -> tuple[dict[str, Path], list[Fault]]:
    """({name: file} of the images among `files`, names less `suffix`; a fault for every name that comes twice).

    Names are equal however their accents are composed: Macs write them taken apart, others as one letter.
    """
    named: dict[str, Path] = {}
    faults = []
    for file in sorted(files):
        name = unicodedata.normalize("NFC", file.stem).removesuffix(suffix)
        if not is_named_image(file):
            continue
        if name in named:
            faults.append(Fault(file, f"a second file of the name {name}, beside {named[name].name}"))
        named.setdefault(name, file)
    return named, faults


def _unpaired(images: dict[str, Path], masks: dict[str, Path]) -> list[Fault]:
    lonely = [Fault(images[name], "has no mask") for name in sorted(images.keys() - masks.keys())]
    return lonely + [Fault(masks[name], "a mask without an image") for name in sorted(masks.keys() - images.keys())]


LAYOUTS: Sequence[Layout] = (
    Layout("images and masks", "images/NAME.png|jpg beside masks/NAME.png", _images_and_masks),
    Layout("DSB-2018", "Kaggle's: ID/images, ID/masks", _instances),
    Layout("ISIC", "ISIC_x.jpg, ISIC_x_segmentation.png", _suffixed("_segmentation")),
    Layout("Carvana", "x_01.jpg, x_01_mask.gif", _suffixed("_mask", lambda name: name.rpartition("_")[0])),
)
"""Every layout, in the order in which they are tried."""
