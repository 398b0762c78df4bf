"""Bits and full precision are scored alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.train.data.dataset import Sample
from engine.train.recipe.compare import compare


class Answers:
    """A network that finds an image's own red, a bright one by `gain`, probable."""

    class_names = ()

    def __init__(self, gain: float, threshold: float = 0.5) -> None:
        self._gain, self._threshold = gain, threshold

    def run(self, images: Any, threshold: float | None = None) -> tuple[list[Any], None]:
        limit = self._threshold if threshold is None else threshold
        return [self.probabilities(image)[..., 0] >= limit for image in images], None

    def probabilities(self, image: Any) -> Any:
        return self._gain * image[..., :1] / 255


@pytest.fixture
def held(tmp_path: Path) -> list[Sample]:
    found = []
    for i in range(2):
        red = np.random.default_rng(i).integers(0, 256, (8, 9), dtype=np.uint8)
        places = tmp_path / f"{i}.png", tmp_path / f"{i}-mask.png"
        Image.fromarray(np.stack([red] * 3, axis=2)).save(places[0])
        Image.fromarray(np.where(red >= 128, 255, 0).astype(np.uint8)).save(places[1])
        found.append(Sample(str(i), places[0], places[1]))
    return found


def test_full_precision_has_the_threshold_that_suits_it_too(held: list[Sample]) -> None:
    """Probabilities that are half as high find the same from half the probability on."""
    found = compare(Answers(1.0), Answers(0.5), held, (), otsu=False)
    assert found.full_threshold == 0.25
    assert [row.counts for row in found.full] == [row.counts for row in found.bits]
    assert [row.name for row in found.full] == ["0", "1"]
    assert found.lost == 0


def test_there_may_be_no_full_precision(held: list[Sample]) -> None:
    assert compare(Answers(1.0), None, held, (), otsu=False).full == []
