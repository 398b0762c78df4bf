"""The plan: tensors are written once and needed until their last reader."""

from __future__ import annotations

import pytest

from engine.layer import IMAGE
from engine.model import Model
from engine.networks import unet
from engine.plan import compile_plan
from tests.models import random_model


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3)


def test_every_tensor_is_written_once_and_lives_as_long_as_it_is_read(model: Model) -> None:
    plan = compile_plan(model)
    written = [step.output for step in plan.steps if step.output is not None]
    assert written == list(range(len(plan.tensors)))
    names = [step.layer.name for step in plan.steps]
    for i, step in enumerate(plan.steps):
        read = [name for name in step.layer.reads if name != IMAGE]
        assert [names[tensor] for tensor in step.inputs] == read
        assert all(plan.lifetimes[tensor].first < i <= plan.lifetimes[tensor].last for tensor in step.inputs)
    for name, tensor, lifetime in zip(names, plan.tensors, plan.lifetimes, strict=False):
        assert tensor == model.outputs[name]
        assert name in plan.steps[lifetime.last].layer.reads


def test_the_paper_s_network_has_its_parameters() -> None:
    model = random_model(width=64)
    weights = sum(model.ternary(layer).size for layer in model.layers if layer.weights in ("binary", "masked"))
    assert weights + 64 * 27 + 64 == pytest.approx(14.79e6, rel=2e-3)
    assert [layer.name for layer in unet.layers()] == [layer.name for layer in model.layers]
