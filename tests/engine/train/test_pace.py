"""How far a run is, by its steps and by a clock that the test turns."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.train import log, trainer
from engine.train.pace import Pace
from engine.train.trainer import Trainer
from tests.engine.train.test_trainer import tiny


class Hand:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def pace(tmp_path: Path, hand: Hand, minutes: float) -> Pace:
    return Pace(tiny(tmp_path, tmp_path, minutes=minutes), hand)


def test_by_samples_progress_is_the_share_of_the_steps(tmp_path: Path) -> None:
    assert [pace(tmp_path, Hand(), 0).progress(step) for step in (0, 2, 8)] == [0, 0.25, 1]


@pytest.mark.parametrize("seconds", [[1.0] * 60, [0.5] * 60 + [3.0] * 10, [7.0] * 9])
def test_by_the_clock_progress_is_the_share_of_the_time_whatever_steps_take(
    seconds: list[float], tmp_path: Path
) -> None:
    hand = Hand()
    run = pace(tmp_path, hand, 1)
    for took in seconds:
        hand.now += took
        assert run.advance() == took
        assert run.progress(0) == pytest.approx(min((hand.now - 100) / 60, 1))


def test_what_the_end_will_take_is_kept_and_progress_never_jumps(tmp_path: Path) -> None:
    hand = Hand()
    run = pace(tmp_path, hand, 1)
    seen = []
    for second in range(1, 51):
        hand.now += 1
        run.advance()
        seen.append(run.progress(0))
        run.tail = 10.0 if second >= 20 else 0.0
    assert seen[-2] < 1
    assert seen[-1] == 1
    assert all(0 < later - earlier < 0.03 for earlier, later in itertools.pairwise(seen))


def test_the_time_between_two_parts_of_a_run_is_not_counted(tmp_path: Path) -> None:
    hand = Hand()
    run = pace(tmp_path, hand, 1)
    hand.now += 1000
    run.resume(0.5, 30)
    hand.now += 15
    run.advance()
    assert run.progress(0) == pytest.approx(0.75)
    assert run.spent == 45


def test_a_run_by_the_clock_ends_in_time_validates_early_and_resumes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    hand = Hand()

    class Timed(Trainer):
        def _train_step(self, *batch: object) -> Tensor:
            hand.now += 1
            return torch.tensor(0.5)

    config = tiny(data, tmp_path / "out", minutes=1, validate_on=1)
    run = Timed(config, clock=hand)
    run.fit()
    assert run.finished
    assert run.step == pytest.approx(60 - run.pace.tail, abs=1)
    looks = [row["step"] for row in log.read(run.log) if "dice" in row]
    assert looks[0] == trainer.REFRESH_EVERY
    assert len(looks) > 1
    run.save()
    again = Timed(config, clock=hand)
    assert again.finished
    assert again.run().images == 1
