"""What an image costs the engine."""

from __future__ import annotations

import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from engine import preprocess
from engine.model import Preprocessing
from engine.runtime import Engine
from service.codec.encoders import ENCODERS
from service.core import cost
from service.core.params import SegmentParams
from service.problems import TooManyPixels
from tests.models import random_model
from tests.service.fakes import fake_model

STRETCHED = Preprocessing(contrast="stretch")


def test_what_the_model_computes_is_what_counts() -> None:
    model = fake_model()
    assert cost.pixels(model, (1, 1000, 3)) == 16 * 1008
    cost.require_size(model, (1, 1000, 3), 16 * 1008)
    with pytest.raises(TooManyPixels, match="1000 x 1 is 16128 pixels for the model fake") as caught:
        cost.require_size(model, (1, 1000, 3), 16 * 1008 - 1)
    assert caught.value.extra == {"limit": 16 * 1008 - 1}


def test_a_model_that_resizes_computes_its_own_size() -> None:
    model = replace(fake_model(), preprocessing=Preprocessing("resize", height=8191, width=64))
    assert cost.pixels(model, (48, 64, 3)) == cost.pixels(model, (9000, 9000, 3)) == 8192 * 64


SIZES = ((3000, 2000), (1, 2**20), (2**20, 1))
RESIZED = (Preprocessing("aspect", 64, 64, "stretch"), Preprocessing("resize", 64, 64))


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("how", "size"), [(STRETCHED, SIZES[0]), *itertools.product(RESIZED, SIZES)])
def test_an_engine_takes_no_more_than_is_counted(how: Preprocessing, size: tuple[int, int], deep: bool) -> None:
    """Beside its buffers, of which a window of a large image is one: here there are none."""
    model = replace(random_model(width=1), preprocessing=how)
    image = np.zeros((*size, 3), np.uint16 if deep else np.uint8)
    with Engine.load(model, device="cpu", threads=1, tile_pixels=image.size) as engine:
        engine.run([image])
        tracemalloc.start()
        engine.run([image])
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        counted = cost.run_bytes(SegmentParams(engine, 0.5, ENCODERS["json"]), image.shape)
        working = 9 * preprocess.BAND if deep else 0  # bytes: of 16 bits some samples at a time become integers of 64
        assert image[..., 0].size < taken < counted + working


def test_a_model_that_keeps_the_aspect_computes_what_the_image_becomes() -> None:
    model = replace(fake_model(), preprocessing=Preprocessing("aspect", height=128, width=128))
    assert cost.pixels(model, (480, 640, 3)) == 96 * 128
    assert cost.pixels(model, (100, 1000, 3)) == 16 * 128
