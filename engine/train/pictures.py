"""The images of an evaluation that a model does worst on, with its masks, at full size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine import preprocess
from engine.model import Preprocessing
from engine.train import evaluate, figures
from engine.train.data.dataset import Sample
from engine.train.evaluate import Row, Segments

COUNT = 8
GAP = 8  # white pixels between two pictures


def write(
    folder: Path,
    engine: Segments,
    samples: Sequence[Sample],
    rows: Sequence[Row],
    how: Preprocessing,
    threshold: float | None = None,
) -> list[Path]:
    """Write COUNT PNGs, the worst image first: the image beside its mask (`figures.beside`); returns their paths.

    `rows` are those of `samples`, by which the worst are known; `how` prepares the images of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found, by_name = evaluate.by_image(rows), {sample.name: sample for sample in samples}
    classes, paths = len(engine.class_names), []
    for rank, name in enumerate(sorted(found, key=lambda name: (found[name], name))[:COUNT], start=1):
        image, mask = by_name[name].load(classes)
        (predicted,), _ = engine.run([image], threshold)
        shown = figures.beside(preprocess.in_8_bits(image, how), mask, {"found": predicted}, classes)
        paths.append(folder / f"{rank}-{name.replace('/', '-')}.png")
        Image.fromarray(_row(list(shown.values()))).save(paths[-1])
    return paths


def _row(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures [h, w, 3] of one size, side by side."""
    white = np.full((len(pictures[0]), GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in pictures for part in (white, picture)][1:], axis=1)
