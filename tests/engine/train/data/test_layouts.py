"""Data sets as they are downloaded, as tiny synthetic trees: recognised, split, everything wrong with them named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.train.data import dataset, layouts
from engine.train.data.check import check
from engine.train.data.dataset import VOID
from engine.train.data.files import DataError


def picture(path: Path, size: tuple[int, int] = (8, 6)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 10, 10)).save(path)


def mask(path: Path, *boxes: tuple[int, int, int, int], size: tuple[int, int] = (8, 6)) -> None:
    """A mask of 255 inside `boxes` (left, top, right, bottom) and 0 outside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size)
    for box in boxes:
        image.paste(255, box)
    image.save(path)


def dsb(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / name / "images" / f"{name}.png")
        mask(root / name / "masks" / "a.png", (0, 0, 2, 2))
        mask(root / name / "masks" / "b.png", (5, 3, 8, 6))
    return root


def isic(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / "ISIC2018_Task1-2_Training_Input" / f"{name}.jpg")
        mask(root / "ISIC2018_Task1_Training_GroundTruth" / f"{name}_segmentation.png", (1, 1, 4, 4))
    return root


def idd(root: Path, *names: str) -> Path:
    for name in names:
        picture(root / "leftImg8bit" / "train" / "0" / f"{name}_image.jpg")
        mask(root / "gtFine" / "train" / "0" / f"{name}_label.png")
    return root


def carvana(root: Path, cars: int, views: int = 2) -> Path:
    for car in range(cars):
        for view in range(1, views + 1):
            picture(root / "train" / f"car{car}_{view:02}.jpg")
            mask(root / "train_masks" / f"car{car}_{view:02}_mask.gif", (1, 1, 4, 4))
    return root


@pytest.mark.parametrize("wanted", ["nowhere", "a file"])
def test_a_folder_that_does_not_exist_is_told_at_once(wanted: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    for read in (layouts.recognize, layouts.samples):
        with pytest.raises(DataError) as caught:
            read(tmp_path / wanted)
        assert str(caught.value) == f"no such folder: {tmp_path / wanted}"


@pytest.mark.parametrize("inside", ["", "stage1_train"])
def test_dsb_instances_are_merged(tmp_path: Path, inside: str) -> None:
    dsb(tmp_path / inside, "one", "two")
    found = layouts.recognize(tmp_path)
    assert (found.layout, [sample.name for sample in found.samples], found.faults) == ("DSB-2018", ["one", "two"], [])
    _, merged = found.samples[0].load()
    expected = np.zeros((6, 8), np.uint8)
    expected[:2, :2] = expected[3:, 5:] = 1
    np.testing.assert_array_equal(merged, expected)


def test_isic_masks_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    found = layouts.recognize(isic(tmp_path, "ISIC_0000001", "ISIC_0000000"))
    assert (found.layout, [sample.name for sample in found.samples]) == ("ISIC", ["ISIC_0000000", "ISIC_0000001"])
    assert found.samples[0].load()[1].sum() == 9


@pytest.mark.parametrize(
    "left",
    [
        ("recipe.json",),
        ("bits/checkpoint.pt", "recipe.json"),
        ("checkpoint.pt",),
        ("log.csv", "curves.png"),
        ("rows/a.json",),
    ],
)
@pytest.mark.parametrize("layout", [isic, idd])
def test_what_a_run_has_left_below_its_data_is_no_sample(
    layout: Callable[..., Path], left: tuple[str, ...], tmp_path: Path
) -> None:
    before = layouts.recognize(layout(tmp_path, "ISIC_0", "ISIC_1"))
    out = before.samples[0].image.parent / "runs" / "mine"
    for name in left:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"")
    for name in ("curves.png", "bits/examples.png", "bits/curves_image.png", "models/x_segmentation.png"):
        picture(out / name)
    assert layouts.recognize(tmp_path) == before


def test_carvana_is_split_by_car(tmp_path: Path) -> None:
    items = layouts.samples(carvana(tmp_path, cars=5))
    assert items[0].split_group == "car0"
    assert items[0].load()[1].sum() == 9
    training, held = dataset.split(items, 0.2, seed=3)
    assert {sample.split_group for sample in training}.isdisjoint(sample.split_group for sample in held)
    assert (len(training), len(held)) == (8, 2)
    assert dataset.split(items[::-1], 0.2, seed=3)[1] == held[::-1]
    assert any(dataset.split(items, 0.2, seed=seed)[1] != held for seed in range(5))


