"""Pictures: the colors of an overlay."""

from __future__ import annotations

import numpy as np

from engine.train import figures


def test_overlay_tells_right_from_extra_from_missed() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    mixed = figures.overlay(image, np.array([[1, 0, 1, 0]]), np.array([[255, 255, 0, 0]]))
    colors = (figures.RIGHT, figures.EXTRA, figures.MISSED)
    assert mixed[0, :3].tolist() == [[50 + c // 2 for c in color] for color in colors]
    assert mixed[0, 3].tolist() == [100, 100, 100]
    assert image.min() == 100
