"""The plan: buffers are shared only when no later step needs what they hold."""

from __future__ import annotations

import pytest

from engine.format import IMAGE, Model
from engine.networks import unet
from engine.plan import compile_plan
from tests.models import random_model


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3)


def test_every_step_reads_what_it_asked_for(model: Model) -> None:
    """Played through: at every step each input slot still holds the tensor that the layer names."""
    holds: dict[int, str] = {}
    for step in compile_plan(model).steps:
        read = [name for name in step.layer.inputs if name != IMAGE]
        assert [holds[slot] for slot in step.inputs] == read
        assert step.input_channels == model.input_channels(step.layer)
        if step.output is not None:
            assert step.output not in step.inputs
            holds[step.output] = step.layer.name


def test_slots_fit_what_they_hold(model: Model) -> None:
    plan = compile_plan(model)
    for step in plan.steps:
        if step.output is not None:
            assert plan.slots[step.output].channels >= step.layer.channels
    assert plan.stride == 16


def test_slots_are_shared(model: Model) -> None:
    """Three full-resolution tensors live at once: the skip, the upsampled branch and what they are made into."""
    plan = compile_plan(model)
    assert sum(slot.stride == 1 for slot in plan.slots) == 3
    assert len(plan.slots) < len(plan.steps) - 1


def test_the_paper_s_network_has_its_parameters() -> None:
    model = random_model(width=64)
    weights = sum(model.signs(layer).size for layer in model.layers if layer.weights in ("binary", "masked"))
    assert weights + 64 * 27 + 64 == pytest.approx(14.79e6, rel=2e-3)
    assert [layer.name for layer in unet.layers()] == [layer.name for layer in model.layers]