@pytest.mark.parametrize("suffix", ["_mask", "_segmentation"])
def test_masks_of_suffixed_names_may_lie_in_images_and_masks(tmp_path: Path, suffix: str) -> None:
    picture(tmp_path / "images" / "car0_01.jpg")
    mask(tmp_path / "masks" / f"car0_01{suffix}.png", (1, 1, 4, 4))
    found = layouts.recognize(tmp_path)
    assert ([sample.name for sample in found.samples], found.faults) == (["car0_01"], [])
    assert found.samples[0].load()[1].sum() == 9


def test_what_is_no_layout_is_refused_with_those_that_are(tmp_path: Path) -> None:
    picture(tmp_path / "cat.png")
    with pytest.raises(DataError, match=r"images/ and masks/.*DSB.*ISIC.*Carvana"):
        layouts.samples(tmp_path)


def test_every_problem_of_a_folder_is_named(data: Path) -> None:
    """`data`: images/ and masks/ of discs, all of which are right but for what is done to them here."""
    (data / "masks" / "disc01.png").unlink()
    (data / "images" / "disc02.png").unlink()
    Image.new("1", (5, 6)).save(data / "masks" / "disc03.png")
    Image.fromarray(np.arange(40 * 48, dtype=np.uint8).reshape(40, 48)).save(data / "masks" / "disc06.png")
    (data / "images" / "disc07.png").write_bytes(b"no image")
    picture(data / "images" / "disc08.jpg", size=(40, 64))
    (data / "images" / "._disc09.png").write_bytes(b"left behind by a Mac")
    found = layouts.recognize(data)
    assert len(found.samples) == 10
    expected = ["second file of the name disc08", r"disc01.png: has no mask", "disc02.png: a mask without an image"]
    for part, fault in zip(expected, found.faults[:3], strict=True):
        assert part in str(fault)
    with pytest.raises(DataError, match="and 2 more: `mbunet data check`"):
        layouts.samples(data)


def test_dsb_folders_without_image_or_masks_are_named(tmp_path: Path) -> None:
    dsb(tmp_path, "one", "two", "three")
    (tmp_path / "one" / "images" / "one.png").unlink()
    for file in (tmp_path / "two" / "masks").iterdir():
        file.unlink()
    found = layouts.recognize(tmp_path)
    assert [sample.name for sample in found.samples] == ["three"]
    assert [(fault.file, fault.what) for fault in found.faults] == [
        (tmp_path / "one" / "images", "holds 0 images in place of one"),
        (tmp_path / "two" / "masks", "holds no masks of its image"),
    ]


