"""Data folders as people make them: what is wrong is named with its file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import format
from engine.train.data import dataset, layouts
from engine.train.data.dataset import Parts, Sample
from engine.train.data.files import DataError


def test_samples_come_sorted_with_their_strata(data: Path) -> None:
    items = layouts.samples(data)
    assert [sample.name for sample in items] == [f"disc{k:02}" for k in range(12)]
    assert [sample.stratum for sample in items[:2]] == ["even", "odd"]
    image, mask = items[1].load()
    assert (image.shape, mask.shape, items[1].size) == ((33, 37, 3), (33, 37), (37, 33))
    assert set(np.unique(mask)) == {0, 1}


def test_a_folder_without_images_or_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images/ and masks/"):
        layouts.samples(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match="holds no images"):
        layouts.samples(tmp_path)


@pytest.mark.parametrize("part", ["images", "masks"])
def test_a_missing_partner_is_named(data: Path, part: str) -> None:
    (data / part / "disc03.png").unlink()
    with pytest.raises(DataError, match="disc03"):
        layouts.samples(data)


def test_a_mask_of_another_size_is_named(data: Path) -> None:
    Image.new("1", (5, 6)).save(data / "masks" / "disc00.png")
    with pytest.raises(DataError, match=r"disc00\.png.*\(40, 48\).*\(6, 5\)"):
        layouts.samples(data)[0].load()


def test_a_mask_of_many_values_is_named_with_them(data: Path) -> None:
    Image.fromarray(np.arange(40 * 48, dtype=np.uint8).reshape(40, 48) % 3).save(data / "masks" / "disc00.png")
    with pytest.raises(DataError, match=r"disc00\.png: not a binary mask: it holds 3 values \(0, 1, 2\)"):
        layouts.samples(data)[0].load()


def test_an_unreadable_image_is_named(data: Path) -> None:
    (data / "images" / "disc00.png").write_bytes(b"not an image")
    sample = layouts.samples(data)[0]
    with pytest.raises(DataError, match="disc00"):
        sample.load()
    with pytest.raises(DataError, match="disc00"):
        _ = sample.size


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_mask_of_one_value_is_all_background_or_all_foreground(data: Path, value: int) -> None:
    Image.new("L", (48, 40), value).save(data / "masks" / "disc00.png")
    _, mask = layouts.samples(data)[0].load()
    assert np.unique(mask).tolist() == [min(value, 1)]


def test_parts_are_told_as_digests_and_divide_what_they_know() -> None:
    items = [Sample(f"{k:02}", Path(), Path()) for k in range(10)]
    parts = Parts.of(items[2:6], items[:2])
    told = parts.tell()
    assert (told["training"], told["validation"]) == (4, 2)
    read = Parts.told(json.loads(json.dumps(told)))
    assert read is not None
    assert read.training.isdisjoint(parts.training)
    for kept in (parts, read):
        assert kept.divide(items) == (items[2:6], items[:2], items[6:])
    assert parts.missing(items[1:]) == ["00"]


def test_too_many_names_are_told_as_counts_and_fit_a_model_file(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(frozenset(map(str, range(dataset.MOST_TOLD - 10))), frozenset("abcdefghij"))
    assert len(json.dumps(parts.tell())) < format.MAX_TEXT / 2
    monkeypatch.setattr(dataset, "MOST_TOLD", dataset.MOST_TOLD - 1)
    told = parts.tell()
    assert (told["training"], told["validation"], len(told["digest"])) == (dataset.MOST_TOLD - 9, 10, dataset.DIGITS)
    assert Parts(parts.training, frozenset("bcdefghijk")).tell()["digest"] != told["digest"]
    assert Parts.told(parts.tell()) is None


def test_groups_by_a_pattern_stay_on_one_side() -> None:
    items = [Sample(f"patient{k // 2}_{'LR'[k % 2]}", Path(f"{k}.png"), Path()) for k in range(20)]
    for pattern in (r"patient(\d+)_", r"patient\d+"):
        training, held = dataset.split(dataset.grouped(items, pattern), 0.2, seed=0)
        assert (len(training), len(held)) == (16, 4)
        assert not {s.name[:-1] for s in training} & {s.name[:-1] for s in held}
    assert {one.split_group for one in dataset.grouped(items, "(patient1)|patient")} == {"patient", "patient1"}
    with pytest.raises(DataError, match=r"0\.png: the group 'slide' is not found in the name patient0_L"):
        dataset.grouped(items, "slide")


def test_groups_of_very_different_sizes_are_told_where_too_few_or_too_many_samples_are_held() -> None:
    items = [Sample(f"{k:03}", Path(), Path(), split_group="few" if k < 2 else f"many{k % 4}") for k in range(100)]
    parts = [dataset.split(items, 0.2, seed) for seed in range(20)]
    told = {len(held): dataset.lopsided(training, held, 0.2) for training, held in parts}
    assert sorted(told) == [2, 24, 25]
    assert told[2].startswith("2 of 100 samples are held, not 20%, as 5 groups of unequal sizes stay whole: ")
    assert (told[24], told[25]) == ("", "")
    assert dataset.lopsided(items[:1], items[50:52], 0.2).startswith("2 of 3 samples are held, not 20%")
    loose = [replace(item, split_group="") for item in items]
    for learned, held in ((items[1:], [replace(items[0], part="validation")]), (loose[1:], loose[:1])):
        assert dataset.lopsided(learned, held, 0.2) == ""


def sized(monkeypatch: pytest.MonkeyPatch, sizes: list[tuple[int, int]]) -> list[Sample]:
    items = [Sample(f"{k:03}", Path(), Path()) for k in range(len(sizes))]
    monkeypatch.setattr(Sample, "size", property(lambda sample: sizes[int(sample.name)]))
    return items


def test_split_holds_the_share_of_every_size_and_depends_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    items = sized(monkeypatch, [(8, 8)] * 20 + [(9, 9)] * 10)
    training, held = dataset.split(items, 0.2, seed=1)
    assert sorted(training + held, key=lambda sample: sample.name) == items
    assert [sum(sample.size == size for sample in held) for size in ((8, 8), (9, 9))] == [4, 2]
    assert dataset.split(items[::-1], 0.2, seed=1)[1] == [sample for sample in items[::-1] if sample in held]
    assert dataset.split(items, 0.2, seed=2)[1] != held


def test_split_takes_rare_sizes_together(monkeypatch: pytest.MonkeyPatch) -> None:
    training, held = dataset.split(sized(monkeypatch, [(k, k) for k in range(20)]), 0.2, seed=0)
    assert (len(training), len(held)) == (16, 4)
