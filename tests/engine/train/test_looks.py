"""Which look at the validation images is the best of a run."""

from __future__ import annotations

from engine.train.config import Config
from engine.train.looks import Looks
from engine.train.metrics import Metrics
from engine.train.pace import Pace


def looks() -> Looks:
    config = Config("data", "out", annealing=0.4)
    return Looks(config, Pace(config, lambda: 0.0))


def found(score: float) -> Metrics:
    return Metrics(1, score, score, score)


def test_the_first_of_the_final_network_is_the_best_whatever_came_before() -> None:
    its = looks()
    assert [its.note(found(score), at) for score, at in ((0.9, 0.1), (0.5, 0.6), (0.4, 0.8), (0.6, 1.0))] == [
        *(False, True, False, True)
    ]
    assert its.best == 0.6


def test_a_run_that_has_ended_and_anneals_anew_keeps_its_best_until_that_is_beaten() -> None:
    ended = looks()
    assert ended.note(found(0.7), 1.0)
    its = looks()
    its.resume(ended.state())
    again = [its.note(found(score), at) for score, at in ((0.8, 0.34), (0.6, 0.6), (0.65, 0.8), (0.71, 1.0))]
    assert again == [False, False, False, True]
    assert its.best == 0.71
