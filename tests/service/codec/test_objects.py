"""Objects as a COCO document and as an index PNG: against the COCO tools, and against sums over single pixels."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.images import ObjectParams, bands
from engine.images.components import label
from service.codec import encoders, objects, rle
from service.codec.encoders import ENCODERS, Result
from service.problems import TooIntricate, TooManyObjects
from tests.service.fakes import fake_model


def masks() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 3, rng.integers(1, 20, 2)).astype(np.uint8) for _ in range(60)]
    return [*drawn, np.ones((7, 5), np.uint8), np.zeros((3, 4), np.uint8), np.eye(40, dtype=np.uint8)]


def described(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.float64], dict[str, Any]]:
    """Numbers of objects, each pixel's probability of its own class, and the document."""
    logits = np.random.default_rng(1).integers(-3000, 3000, (*mask.shape, 3), dtype=np.int32)
    odds = np.exp(logits / 1000)
    probability = np.take_along_axis(odds, mask[:, :, None].astype(int), axis=2)[:, :, 0] / odds.sum(axis=2)
    image = np.zeros((*mask.shape, 3), np.uint8)
    document = json.loads(b"".join(ENCODERS["objects"].encode(Result(fake_model(3), image, mask, logits))))
    return label(mask)[0], probability, document


def test_areas_boxes_and_moments_are_those_of_the_pixels() -> None:
    for mask in masks():
        labels, probability, document = described(mask)
        assert len(document["annotations"]) == labels.max()
        for entry in document["annotations"]:
            y, x = np.nonzero(labels == entry["id"])
            assert entry["area"] == len(x)
            assert entry["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert entry["category_id"] == mask[y[0], x[0]]
            least, greatest = np.linalg.eigvalsh(np.cov(np.stack([x, y]), bias=True) + np.eye(2) / 12)
            expected = [x.mean() + 0.5, y.mean() + 0.5, np.sqrt(4 * len(x) / np.pi)]
            expected += [np.sqrt(max(0.0, 1 - least / greatest)), probability[y, x].mean()]
            found = [*entry["centroid"], entry["equivalent_diameter"], entry["eccentricity"], entry["score"]]
            np.testing.assert_allclose(found, expected, atol=6e-5)


def test_the_coco_tools_read_it() -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="needs the COCO tools")
    for mask in masks():
        labels, _, document = described(mask)
        read = coco.COCO()
        read.dataset = document
        read.createIndex()
        (image,) = read.getImgIds()
        for entry in read.loadAnns(read.getAnnIds(imgIds=[image])):
            np.testing.assert_array_equal(read.annToMask(entry), labels == entry["id"])
            assert read.cats[entry["category_id"]]["name"] == f"class {entry['category_id']}"


def result(mask: NDArray[np.uint8], classes: int) -> Result:
    logits = np.where(mask[:, :, None] == np.arange(classes) + (classes == 1), 1000, -1000).astype(np.int32)
    return Result(fake_model(classes), np.zeros((*mask.shape, 3), np.uint8), mask, logits)


@pytest.mark.parametrize(("classes", "index", "score"), [(1, 1, 0.7311), (3, 2, 0.787)])
def test_a_score_is_the_mean_probability_of_the_objects_class(classes: int, index: int, score: float) -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 1:3] = index
    document = json.loads(b"".join(ENCODERS["objects"].encode(result(mask, classes))))
    (entry,) = document["annotations"]
    assert (entry["category_id"], entry["bbox"], entry["score"]) == (index, [1, 1, 2, 1], score)
    assert [category["id"] for category in document["categories"]] == list(range(1, max(2, classes)))


def test_the_index_png_holds_the_numbers_of_the_objects() -> None:
    for mask in masks():
        labels, _ = label(mask, ObjectParams(min_area=2))
        with Image.open(io.BytesIO(b"".join(encoders.to_labels(mask, ObjectParams(min_area=2))))) as image:
            np.testing.assert_array_equal(np.asarray(image), labels)
            assert image.mode == "I;16"


def test_too_many_objects_are_a_problem_that_says_what_helps() -> None:
    checkers = (np.indices((400, 400)).sum(axis=0) % 2).astype(np.uint8)
    with pytest.raises(TooManyObjects, match="raise min_area or the threshold"):
        encoders.to_labels(checkers, ObjectParams())


@pytest.mark.parametrize("bound", ["BAND", "OBJECTS"])
def test_objects_described_some_at_a_time_are_those_of_the_whole(bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [described(mask)[2] for mask in masks()]
    for module in (bands, objects, rle):
        monkeypatch.setattr(module, bound, 3, raising=False)
    assert [described(mask)[2] for mask in masks()] == expected


def test_what_takes_too_long_is_refused_before_it_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (np.indices((40, 40))[0] % 2).astype(np.uint8)
    monkeypatch.setattr(objects, "MAX_RUNS", 20 * 40 - 1)
    with pytest.raises(TooIntricate, match="more than 799 vertical runs of pixels: ask for format=labels"):
        described(lines)
    monkeypatch.setattr(encoders, "SPLIT_PIXELS", 1599)
    with pytest.raises(TooIntricate, match="ask without split"):
        encoders.to_labels(lines, ObjectParams(split=True))
    monkeypatch.setattr(encoders, "OBJECT_PIXELS", 3 * 1600 - 1)
    with pytest.raises(TooIntricate, match="ask for format=png"):
        described(lines)
