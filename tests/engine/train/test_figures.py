"""Pictures: the colors of an overlay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from engine.train import figures, log, metrics
from engine.train.data.dataset import VOID


def test_overlay_tells_right_from_extra_from_missed() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    mixed = figures.overlay(image, np.array([[1, 0, 1, 0]]), np.array([[1, 1, 0, 0]]))
    colors = (figures.RIGHT, figures.EXTRA, figures.MISSED)
    assert mixed[0, :3].tolist() == [[50 + c // 2 for c in color] for color in colors]
    assert mixed[0, 3].tolist() == [100, 100, 100]
    assert image.min() == 100


def test_one_class_taken_for_another_is_not_right_and_what_has_no_name_is_neither() -> None:
    image = np.full((1, 4, 3), 100, np.uint8)
    mixed = figures.overlay(image, np.array([[2, 1, VOID, 2]]), np.array([[2, 2, 1, 0]]))
    assert mixed[0].tolist() == [
        *([50 + c // 2 for c in color] for color in (figures.RIGHT, figures.EXTRA)),
        [100, 100, 100],
        [50 + c // 2 for c in figures.MISSED],
    ]


def test_curves_are_drawn_by_class_too(tmp_path: Path) -> None:
    path, found = tmp_path / "classes.csv", metrics.summarize([metrics.Counts(3, 1, 0), metrics.Counts(1, 0, 2)])
    for step in (4, 8):
        for name in ("road", "crack"):
            log.append_class(path, step, name, found)
    log.append(tmp_path / "log.csv", step=4, samples=8, dice=0.5)
    assert [row["f1"] for row in log.read_classes(path)["crack"]] == [found.f1] * 2
    heights = []
    for classes in (None, path):
        figures.curves(tmp_path / "log.csv", tmp_path / "curves.png", classes)
        with Image.open(tmp_path / "curves.png") as file:
            heights.append(file.size[1])
    assert heights == [600, 900]
