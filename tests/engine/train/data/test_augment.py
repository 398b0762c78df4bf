"""Random crops: their size, their values, and that image and mask stay on one another."""

from __future__ import annotations

import numpy as np
import pytest

from engine.train.data import augment


@pytest.mark.parametrize("size", [(5, 9), (40, 200), (64, 64)])
def test_a_crop_has_its_size_whatever_the_image(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    for _ in range(20):
        pixels, labels = augment.crop(image, image[..., 0] % 2, 48, rng)
        assert (pixels.shape, labels.shape) == ((48, 48, 3), (48, 48))
        assert pixels.dtype == labels.dtype == np.uint8
        assert set(np.unique(labels)) <= {0, 1}


def test_the_same_seed_gives_the_same_crop() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    first, again = (augment.crop(image, image[..., 0] % 2, 32, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_a_crop_is_moved_and_recolored_unless_told_otherwise() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = image[..., 0] % 2

    def cut(*parts: str) -> augment.Pixels:
        return augment.crop(image, mask, 32, np.random.default_rng(5), parts=parts)[0]

    plain = augment.window(image, mask, 32, np.random.default_rng(5))[0]
    np.testing.assert_array_equal(cut(), plain)
    moved = augment.move(image, mask, 32, np.random.default_rng(5))[0]
    np.testing.assert_array_equal(cut("turns", "flips", "scale"), moved)
    assert all((cut(*parts) != plain).mean() > 0.5 for parts in (augment.PARTS, augment.GEOMETRY, augment.COLOR))


def test_each_part_does_what_it_says_and_no_more() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    plain = np.lib.stride_tricks.sliding_window_view(image, (24, 24), (0, 1))

    def cuts(part: str) -> list[augment.Pixels]:
        return [augment.crop(image, mask, 24, np.random.default_rng(k), parts=(part,))[0] for k in range(12)]

    def occurs(pixels: augment.Pixels) -> bool:
        return bool((plain == pixels.transpose(2, 0, 1)).all((2, 3, 4)).any())

    assert all(occurs(cut) or occurs(cut[:, ::-1]) for cut in cuts("flips"))
    assert not all(occurs(cut) for cut in cuts("flips"))
    assert all(occurs(cut) or occurs(255 - cut) for cut in cuts("negatives"))
    for part in ("turns", "scale", "colors"):
        assert not all(occurs(cut) for cut in cuts(part)), part


@pytest.mark.parametrize("parts", [augment.PARTS, ()], ids=["moved", "as it is"])
@pytest.mark.parametrize("place", [(0, 0), (59, 79), (30, 40)], ids=["corner", "other corner", "middle"])
def test_a_crop_shows_the_place_that_it_is_to_show(place: tuple[int, int], parts: tuple[str, ...]) -> None:
    mask = np.zeros((60, 80), np.uint8)
    rows, columns = np.ogrid[:60, :80]
    mask[(abs(rows - place[0]) < 3) & (abs(columns - place[1]) < 3)] = 1
    image = np.zeros((60, 80, 3), np.uint8)
    for k in range(30):
        _, labels = augment.crop(image, mask, 32, np.random.default_rng(k), place, parts)
        assert labels.any()


def test_image_and_mask_move_together() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 40:80] = 1
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, labels = augment.move(image, mask, 64, rng)
        assert ((pixels[..., 0] > 127) != labels).mean() < 0.02
