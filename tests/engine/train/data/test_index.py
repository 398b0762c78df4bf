"""index.csv as spreadsheets write it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.train.data import dataset, index, layouts
from engine.train.data.files import DataError
from engine.train.data.index import Entry

TEXT = "name,modality\r\ncell,fluorescence\r\nzelle,dünn\r\n"
EXPECTED = {"cell": Entry("fluorescence"), "zelle": Entry("dünn")}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_any_separator_and_encoding_is_read(tmp_path: Path, encoding: str, separator: str) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(TEXT.replace(",", separator).encode(encoding))
    assert index.read(path, EXPECTED) == (EXPECTED, [])


def test_names_may_have_a_suffix_and_heads_may_be_capitals(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text(" Name ,MODALITY,more\ncell.png, fluorescence ,1\nzelle.TIF,dünn\n")
    assert index.read(path, EXPECTED) == (EXPECTED, [])


@pytest.mark.parametrize("content", [b"", b"\n\n", b"path,label\na,b\n", b"\0\1\2\n\0", b"\xff\xfe\0"])
def test_what_is_of_another_purpose_is_passed_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.csv"
    path.write_bytes(content)
    strata, (fault,) = index.read(path, EXPECTED)
    assert strata == {}
    assert "is passed over" in str(fault)
    assert not fault.stops


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,part\ndisc00,test\n", "has the column part, but no column name that says of which image"),
        ("name,part\ndisc00,test\ndisc00.png,training\n", "says different things of disc00 in two lines"),
    ],
)
def test_a_part_that_is_not_understood_is_not_learned_from(data: Path, content: str, said: str) -> None:
    (data / "index.csv").write_text(content)
    with pytest.raises(DataError, match=said):
        layouts.samples(data)
    (data / "index.csv").write_text("name,part\ndisc00,test\ndisc00.png,test\n")
    assert layouts.samples(data)[0].part == dataset.TEST


def test_names_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = tmp_path / "index.csv"
    path.write_text("name,modality\n" + "".join(f"n{k},x\n" for k in range(5)))
    _, (fault,) = index.read(path, ["n0"])
    assert fault.what == "names 4 images that are not there: n1, n2, n3 and so on"


def test_no_index_is_none(tmp_path: Path) -> None:
    assert index.read(tmp_path / "index.csv", []) == ({}, [])


def test_accents_may_be_composed_or_not(data: Path) -> None:
    """A folder that a Mac has written: names taken apart in one place, composed in another."""
    apart, composed = (unicodedata.normalize(form, "zellé") for form in ("NFD", "NFC"))
    assert apart != composed
    (data / "images" / "disc01.png").rename(data / "images" / f"{apart}.png")
    (data / "masks" / "disc01.png").rename(data / "masks" / f"{composed}.png")
    text = (data / "index.csv").read_text(encoding="utf-8")
    (data / "index.csv").write_text(text.replace("disc01", apart), encoding="utf-8")
    found = layouts.samples(data)
    assert [(sample.name, sample.stratum) for sample in found][-1] == (composed, "odd")
    (data / "images" / f"{composed}.png").write_bytes((data / "images" / f"{apart}.png").read_bytes())
    faults = layouts.recognize(data).faults
    assert [f"a second file of the name {composed}" in fault.what for fault in faults] == [True]


def test_units_stay_together_and_parts_are_kept(data: Path) -> None:
    names = [f"disc{k:02}" for k in range(12)]
    units = ["name,unit,part", *(f"{name},eye{k // 3},{'test' if k >= 9 else ''}" for k, name in enumerate(names))]
    (data / "index.csv").write_text("\n".join(units))
    training, held = dataset.split(layouts.samples(data), 0.3, 0)
    assert {sample.split_group for sample in training}.isdisjoint({sample.split_group for sample in held})
    assert sorted(sample.name for sample in (*training, *held)) == names[:9]
    fixed = ["name,part", *(f"{name},{'validation' if k % 2 else 'training'}" for k, name in enumerate(names))]
    (data / "index.csv").write_text("\n".join(fixed))
    assert [sample.name for sample in dataset.split(layouts.samples(data), 0.3, 0)[1]] == names[1::2]
    (data / "index.csv").write_text("name,part\ndisc00,train\n")
    assert "has no part 'train': training, validation, test" in str(layouts.recognize(data).faults)


def test_an_index_of_masks_names_no_class_where_it_says_so(data: Path) -> None:
    (data / "index.csv").write_text("name,void\ndisc00,7\n")
    mask = np.full((40, 48), 7, np.uint8)
    Image.fromarray(mask).save(data / "masks" / "disc00.png")
    assert (layouts.samples(data)[0].load(3)[1] == dataset.VOID).all()
    for wrong in ("256", "-1", "none"):
        (data / "index.csv").write_text(f"name,void\ndisc00,{wrong}\n")
        with pytest.raises(DataError, match=f"has no void index '{wrong}'"):
            layouts.samples(data)
