"""Where a data set keeps its images and masks: the layout of this project, and those of sets as they are downloaded.

Each layout looks at file names alone, as the sets are downloaded and unpacked, and gives the samples that it finds and
everything that is wrong with the folder. What is wrong inside a file only `check.check` finds.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.images import FIRST, SUFFIXES, Selection, is_named_image
from engine.train.data import index
from engine.train.data.dataset import TEST, TRAINING, VALIDATION, Dataset, Drawn, Fault, Sample
from engine.train.data.files import DataError

PLAIN = Drawn()
HELD_OUT = re.compile(r"\d+_RS_386_")
"""Begins names of samples that are a test part wherever they lie: of the highway that road-damage is tested on."""

Reading = tuple[list[Sample], list[Fault]]
"""(samples, what is wrong with the folder)."""


@dataclass(frozen=True)
class Layout:
    """A way to lay out a folder: its name, how people recognize it, and what is in a folder, None for other layouts.

    `classes` are the names of its classes, where it has several.
    """

    name: str
    looks: str
    read: Callable[[Path], Reading | None]
    classes: tuple[str, ...] = ()


def samples(folder: str | Path, selection: Selection = FIRST) -> list[Sample]:
    """Every image of `folder` with its mask, sorted by name; raises DataError for what is missing or unpaired."""
    found = recognize(folder, selection)
    faults = [fault for fault in found.faults if fault.stops]
    if faults:
        more = f" (and {len(faults) - 1} more: `mbunet data check`)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")
    return found.samples


def recognize(folder: str | Path, selection: Selection = FIRST) -> Dataset:
    """The data set in `folder`, by the first layout that finds samples there; raises DataError where none does."""
    if not Path(folder).is_dir():
        raise DataError(f"no such folder: {folder}")
    empty = None
    for layout in LAYOUTS:
        reading = layout.read(Path(folder))
        if reading:
            chosen, misused = _tested(replace(sample, selection=selection) for sample in reading[0])
            found = Dataset(Path(folder), layout.name, chosen, reading[1] + misused, layout.classes)
            if chosen:
                return found
            empty = empty or found
    if empty:
        return empty
    known = "; ".join(f"{layout.name} ({layout.looks})" for layout in LAYOUTS[1:])
    raise DataError(f"{folder}: needs the folders images/ and masks/ ({LAYOUTS[0].looks}), or another layout: {known}")


def _tested(samples: Iterable[Sample]) -> Reading:
    """`samples`, those that are HELD_OUT in the test part; faults where a folder puts such a one in another."""
    found, faults = [], []
    for sample in samples:
        held_out = HELD_OUT.match(sample.name)
        if held_out and sample.part not in ("", TEST):
            faults.append(Fault(sample.image, f"is of a test part, so it cannot be for {sample.part}"))
        found.append(replace(sample, part=TEST) if held_out else sample)
    return found, faults


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
        drawn = Drawn(void=int(told.void)) if told.void.isdecimal() else PLAIN
        found.append(
            Sample(name, images[name], masks[name], told.stratum, told.split_group, part=told.part, drawn=drawn)
        )
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
        files = [file for file in _below(folder) if is_named_image(file)]
        masks, faults = _by_stem((f for f in files if f.stem.endswith(suffix)), suffix)
        images, more = _by_stem(f for f in files if not f.stem.endswith(suffix))
        names = sorted(images.keys() & masks.keys())
        found = [Sample(name, images[name], masks[name], split_group=split_group(name)) for name in names]
        return (found, faults + more + _unpaired(images, masks)) if masks else None

    return read


def _chase(folder: Path) -> Reading | None:
    """Two eyes a patient, two observers: the first one's masks. Patients 11 to 14 are the usual test."""
    images = sorted(folder.glob("Image_[0-9][0-9][LR].jpg"))
    found, faults = [], []
    for image in images:
        mask = image.with_name(f"{image.stem}_1stHO.png")
        patient = image.stem[6:8]
        part = TEST if patient >= "11" else ""
        if mask.is_file():
            found.append(Sample(image.stem, image, mask, split_group=patient, part=part))
        else:
            faults.append(Fault(image, f"has no mask {mask.name}"))
    return (found, faults) if images else None


def _divided(
    parts: Mapping[str, tuple[str, str]], drawn: Drawn = PLAIN, suffixes: tuple[str, str] = ("", "")
) -> Callable[[Path], Reading | None]:
    """Folders (of images, of masks) for each part; a name is a file's place in them, less the `suffixes` of both."""

    def read(folder: Path) -> Reading | None:
        found: list[Sample] = []
        faults: list[Fault] = []
        for part, folders in parts.items():
            if all((folder / below).is_dir() for below in folders):
                images, masks = (_by_place(folder / below, end) for below, end in zip(folders, suffixes, strict=True))
                names = sorted(images.keys() & masks.keys())
                found += [Sample(name, images[name], masks[name], part=part, drawn=drawn) for name in names]
                faults += _unpaired(images, masks)
        return (sorted(found, key=lambda sample: sample.name), faults) if found or faults else None

    return read


