"""One temperature that makes probabilities mean what they say, and moves no mask."""

from __future__ import annotations

import numpy as np
import pytest

from engine import mbu
from engine.backends import reference
from engine.runtime import Engine
from engine.train import calibrate, metrics
from tests.models import random_model


def overconfident(classes: int, t: float) -> list[calibrate.LabeledLogits]:
    """Labels drawn from the logits' own probabilities, and the logits then multiplied by `t`."""
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 2, (40_000, classes))
    if classes == 1:
        labels = (rng.random(len(logits)) < mbu.probabilities(logits)[:, 0]).astype(np.int64)
    else:
        labels = np.array([rng.choice(classes, p=p) for p in mbu.probabilities(logits)])
    return [(t * logits[:20_000], labels[:20_000]), (t * logits[20_000:], labels[20_000:])]


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("t", [0.25, 1.0, 30.0])
def test_the_temperature_that_was_applied_is_found(classes: int, t: float) -> None:
    assert calibrate.temperature(overconfident(classes, t)) == pytest.approx(t, rel=0.05)


@pytest.mark.parametrize("classes", [1, 3])
def test_it_lowers_the_expected_calibration_error(classes: int) -> None:
    samples = overconfident(classes, 4.0)
    t = calibrate.temperature(samples)

    def error(t: float) -> float:
        total = [metrics.reliability(mbu.probabilities(logits / t)[None], labels[None]) for logits, labels in samples]
        return metrics.calibration_error(np.sum(total, axis=0))

    assert error(t) < 0.02 < 0.05 < error(1.0)


def test_calibration_error_of_known_bins() -> None:
    probabilities = np.array([0.99, 0.99, 0.01, 0.01]).reshape(1, 4, 1)
    assert metrics.calibration_error(metrics.reliability(probabilities, np.array([[1, 1, 0, 0]]))) == pytest.approx(
        0.01
    )
    assert metrics.calibration_error(metrics.reliability(probabilities, np.array([[1, 0, 0, 0]]))) == pytest.approx(
        0.25
    )
    certain = np.ones((1, 2, 1))
    assert metrics.calibration_error(metrics.reliability(certain, np.array([[1, 0]]))) == 0.5


def test_masks_and_integers_stay_as_they_are() -> None:
    model = random_model(3)
    cool = calibrate.with_temperature(model, 7.0)
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    with Engine.load(model) as old, Engine.load(cool) as new:
        np.testing.assert_array_equal(old.run([image])[0][0], new.run([image])[0][0])
        logits = old.logits(image)
        np.testing.assert_array_equal(logits, new.logits(image))
        expected = 1 / (1 + np.exp(-logits * model.layers[-1].scale / 7.0))
        np.testing.assert_allclose(new.probabilities(image), expected, rtol=1e-12)
        assert reference.decide(logits, 0).any()


def test_samples_are_spread_over_the_image() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[:, 200:] = 1
    logits, labels = calibrate.subsample(np.arange(120_000.0).reshape(300, 400, 1), mask)
    assert len(logits) == len(labels) == 20_000
    assert labels.mean() == pytest.approx(0.5, abs=0.01)
    np.testing.assert_array_equal(logits[:, 0] % 400 >= 200, labels == 1)
