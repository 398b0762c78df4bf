"""Whether a stage was still improving, by its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.train.config import Config
from engine.train.recipe.advice import still_improving


def looks(*found: float) -> list[dict[str, float]]:
    """Rows of a log at even distances, and one between them without a look."""
    rows = [{"samples": 100.0 * (i + 1), "dice": value} for i, value in enumerate(found)]
    return [rows[0], {"samples": 150.0, "loss": 1.0}, *rows[1:]]


@pytest.mark.parametrize(
    ("found", "gained"),
    [
        ((0.1, 0.2), None),
        ((0.1, 0.2, 0.3), 0.1),
        ((0.1, 0.3, 0.2), -0.1),
        ((0.1, 0.2, 0.5, 0.3, 0.7, 0.6), 0.2),  # the best of each part: the last look alone is chance
    ],
)
def test_the_last_third_of_the_looks_is_beside_the_best_before(found: tuple[float, ...], gained: float | None) -> None:
    config = Config(data="", out="", full_precision=True)
    assert still_improving(looks(*found), "dice", config) == (gained and pytest.approx(gained))


def test_looks_at_a_network_that_was_none_of_bits_yet_do_not_count(tmp_path: Path) -> None:
    config = Config(data="", out="")
    settled = [config.settled_at((i + 1) / 20) for i in range(20)]
    assert not settled[0]
    assert settled[-1]
    found = [0.3 + 0.001 * i if done else 0.9 for i, done in enumerate(settled)]
    last = settled.count(True) // 3
    assert still_improving(looks(*found), "dice", config) == pytest.approx(0.001 * last)


def test_without_a_look_nothing_is_said() -> None:
    assert still_improving([], "dice", Config(data="", out="")) is None
