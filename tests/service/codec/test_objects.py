"""Objects as a COCO document and as an index PNG: against the COCO tools, and against sums over single pixels."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.images import ObjectParams
from engine.images.components import label
from service.codec import encoders, objects
from service.codec.encoders import ENCODERS, Result
from service.problems import TooManyObjects
from tests.service.fakes import fake_model


def masks() -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 3, rng.integers(1, 20, 2)).astype(np.uint8) for _ in range(60)]
    return [*drawn, np.ones((7, 5), np.uint8), np.zeros((3, 4), np.uint8), np.eye(40, dtype=np.uint8)]


def described(mask: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.float64], dict[str, Any]]:
    labels, classes = label(mask)
    probability = np.random.default_rng(1).random(mask.shape)
    return labels, probability, objects.document(labels, classes, probability, fake_model(3))


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
        read.dataset = json.loads(json.dumps(document))
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
