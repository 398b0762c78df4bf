"""What an image costs the engine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.model import Preprocessing
from service.core import cost
from service.problems import TooManyPixels
from tests.service.fakes import fake_model


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


def test_a_model_that_keeps_the_aspect_computes_what_the_image_becomes() -> None:
    model = replace(fake_model(), preprocessing=Preprocessing("aspect", height=128, width=128))
    assert cost.pixels(model, (480, 640, 3)) == 96 * 128
    assert cost.pixels(model, (100, 1000, 3)) == 16 * 128
