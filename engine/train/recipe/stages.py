"""The stages of a recipe: full precision, then bits from its weights with it as teacher, then once more where there is
time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LONG = 60_000  # samples in all, from which a second stage of bits pays


@dataclass(frozen=True)
class Stage:
    """A training run: its name and folder, its share of the budget, and where its settings differ."""

    name: str
    share: float
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_precision(self) -> bool:
        """Whether it trains the teacher."""
        return self.name == FULL_PRECISION


FULL_PRECISION, BITS, FINE_TUNE = "full-precision", "bits", "fine-tune"


def stages(with_teacher: bool, samples: float, zeros: float, learning_rate: float) -> list[Stage]:
    """Those for a budget of so many `samples` in all; `with_teacher` full precision is at hand already.

    In the last of three activations are bits and zeros are all there from its first step.
    """
    fine = Stage(FINE_TUNE, 0.18, settled(zeros, learning_rate))
    bits = [Stage(BITS, 0.44), fine] if samples >= LONG else [Stage(BITS, 0.6)]
    return bits if with_teacher else [Stage(FULL_PRECISION, 0.38), *bits]


def settled(zeros: float, learning_rate: float, run: int = 1) -> dict[str, Any]:
    """Settings of a stage that begins with weights that are bits already: on other crops, at four fifths the rate."""
    return {"annealing": 0.0, "zeros_from": zeros, "learning_rate": 0.8 * learning_rate, "run_seed": run}