def _by_place(folder: Path, suffix: str) -> dict[str, Path]:
    """{place below `folder` less `suffix`: file}; masks of instances beside those of classes are passed over."""
    files = [file for file in _below(folder) if file.stem.endswith(suffix) and is_named_image(file)]
    wanted = [file for file in files if not file.stem.endswith(f"_inst{suffix}")]
    return {(file.parent.relative_to(folder) / file.stem.removesuffix(suffix)).as_posix(): file for file in wanted}


def _below(folder: Path) -> list[Path]:
    """All files below `folder`, sorted, but for what runs have left there: their pictures are no samples."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _holds_run(Path(place, name))]
        found += (Path(place, name) for name in names)
    return sorted(found)


def _holds_run(folder: Path) -> bool:
    """Whether `folder` is the output of a recipe, of a training run, be it killed before it saved, or of a study."""
    marked = any((folder / name).is_file() for name in ("recipe.json", "checkpoint.pt"))
    drawn = all((folder / name).is_file() for name in ("log.csv", "curves.png"))
    return marked or drawn or any((folder / "rows").glob("*.json"))


def _roads(folder: Path) -> Reading | None:
    """A folder for each photograph, with one mask for the lane, for cracks and for potholes.

    A group is a highway; one of them is HELD_OUT.
    """
    layers = ("LANE", "CRACK", "POTHOLE")
    found, faults = [], []
    for image in sorted([*folder.glob("*/*_RAW.jpg"), *folder.glob("Dataset/*/*_RAW.jpg")]):
        name = image.stem.removesuffix("_RAW")
        masks = tuple(image.with_name(f"{name}_{layer}.png") for layer in layers)
        highway = "_".join(name.split("_")[1:3])
        missing = [mask.name for mask in masks if not mask.is_file()]
        if missing:
            faults.append(Fault(image, f"has no mask {', '.join(missing)}"))
        else:
            found.append(Sample(name, image, image.parent, "", highway, masks, drawn=Drawn(paints=(1, 2, 3))))
    return (sorted(found, key=lambda sample: sample.name), faults) if found or faults else None


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


CAMVID = {TRAINING: ("train", "trainannot"), VALIDATION: ("val", "valannot"), TEST: ("test", "testannot")}
CAMVID_CLASSES = (
    "sky",
    "building",
    "pole",
    "road",
    "pavement",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "cyclist",
)
IDD = {part: (f"leftImg8bit/{name}", f"gtFine/{name}") for part, name in ((TRAINING, "train"), (VALIDATION, "val"))}
IDD_CLASSES = ("drivable", "non-drivable", "living", "vehicle", "roadside", "far", "sky")
ROAD_CLASSES = ("background", "road", "crack", "pothole")
DUTS, ECSSD = {"": ("DUTS-TR-Image", "DUTS-TR-Mask")}, {TEST: ("images", "ground_truth_mask")}
SOFT = Drawn(cut=128)

LAYOUTS: Sequence[Layout] = (
    Layout("images and masks", "images/NAME.png|jpg beside masks/NAME.png", _images_and_masks),
    Layout("DSB-2018", "Kaggle's: ID/images, ID/masks", _instances),
    Layout("ISIC", "ISIC_x.jpg, ISIC_x_segmentation.png", _suffixed("_segmentation")),
    Layout("Carvana", "x_01.jpg, x_01_mask.gif", _suffixed("_mask", lambda name: name.rpartition("_")[0])),
    Layout("CHASE_DB1", "Image_01L.jpg, Image_01L_1stHO.png", _chase),
    Layout("CamVid", "SegNet's: train/ beside trainannot/, …", _divided(CAMVID, Drawn(void=11)), CAMVID_CLASSES),
    Layout(
        "IDD-Lite",
        "leftImg8bit/train/N/x_image.jpg, gtFine/train/N/x_label.png",
        _divided(IDD, Drawn(void=255), ("_image", "_label")),
        IDD_CLASSES,
    ),
    Layout("DUTS-TR", "DUTS-TR-Image/, DUTS-TR-Mask/", _divided(DUTS, SOFT)),
    Layout("ECSSD", "images/, ground_truth_mask/", _divided(ECSSD, SOFT)),
    Layout("Cracks and potholes", "ID/ID_RAW.jpg, ID_LANE.png, ID_CRACK.png, ID_POTHOLE.png", _roads, ROAD_CLASSES),
)
"""Every layout, in the order in which they are tried."""
