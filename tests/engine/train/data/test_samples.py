"""Batches of crops: each depends on its seed alone, and large images give more of them."""

from __future__ import annotations

import numpy as np
import pytest

from engine.train.data import augment, samples
from engine.train.data.dataset import VOID

SIZES = ((40, 48), (160, 192))  # (h, w): sixteen times the pixels, four times the root


def loaded() -> list[samples.Loaded]:
    """Two images, all of the value 1 and 2, whose masks say the same."""
    return [(np.full((*size, 3), k, np.uint8), np.full(size, k, np.uint8)) for k, size in enumerate(SIZES, 1)]


def test_a_batch_depends_on_its_seed_alone() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    items = [*loaded(), (noise, noise[..., 0] % 2)]
    whole = [samples.Sampler(items, 3, 16, augment.crop)((0, step)) for step in range(6)]
    again = samples.Sampler(items, 3, 16, augment.crop)((0, 4))
    assert (again[0].shape, again[1].shape) == ((3, 3, 16, 16), (3, 16, 16))
    assert again[0].dtype == again[1].dtype == np.uint8
    np.testing.assert_array_equal(again[0], whole[4][0])
    np.testing.assert_array_equal(again[1], whole[4][1])
    assert any((pixels != again[0]).any() for pixels, _ in whole)


def test_images_are_drawn_by_the_root_of_their_pixels_with_their_own_masks() -> None:
    pixels, labels = samples.Sampler(loaded(), 1000, 16, augment.window)((0,))
    np.testing.assert_array_equal(pixels, np.repeat(labels[:, None], 3, axis=1))
    large = int((labels[:, 0, 0] == 2).sum())
    assert 760 <= large <= 840


def test_rare_classes_are_seen_as_often_as_others() -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    common, rare = np.ones((200, 200), np.uint8), np.zeros((200, 200), np.uint8)
    common[:8], rare[50, 60], rare[199, 0] = 0, 2, VOID
    items = [(image, common)] * 9 + [(image, rare)]
    _, labels = samples.Sampler(items, 400, 16, augment.window, foreground=1.0)((0,))
    shown = [np.mean([(mask == k).any() for mask in labels]) for k in (1, 2)]
    assert shown[1] == pytest.approx(0.5, abs=0.06)
    assert shown[0] + shown[1] == pytest.approx(1)
    _, labels = samples.Sampler(items, 400, 16, augment.window, foreground=0.3)((0,))
    assert np.mean([(mask == 2).any() for mask in labels]) == pytest.approx(0.15, abs=0.05)
    _, labels = samples.Sampler([(image, rare * 0)], 2, 16, augment.window, foreground=1.0)((0,))
    assert not labels.any()


def test_empty_parts_look_as_images_of_them_alone_would() -> None:
    image, mask = np.full((90, 90, 3), 200, np.uint8), np.zeros((90, 90), np.uint8)
    image[60:, :, 1], mask[60:] = 77, 1

    def fit(pixels: samples.Pixels) -> samples.Pixels:
        assert (pixels == 200).all()
        return pixels // 2

    items = [(image, mask), (image, mask * 0 + 1)]
    sampler = samples.Sampler(items, 400, 16, augment.window, empty=0.25, fit=fit)
    pixels, labels = sampler((0,))
    alone = (pixels == 100).all((1, 2, 3))
    assert alone.mean() == pytest.approx(0.25, abs=0.06)
    assert not labels[alone].any()
    nowhere = samples.Sampler(items[1:], 4, 16, augment.window, empty=1.0, fit=fit)
    assert nowhere((0,))[1].all()


def test_pixels_of_classes_are_counted_but_for_those_without_a_name() -> None:
    mask = np.array([[0, 1, 2, VOID], [0, 0, 2, VOID]], np.uint8)
    image = np.zeros((2, 4, 3), np.uint8)
    assert samples.pixels_of_classes([(image, mask), (image, mask)], 4).tolist() == [6, 2, 4, 0]
