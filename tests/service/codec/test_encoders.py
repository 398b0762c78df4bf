"""Every format of the answer; run lengths and polygons against the COCO tools, and by filling them again."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.images import bands
from service.codec import encoders, png, polygons, rle
from service.codec.decode import decode
from service.codec.encoders import ENCODERS, Result
from service.problems import TooIntricate
from tests.service.codec.test_png import read
from tests.service.fakes import FakeEngine, fake_model

Bools = NDArray[np.bool_]


def masks() -> list[Bools]:
    """Random ones of all sizes and densities; long runs, nested rings, and pixels that touch only by their corners."""
    rng = np.random.default_rng(0)
    drawn = [rng.random(rng.integers(1, 14, 2)) < rng.random() for _ in range(300)]
    y, x = np.mgrid[:97, :130]
    nested = np.maximum(abs(y - 48), abs(x - 65)) % 10 < 5
    checkers = (y // 7 + x // 7) % 2 == 0
    return [*drawn, nested, checkers, np.ones((600, 700), bool), np.zeros((5, 3), bool), rng.random((150, 80)) < 0.5]


def filled(rings: list[polygons.Ring], height: int, width: int) -> Bools:
    """The pixels inside an odd number of rings: every vertical side flips all that is to its right."""
    sides = np.zeros((height, width + 1), np.int64)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            assert (x0 == x1) != (y0 == y1)
            if x0 == x1:
                sides[min(y0, y1) : max(y0, y1), x0] += 1
    inside: Bools = np.cumsum(sides, axis=1)[:, :width] % 2 == 1
    return inside


def area(ring: polygons.Ring) -> float:
    x, y = ring.T
    return float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)) / 2)


def regions(mask: Bools) -> list[Bools]:
    """The areas that hang together by the sides of their pixels."""
    left, found = mask.copy(), []
    while left.any():
        region = np.zeros_like(mask)
        spots = [tuple(np.argwhere(left)[0])]
        while spots:
            y, x = spots.pop()
            if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and left[y, x]:
                left[y, x], region[y, x] = False, True
                spots += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        found.append(region)
    return found


def test_run_lengths_are_the_coco_tools_own_bytes() -> None:
    coco = pytest.importorskip("pycocotools.mask", reason="needs the COCO tools")
    for mask in masks():
        assert "".join(rle.encode(mask)) == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()


def test_filling_the_polygons_gives_the_mask_back() -> None:
    for mask in masks():
        rings = [ring for polygon in polygons.trace(mask, polygons.MAX_CORNERS) for ring in polygon]
        np.testing.assert_array_equal(filled(rings, *mask.shape), mask)


def test_every_connected_area_is_one_polygon_with_its_own_holes() -> None:
    for mask in masks()[:200]:
        expected = {region.tobytes() for region in regions(mask)}
        traced = list(polygons.trace(mask, polygons.MAX_CORNERS))
        assert {filled(polygon, *mask.shape).tobytes() for polygon in traced} == expected
        assert len(traced) == len(expected)


def test_holes_in_holes_and_beside_each_other_find_their_polygon() -> None:
    rng = np.random.default_rng(1)
    for density in (0.2, 0.4, 0.6, 0.8):
        mask = rng.random((60, 70)) < density
        traced = list(polygons.trace(mask, polygons.MAX_CORNERS))
        assert {filled(polygon, *mask.shape).tobytes() for polygon in traced} == {r.tobytes() for r in regions(mask)}


def test_a_mask_of_too_many_corners_is_refused_before_it_is_traced() -> None:
    mask = np.zeros((9, 9), bool)
    mask[::2, ::2] = True
    assert sum(len(ring) for polygon in polygons.trace(mask, 100) for ring in polygon) == 100
    with pytest.raises(polygons.TooManyCornersError):
        next(polygons.trace(mask, 99))
    ragged = np.zeros((2048, 1100), np.uint8)
    ragged[::2, ::2] = 1
    with pytest.raises(TooIntricate, match="ask for format=png or rle"):
        list(encoders.to_polygons(ragged, fake_model()))


def test_run_lengths_in_bands_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ["".join(rle.encode(mask)) for mask in masks()]
    for band in (1, 7, 100):
        monkeypatch.setattr(rle, "BAND", band)
        assert ["".join(rle.encode(mask)) for mask in masks()] == expected


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("classes", [1, 3])
def test_large_answers_come_in_pieces_that_together_are_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, classes: int
) -> None:
    rng = np.random.default_rng(0)
    job = FakeEngine(fake_model(classes)).start(
        [rng.integers(0, 256 if classes == 1 else classes, (90, 80, 3), dtype=np.uint8)], [0.5], want_logits=True
    )
    encoder = ENCODERS[name]
    result = Result(job.engine.model, job.images[0], job.masks[0], job.logits[0])
    whole = list(encoder.encode(result))
    for module, piece in ((png, "PIECE"), (encoders, "PIECE")):
        monkeypatch.setattr(module, piece, 100)
    for module in (png, rle, bands):
        monkeypatch.setattr(module, "BAND", 800)
    pieces = list(encoder.encode(result))
    assert len(pieces) > len(whole) or name == "json" or encoder.media_type == "image/png"  # which gathers a block
    if encoder.media_type == "image/png":
        with Image.open(io.BytesIO(b"".join(pieces))) as some, Image.open(io.BytesIO(b"".join(whole))) as expected:
            assert some.tobytes() == expected.tobytes()
    else:
        assert b"".join(pieces) == b"".join(whole)


@pytest.mark.parametrize(("name", "classes"), [("rle", 2), ("polygons", 2), ("probability", 3)])
def test_many_classes_in_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, classes: int) -> None:
    """Of three classes two occur; every one has a probability."""
    monkeypatch.setattr(encoders, "CLASS_PIXELS", classes * 12)
    assert encoded(name, 3)[0]
    monkeypatch.setattr(encoders, "CLASS_PIXELS", classes * 12 - 1)
    assert encoded(name, 1)[0]
    with pytest.raises(TooIntricate, match="ask for format=png"):
        encoded(name, 3)


def test_outer_rings_run_clockwise_and_holes_against_the_clock() -> None:
    mask = np.ones((5, 7), bool)
    mask[1:3, 2:4] = False
    ((outer, hole),) = polygons.trace(mask, polygons.MAX_CORNERS)
    assert outer.tolist() == [[0, 0], [7, 0], [7, 5], [0, 5]]
    assert sorted(map(tuple, hole)) == [(2, 1), (2, 3), (4, 1), (4, 3)]
    assert (area(outer), area(hole)) == (35, -4)


def encoded(name: str, classes: int) -> tuple[bytes, Result]:
    image = np.zeros((3, 4, 3), np.uint8)
    image[1, 1:3, 0] = 255 if classes == 1 else 2
    engine = FakeEngine(fake_model(classes))
    job = engine.start([image], [0.5], want_logits=True)
    result = Result(engine.model, image, job.masks[0], job.logits[0] if ENCODERS[name].wants_logits else None)
    return b"".join(ENCODERS[name].encode(result)), result


@pytest.mark.parametrize(("classes", "expected"), [(1, [1]), (3, [0, 2])])
def test_rle_and_polygons_name_the_classes_that_occur(classes: int, expected: list[int]) -> None:
    coco: Any = pytest.importorskip("pycocotools.mask", reason="needs the COCO tools")
    body, result = encoded("rle", classes)
    entries = json.loads(body)["masks"]
    assert [entry["index"] for entry in entries] == expected
    assert result.mask is not None
    for entry in entries:
        np.testing.assert_array_equal(coco.decode(entry), result.mask == entry["index"])
    document = json.loads(encoded("polygons", classes)[0])
    assert (document["width"], document["height"]) == (4, 3)
    assert [(entry["index"], entry["name"]) for entry in document["polygons"]] == [
        (index, f"class {index - (classes == 1)}") for index in expected
    ]


def test_probabilities_of_one_class() -> None:
    body, result = encoded("probability", 1)
    probability = np.load(io.BytesIO(body))
    assert (probability.dtype, probability.shape) == (np.float32, (3, 4))
    expected = np.where(result.image[:, :, 0] == 255, 1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.0)))
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


def test_probabilities_of_several_classes_sum_to_one() -> None:
    logits = np.array([[[0, 1000], [-(2**31), 2**31 - 1]]], np.int32)
    probability = np.load(io.BytesIO(b"".join(encoders.to_probability(logits, fake_model(2)))))
    odds = np.exp(1.0)
    expected = np.array([1 / (1 + odds), odds / (1 + odds), 0, 1])
    np.testing.assert_allclose(probability.ravel(), expected, rtol=1e-6)


def test_the_overlay_is_a_picture_of_the_images_size() -> None:
    with Image.open(io.BytesIO(encoded("overlay", 1)[0])) as image:
        assert (image.size, image.mode) == ((4, 3), "RGB")


def test_one_class_is_0_and_255_and_several_are_indices() -> None:
    mask = np.array([[0, 1, 1]], np.uint8)
    for classes, expected in ((1, [[0, 255, 255]]), (3, [[0, 1, 1]])):
        assert read(b"".join(encoders.to_png(mask, fake_model(classes))), "L")[1].tolist() == expected


def test_npy_is_the_mask_itself() -> None:
    mask = np.array([[0, 1], [1, 1], [0, 0]], np.uint8)
    np.testing.assert_array_equal(np.load(io.BytesIO(b"".join(encoders.to_npy(mask, fake_model())))), mask)


def test_json_counts_pixels_by_class() -> None:
    document = json.loads(b"".join(encoders.to_json(np.array([[0, 1, 1, 1]], np.uint8), fake_model())))
    assert (document["model"], document["width"], document["height"]) == ("fake", 4, 1)
    assert [(c["name"], c["pixels"], c["share"]) for c in document["classes"]] == [
        ("background", 1, 0.25),
        ("class 0", 3, 0.75),
    ]


def test_overlay_paints_only_the_foreground() -> None:
    image = np.full((1, 2, 3), 100, np.uint8)
    drawn = decode(b"".join(encoders.overlay(image, np.array([[0, 1]], np.uint8), fake_model())), 2**20).pixels
    assert drawn.tolist() == [[[100, 100, 100], [177, 50, 50]]]
