"""Broken data folders, one kind a test: every fault of each is found in one pass, with its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.train.data import dataset, layouts
from engine.train.data.check import check
from service import cli
from tests.pictures import exif, giant

Break = Callable[[Path], None]


def image_of(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def cut_short(data: Path) -> None:
    file = data / "images" / "disc01.png"
    file.write_bytes(file.read_bytes()[:300])
    (data / "masks" / "disc02.png").write_bytes(b"text")
    (data / "images" / "disc03.png").write_bytes(b"")


def unpaired(data: Path) -> None:
    (data / "masks" / "disc01.png").unlink()
    (data / "images" / "disc02.png").unlink()


def one_stem_twice(data: Path) -> None:
    image_of(data / "images" / "disc01.png").save(data / "images" / "disc01.tif")
    image_of(data / "masks" / "disc02.png").save(data / "masks" / "disc02.bmp")


def broken_link(data: Path) -> None:
    (data / "images" / "disc01.png").unlink()
    (data / "images" / "disc01.png").symlink_to(data / "nowhere.png")


def too_large(data: Path) -> None:
    (data / "images" / "disc01.png").write_bytes(giant(60000))


def other_sizes(data: Path) -> None:
    Image.new("1", (5, 6)).save(data / "masks" / "disc01.png")
    mask = image_of(data / "masks" / "disc02.png")
    mask.transpose(Image.Transpose.ROTATE_90).save(data / "masks" / "disc02.png")


def turned(data: Path) -> None:
    for name in ("disc01", "disc02"):
        image = image_of(data / "images" / f"{name}.png")
        image.save(data / "images" / f"{name}.png", exif=exif(3))  # but its mask stays as the pixels lie


def many_values(data: Path) -> None:
    Image.fromarray(np.arange(33 * 37, dtype=np.uint8).reshape(33, 37) % 3).save(data / "masks" / "disc01.png")
    image_of(data / "images" / "disc02.png").save(data / "masks" / "disc02.png")
    image_of(data / "images" / "disc03.png").resize((9, 8)).save(data / "masks" / "disc03.png")


def all_foreground(data: Path) -> None:
    Image.new("L", (37, 33), 255).save(data / "masks" / "disc01.png")
    rgba = np.full((64, 40, 4), 255, np.uint8)
    rgba[:, :, 3] = np.arange(40) + 100  # an alpha that says nothing clear
    Image.fromarray(rgba).save(data / "masks" / "disc02.png")


def constant(data: Path) -> None:
    Image.new("RGB", (37, 33), (7, 7, 7)).save(data / "images" / "disc01.png")


def odd_index(data: Path) -> None:
    (data / "index.csv").write_bytes("name;modality\ndisc00;café\nabsent;x\n".encode("cp1252"))


def foreign_index(data: Path) -> None:
    (data / "index.csv").write_text("path,label\na,b\n")


FOLDERS: dict[str, tuple[Break, list[tuple[str, str]]]] = {
    "cut short": (
        cut_short,
        [
            ("images/disc01.png", "truncated or damaged"),
            ("masks/disc02.png", "these 4 bytes are no image"),
            ("images/disc03.png", "the file is empty"),
        ],
    ),
    "unpaired": (
        unpaired,
        [("images/disc01.png", "has no mask"), ("masks/disc02.png", "without an image"), ("index.csv", "disc02")],
    ),
    "one stem twice": (
        one_stem_twice,
        [("images/disc01.tif", "beside disc01.png"), ("masks/disc02.png", "beside disc02.bmp")],
    ),
    "a broken link": (broken_link, [("images/disc01.png", "cannot be read: No such file")]),
    "too large": (too_large, [("images/disc01.png", "60000 x 60000")]),
    "other sizes": (
        other_sizes,
        [
            ("masks/disc01.png", "is 5 x 6, but its image 37 x 33"),
            ("masks/disc02.png", "is 64 x 40, but its image 40 x 64: turned by a quarter"),
        ],
    ),
    "turned": (turned, [("masks/disc01.png", "by 180 degrees"), ("masks/disc02.png", "by 180 degrees")]),
    "many values": (
        many_values,
        [
            ("masks/disc01.png", "holds 3 values (0, 1, 2);"),
            ("masks/disc02.png", "not a binary mask"),
            ("masks/disc03.png", "not a binary mask"),
            ("masks/disc03.png", "is 9 x 8, but its image 48 x 40"),
        ],
    ),
    "all foreground": (
        all_foreground,
        [("masks/disc01.png", "is all foreground"), ("masks/disc02.png", "alpha values (100, 101,")],
    ),
    "constant": (constant, [("images/disc01.png", "is constant: every sample is 7")]),
    "an index that names others": (odd_index, [("index.csv", "names 1 images that are not there: absent")]),
    "an index of another purpose": (foreign_index, [("index.csv", "is passed over: it has no column name")]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_fault_is_in_the_table(kind: str, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, expected = FOLDERS[kind]
    spoil(data)
    assert cli.main(["data", "check", str(data)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for file, what in expected:
        assert any(line.startswith(file) and what in line for line in lines), (file, what, lines)
    assert f"{len(expected)} faults in {len({file for file, _ in expected})} files" in lines


@pytest.mark.parametrize(("change", "says"), [(0, "equal to"), (1, "nearly equal to")])
def test_images_on_both_sides_of_the_split_are_told(data: Path, change: int, says: str) -> None:
    training, held = dataset.split(layouts.samples(data), 0.2, 0)
    there, here = next((a, b) for a in training for b in held if a.size == b.size)
    pixels = np.asarray(image_of(there.image))
    Image.fromarray(pixels ^ np.uint8(change)).save(here.image)  # the lowest bit of every sample
    image_of(there.mask).save(here.mask)
    (fault,) = check(layouts.recognize(data), 0, 0.2, 0)
    assert fault.file == here.image
    assert f"is held for validation, and {says} {there.image.name} on the other side" in fault.what
    assert not fault.stops
    layouts.samples(data)


def test_a_sound_folder_has_no_faults(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(layouts.recognize(data), 0, 0.2, 0) == []
    assert cli.main(["data", "check", str(data)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("names", "group", "said"),
    [
        (("disc00",), "", "(1) and to hold for validation (0): at least two are needed, one for each"),
        (("disc00", "disc02"), "disc", "(0) and to hold for validation (2): at least two groups"),
        (("disc00", "disc02"), "", ""),
    ],
)
def test_too_few_samples_are_told_as_training_tells_it(
    names: tuple[str, ...], group: str, said: str, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "index.csv").unlink()
    for file in [*data.glob("*/*.png")]:
        if file.stem not in names:
            file.unlink()
    command = ["data", "check", str(data), *(["--group", group] if group else [])]
    assert cli.main(command) == bool(said)
    out = capsys.readouterr().out
    assert said in out
    assert ("too few samples" in out, "next: mbunet train" in out) == (bool(said), not said)


def test_empty_masks_are_a_fault_where_all_are(data: Path) -> None:
    for file in (data / "masks").iterdir():
        Image.new("L", image_of(file).size).save(file)
    (fault,) = check(layouts.recognize(data), 0, 0.2, 0)
    assert (fault.file, fault.stops) == (data, True)
    assert "every mask is empty" in fault.what


def test_classes_that_never_occur_are_told(data: Path) -> None:
    for file in (data / "masks").iterdir():
        Image.fromarray(np.asarray(image_of(file)).astype(np.uint8) * np.uint8(2)).save(file)
    faults = check(layouts.recognize(data), 4, 0.2, 0)
    assert [fault.what for fault in faults] == ["class 1 occurs in no mask", "class 3 occurs in no mask"]
