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

    def cut(ablate: tuple[str, ...]) -> augment.Pixels:
        return augment.crop(image, mask, 32, np.random.default_rng(5), ablate)[0]

    plain = augment.window(image, mask, 32, np.random.default_rng(5))[0]
    np.testing.assert_array_equal(cut(("geometry", "color")), plain)
    np.testing.assert_array_equal(cut(("color",)), augment.move(image, mask, 32, np.random.default_rng(5))[0])
    assert all((cut(ablate) != plain).mean() > 0.5 for ablate in ((), ("color",), ("geometry",)))


def test_image_and_mask_move_together() -> None:
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 40:80] = 1
    image = np.repeat(mask[..., None] * 255, 3, axis=2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        pixels, labels = augment.move(image, mask, 64, rng)
        assert ((pixels[..., 0] > 127) != labels).mean() < 0.02
