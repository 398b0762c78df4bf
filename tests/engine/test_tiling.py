"""Images in tiles give the bits of images in one piece."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from engine.model import Model, Preprocessing
from engine.networks.unet import BLOCKS
from engine.runtime import Engine
from engine.tiling import Tiling, radius
from tests.models import random_model

TINY = 1  # pixels: every window is as small as it can be


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3, classes=1, masked=BLOCKS[::2])


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_radius_is_the_networks(model: Model) -> None:
    """By hand, level by level from the head: 2 in up4, 2 / 2 + 2 in up3, ceil(3 / 2) + 2, and so on."""
    assert radius(model) == 94
    assert Tiling(model).halo == 96


@pytest.mark.parametrize("budget", [TINY, 250 * 250, 400 * 400])
@pytest.mark.parametrize("size", [(1, 1000), (1000, 1), (211, 223), (417, 300), (640, 655)])
def test_windows_cover_every_pixel_once_and_keep_their_distance(
    model: Model, size: tuple[int, int], budget: int
) -> None:
    tiling = Tiling(model, budget)
    for spans, side in zip(tiling.windows(*size), size, strict=True):
        assert [0, *(span.last for span in spans)] == [*(span.first for span in spans), -(-side // 16) * 16]
        assert len({span.end - span.begin for span in spans}) == 1
        for span in spans:
            assert span.begin % 16 == span.end % 16 == 0
            assert span.first - span.begin >= 96 or span.begin == span.first == 0
            assert span.end - span.last >= 96 or span is spans[-1]


def test_windows_stay_within_a_budget_that_is_large_enough(model: Model) -> None:
    tiling = Tiling(model, 512 * 512)
    for size in ((8192, 8192), (4000, 6000), (100, 9000), (9000, 100), (700, 513)):
        rows, columns = tiling.windows(*size)
        assert rows[0].end * columns[0].end <= 512 * 512


@pytest.mark.parametrize(("device", "budget"), [("cpu", TINY), ("cpu", 300 * 300), ("reference", 300 * 300)])
@pytest.mark.parametrize("size", [(417, 300), (230, 451), (5, 20000)])
def test_tiles_change_no_bit(model: Model, device: str, budget: int, size: tuple[int, int]) -> None:
    pixels = image(*size)
    with Engine.load(model, device=device) as whole, Engine.load(model, device=device, tile_pixels=budget) as tiled:
        assert tiled.tiling.cuts(*size)
        assert not whole.tiling.cuts(*size)
        expected = whole.logits(pixels)
        assert len(np.unique(expected)) > 2
        assert np.array_equal(tiled.logits(pixels), expected)
        assert np.array_equal(tiled.run([pixels], 0.4)[0][0], whole.run([pixels], 0.4)[0][0])


def test_others_may_run_between_two_turns(model: Model) -> None:
    large, small = image(417, 300), image(40, 50)
    with Engine.load(model) as whole, Engine.load(model, tile_pixels=300 * 300) as tiled:
        job = tiled.start([large, small], 0.4)
        pixels = []
        while not job.done:
            pixels.append(job.advance())
            assert np.array_equal(tiled.run([small], 0.6)[0][0], whole.run([small], 0.6)[0][0])
        rows, columns = tiled.tiling.windows(417, 300)
        assert pixels == [rows[0].end * columns[0].end] * len(rows) * len(columns) + [48 * 64]
        for mask, expected in zip(job.masks, whole.run([large, small], 0.4)[0], strict=True):
            assert np.array_equal(mask, expected)
        assert job.ms > 0


def test_a_narrower_halo_would_show(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail."""
    pixels = image(417, 300)
    with Engine.load(model) as whole, Engine.load(model, tile_pixels=TINY) as tiled:
        monkeypatch.setattr(tiled.tiling, "halo", 16)
        assert not np.array_equal(tiled.logits(pixels), whole.logits(pixels))


def test_classes_and_thresholds_of_a_batch(model: Model) -> None:
    sizes, thresholds = [(300, 217), (16, 16), (290, 220), (300, 217)], [0.1, 0.5, 0.7, 0.9]
    for some in (model, random_model(width=3, classes=3)):
        images = [image(*size) for size in sizes]
        with Engine.load(some) as whole, Engine.load(some, tile_pixels=TINY) as tiled:
            masks = tiled.run(images, thresholds)[0]
            for mask, expected in zip(masks, whole.run(images, thresholds)[0], strict=True):
                assert np.array_equal(mask, expected)


@pytest.mark.parametrize(
    "how",
    [Preprocessing(contrast="stretch"), Preprocessing(resize_mode="resize", height=256, width=304)],
    ids=["stretch", "resize"],
)
def test_preprocessing_sees_the_whole_image(model: Model, how: Preprocessing) -> None:
    pixels = image(300, 280) // 4
    pixels[:, 140:] //= 3  # a tile's own grey range would be another
    prepared = replace(model, preprocessing=how)
    with Engine.load(prepared) as whole, Engine.load(prepared, tile_pixels=TINY) as tiled:
        assert np.array_equal(tiled.logits(pixels), whole.logits(pixels))


def test_tiles_share_one_set_of_buffers(model: Model) -> None:
    with Engine.load(model, tile_pixels=256 * 256) as engine:
        session = engine._backend.session  # type: ignore[attr-defined]
        engine.run([image(400, 400)])
        memory = session.memory
        engine.run([image(1600, 1600)])
        assert session.memory < 1.5 * memory
