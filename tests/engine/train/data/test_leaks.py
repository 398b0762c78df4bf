"""A run says when images lie on both sides of its split, within the seconds that it has for that."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

from engine.train.data import dataset, layouts, leaks


def test_a_copy_on_the_other_side_is_told(data: Path) -> None:
    training, held = dataset.split(layouts.samples(data), 0.25, 0)
    assert leaks.warning(training, held) == ""
    shutil.copy(training[0].image, held[0].image)
    said = leaks.warning(training, held)
    assert said.startswith(f"1 of {len(held)} validation images lie on the training side too, equal or nearly so")
    assert f"({held[0].image.name} is as {training[0].image.name})" in said


def test_what_there_is_no_time_for_is_not_compared(data: Path) -> None:
    training, held = dataset.split(layouts.samples(data), 0.25, 0)
    for sample in held:
        shutil.copy(training[0].image, sample.image)
    ticks = itertools.count()
    said = leaks.warning(training, held, seconds=3.5, clock=lambda: float(next(ticks)))
    assert said.startswith(f"1 of {len(held)} validation images (1 were compared) lie on the training side")
    assert leaks.warning(training, held, seconds=0.5, clock=lambda: float(next(ticks))) == ""
