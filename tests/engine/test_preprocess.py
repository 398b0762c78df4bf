"""Fitting images: exact integers at every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine import _native, preprocess
from engine.model import Preprocessing


def test_stretch_uses_the_whole_range() -> None:
    image = np.arange(30, 90, dtype=np.uint8).repeat(20).reshape(40, 30, 1).repeat(3, axis=2)
    stretched = preprocess.stretch(image)
    assert stretched.min() == 0
    assert stretched.max() == 255
    assert np.all(np.diff(stretched.reshape(-1, 3)[:, 0].astype(int)) >= 0)


def test_stretch_leaves_a_full_range_alone() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    assert np.abs(preprocess.stretch(image).astype(int) - image).max() <= 2


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 33, 3)])
def test_stretch_follows_its_definition(shape: tuple[int, ...], deep: bool) -> None:
    noise = np.random.default_rng(0).normal(90, 20, shape).clip(0, 255)
    image = (noise * 11).astype(np.uint16) if deep else noise.astype(np.uint8)
    ordered, part = np.sort(image, axis=None), image.size * 5 // 1000
    low, high = int(ordered[part]), int(ordered[image.size - part - 1])
    span = max(high - low, preprocess.MIN_RANGE)
    expected = [
        [[(min(max(int(v) - low, 0), span) * 255 + span // 2) // span for v in p] for p in row] for row in image
    ]
    assert np.array_equal(preprocess.stretch(image), expected)
    assert np.array_equal(preprocess.stretch(image[::-1, ::2]), preprocess.stretch(image[::-1, ::2].copy()))


@pytest.mark.parametrize("contrast", ["none", "stretch"])
def test_8_bits_spread_over_16_give_the_very_same(contrast: str) -> None:
    rng = np.random.default_rng(0)
    how = Preprocessing(contrast=contrast)
    for low, high in ((0, 256), (30, 90), (3, 250), (100, 117)):
        image = rng.integers(low, high, (23, 31, 3), dtype=np.uint8)
        deep = image.astype(np.uint16) * np.uint16(257)
        assert np.array_equal(preprocess.preprocess(deep, how), preprocess.preprocess(image, how))


def test_16_bits_without_contrast_are_divided_by_257_and_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "BAND", 1000)  # so that several bands are gone through
    samples = np.arange(65535, dtype=np.uint16).reshape(257, 85, 3)
    reduced = preprocess.preprocess(samples, Preprocessing())
    assert reduced.dtype == np.uint8
    assert np.array_equal(reduced, np.rint(samples / 257))
    assert np.array_equal(np.diff(preprocess.stretch(samples).reshape(-1).astype(int)).clip(0, 1).sum(), 255)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "how", [Preprocessing(contrast="stretch"), Preprocessing("resize", 6, 8), Preprocessing("resize", 5, 7, "stretch")]
)
def test_what_is_made_lies_in_the_memory_that_is_asked_for(how: Preprocessing, deep: bool) -> None:
    given: list[preprocess.Pixels] = []

    def empty(shape: tuple[int, ...]) -> preprocess.Pixels:
        given.append(preprocess.ordinary(shape))
        return given[-1]

    noise = np.random.default_rng(0).integers(0, 200, (5, 7, 3), dtype=np.uint8)
    image: preprocess.Image = noise.astype(np.uint16) if deep else noise
    pixels = preprocess.preprocess(image, how, empty)
    assert np.array_equal(pixels, preprocess.preprocess(image, how))
    assert np.shares_memory(pixels, given[-1])


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_flat_image_stays_dark_instead_of_becoming_noise(value: int) -> None:
    image = np.full((5, 4, 3), value, np.uint8)
    image[2, 2, 1] ^= 1
    assert preprocess.stretch(image).max() <= 255 // preprocess.MIN_RANGE + 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 16), (17, 31), (5, 48)])
def test_pad_replicates_right_and_bottom(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    padded = preprocess.pad(image, (height + 3, width + 16))
    assert padded.shape == (height + 3, width + 16, 3)
    assert np.array_equal(padded[:height, :width], image)
    assert np.array_equal(padded[height:, :width], np.broadcast_to(image[-1], (padded.shape[0] - height, width, 3)))
    assert np.all(padded[:, width:] == padded[:, width - 1 : width])


def test_resize_keeps_what_is_already_there() -> None:
    image = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    assert np.array_equal(preprocess.resize(image, 9, 14), image)
    assert np.array_equal(preprocess.resize_nearest(image, 9, 14), image)


def test_resize_is_linear_between_pixels() -> None:
    ramp = np.array([[0, 100]], np.uint8)
    assert preprocess.resize(np.stack([ramp] * 3, axis=2), 1, 4).tolist() == [[[v] * 3 for v in (0, 25, 75, 100)]]
    assert preprocess.resize_nearest(ramp, 2, 4).tolist() == [[0, 0, 100, 100]] * 2


SIDES = (1, 2, 3, 5, 16, 17, 64, 100, 255)


@pytest.mark.parametrize("extreme", [False, True])
def test_resize_follows_its_definition(extreme: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, to_height, to_width = rng.choice(SIDES, 4).tolist()
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        if extreme:
            image = np.where(image < 128, 0, 255).astype(np.uint8)
        assert np.array_equal(preprocess.resize(image, to_height, to_width), bilinear(image, to_height, to_width))
        seen = image[::-1].swapaxes(0, 1)  # a view
        assert np.array_equal(preprocess.resize(seen, to_height, to_width), bilinear(seen, to_height, to_width))


def bilinear(image: preprocess.Pixels, height: int, width: int) -> preprocess.Pixels:
    """By columns of rows that are blended first, in whole numbers."""

    def along(axis: int, values: Any, new: int) -> Any:
        old = values.shape[axis]
        centers = np.clip(((2 * np.arange(new) + 1) * old * 256) // (2 * new) - 128, 0, (old - 1) * 256)
        part = (centers % 256).reshape(-1, *[1] * (2 - axis))
        first = values.take(centers // 256, axis)
        second = values.take(np.minimum(centers // 256 + 1, old - 1), axis)
        return (first * (256 - part) + second * part + 128) // 256

    blended: preprocess.Pixels = along(1, along(0, image.astype(np.int64), height), width).astype(np.uint8)
    return blended


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="without pixels"):
        _native.resize(np.zeros((0, 4, 3), np.uint8), np.zeros((5, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ("shape", "becomes"),
    [
        ((480, 640), (96, 128)),
        ((640, 480), (128, 96)),
        ((64, 64), (128, 128)),
        ((1000, 1), (128, 1)),
        ((3, 7), (55, 128)),
    ],
)
def test_an_aspect_is_kept(shape: tuple[int, int], becomes: tuple[int, int]) -> None:
    how = Preprocessing("aspect", height=128, width=128)
    assert preprocess.size(*shape, how) == becomes
    image = np.zeros((*shape, 3), np.uint8)
    prepared = preprocess.preprocess(image, how)
    assert prepared.shape[:2] == becomes
    assert preprocess.postprocess(prepared, shape, how).shape[:2] == shape


def test_an_image_fits_into_both_sides() -> None:
    how = Preprocessing("aspect", height=64, width=128)
    assert preprocess.size(100, 100, how) == (64, 64)
    assert preprocess.size(100, 400, how) == (32, 128)