def test_index_masks_give_their_own_values(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    picture(tmp_path / "images" / "grey.png", size=(3, 2))
    picture(tmp_path / "images" / "palette.png", size=(3, 2))
    (tmp_path / "masks").mkdir()
    Image.fromarray(values).save(tmp_path / "masks" / "grey.png")
    coloured = Image.fromarray(values, "P")
    coloured.putpalette([0, 0, 0, 9, 200, 30, 250, 1, 2])
    coloured.save(tmp_path / "masks" / "palette.png")
    for sample in layouts.samples(tmp_path):
        np.testing.assert_array_equal(sample.load(classes=3)[1], values)
        with pytest.raises(DataError, match=r"holds class 2, but the 2 classes are 0 to 1"):
            sample.load(classes=2)
        with pytest.raises(DataError, match="not a binary mask"):
            sample.load()


def drawn(path: Path, values: list[list[int]]) -> None:
    """A grey image of those values, 8 times as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.kron(np.array(values, np.uint8), np.ones((8, 8), np.uint8))).save(path)


def of_part(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sample in layouts.samples(folder):
        found.setdefault(sample.part, []).append(sample.name)
    return found


def test_camvid_comes_with_its_parts_its_classes_and_pixels_without_a_name(tmp_path: Path) -> None:
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        drawn(tmp_path / part / f"{name}.png", [[9, 90]])
        drawn(tmp_path / f"{part}annot" / f"{name}.png", [[3, 11]])
    found = layouts.recognize(tmp_path)
    assert (found.layout, len(found.classes), found.faults) == ("CamVid", 11, [])
    assert of_part(tmp_path) == {"training": ["a"], "validation": ["b"], "test": ["c"]}
    _, mask = found.samples[0].load(len(found.classes))
    assert (mask[0, 0], mask[0, 8]) == (3, VOID)
    drawn(tmp_path / "trainannot" / "a.png", [[3, 12]])
    with pytest.raises(DataError, match="holds class 12, but the 11 classes are 0 to 10"):
        found.samples[0].load(11)


def test_idd_lite_is_read_by_drive_and_without_its_instances(tmp_path: Path) -> None:
    for part, drive in (("train", "0"), ("train", "7"), ("val", "3")):
        drawn(tmp_path / "leftImg8bit" / part / drive / "024541_image.jpg", [[9, 90]])
        for kind in ("label", "inst_label"):
            drawn(tmp_path / "gtFine" / part / drive / f"024541_{kind}.png", [[6, 255]])
    found = layouts.recognize(tmp_path)
    assert (found.layout, len(found.classes), found.faults) == ("IDD-Lite", 7, [])
    assert of_part(tmp_path) == {"training": ["0/024541", "7/024541"], "validation": ["3/024541"]}
    assert np.unique(found.samples[0].load(7)[1]).tolist() == [6, VOID]


def test_soft_masks_of_salient_objects_are_cut_at_the_middle(tmp_path: Path) -> None:
    for name, dark in (("x", 9), ("y", 200)):
        drawn(tmp_path / "duts" / "DUTS-TR-Image" / f"{name}.jpg", [[dark, 90, dark]])
        drawn(tmp_path / "duts" / "DUTS-TR-Mask" / f"{name}.png", [[127, 128, 255]])
    drawn(tmp_path / "ecssd" / "images" / "0001.jpg", [[9, 90]])
    drawn(tmp_path / "ecssd" / "ground_truth_mask" / "0001.png", [[0, 255]])
    found = layouts.recognize(tmp_path / "duts")
    assert found.layout == "DUTS-TR"
    assert found.samples[0].load()[1][0, ::8].tolist() == [0, 1, 1]
    assert of_part(tmp_path / "ecssd") == {"test": ["0001"]}
    assert [f.what for f in check(found, 0, 0.2, 0)] == []


def test_roads_are_painted_layer_by_layer_and_one_highway_is_the_test(tmp_path: Path) -> None:
    names = [f"{1000 + k}_{highway}_x_{k}" for k, highway in enumerate(["RS_290", "RS_290", "DF_010", "RS_386"])]
    for name in names:
        drawn(tmp_path / "Dataset" / name / f"{name}_RAW.jpg", [[9, 90, 200, 9]])
        for layer, shape in (("LANE", [0, 255, 255, 255]), ("CRACK", [0, 0, 255, 255]), ("POTHOLE", [0, 0, 0, 255])):
            drawn(tmp_path / "Dataset" / name / f"{name}_{layer}.png", [shape])
    found = layouts.recognize(tmp_path)
    assert (found.classes, found.faults) == (("background", "road", "crack", "pothole"), [])
    assert found.samples[0].load(4)[1][0, ::8].tolist() == [0, 1, 2, 3]
    assert found.samples[0].load()[1][0, ::8].tolist() == [0, 1, 1, 1]
    training, held = dataset.split(found.samples, 0.5, 0)
    assert {"RS_386"}.isdisjoint(sample.split_group for sample in (*training, *held))
    assert {sample.split_group for sample in training}.isdisjoint(sample.split_group for sample in held)
    (tmp_path / "Dataset" / names[0] / f"{names[0]}_CRACK.png").unlink()
    assert "has no mask" in str(layouts.recognize(tmp_path).faults[0])


def test_chase_takes_the_first_observer_and_leaves_four_patients_alone(tmp_path: Path) -> None:
    for patient in ("01", "02", "11", "14"):
        for eye in "LR":
            drawn(tmp_path / f"Image_{patient}{eye}.jpg", [[9, 90]])
            drawn(tmp_path / f"Image_{patient}{eye}_1stHO.png", [[0, 255]])
            drawn(tmp_path / f"Image_{patient}{eye}_2ndHO.png", [[255, 255]])
    found = layouts.recognize(tmp_path)
    assert (found.layout, found.faults) == ("CHASE_DB1", [])
    assert {s.split_group for s in found.samples if s.part == "test"} == {"11", "14"}
    assert found.samples[0].load()[1][0, ::8].tolist() == [0, 1]
    training, held = dataset.split(found.samples, 0.5, 0)
    assert sorted(s.split_group for s in (*training, *held)) == ["01", "01", "02", "02"]
    assert len({s.split_group for s in held}) == 1
