"""A new operation is a row and a reference function: everything else asks the row."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import check, format, ops, plan, prune, roofline, strategy, tiling
from engine.backends import reference
from engine.backends.cpu import CpuBackend
from engine.layer import IMAGE, Layer
from engine.model import Model, ModelFileError
from engine.runtime import Engine, EngineError
from service import cli
from tests.models import random_model

CHANNELS = 5


def _fault(layer: Layer, inputs: ops.Inputs) -> str:
    return "" if layer.channels == inputs[0].channels else "it has other channels than its input"


def spread(model: Model, layer: Layer, read: list[reference.Levels]) -> reference.Levels:
    """The highest level of a 3x3 square in the channels that are `wide`, elsewhere the level itself."""
    x, (height, width) = np.pad(read[0], ((1, 1), (1, 1), (0, 0))), read[0].shape[:2]
    highest = np.max([x[i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)
    levels: NDArray[Any] = np.where(model.arrays(layer)["wide"] > 0, highest, read[0])
    return levels


SPREAD = ops.Operation(
    kind="spreading",
    why="shown by a test",
    weights=("flags",),
    fault=_fault,
    reach=lambda layer, seen: seen + 1,
    arrays=lambda layer, inputs: {"wide": ("uint8", (layer.channels,))},
)


@pytest.fixture(autouse=True)
def _row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ops.OPERATIONS, "spread", SPREAD)
    monkeypatch.setitem(reference.OPERATIONS, "spread", spread)


@pytest.fixture
def model() -> Model:
    """Two convolutions at half the resolution, a spreading between them and one behind the upsampling."""
    flat = [
        Layer("in", "stem", (IMAGE,), CHANNELS, "int16", 3),
        Layer("pool", "pool", ("in",), CHANNELS),
        Layer("conv", "conv", ("pool",), CHANNELS, "masked", 3),
        Layer("spread1", "spread", ("conv",), CHANNELS, "flags"),
        Layer("up", "conv", ("spread1",), CHANNELS, "binary", 1, 2),
        Layer("spread2", "spread", ("up",), CHANNELS, "flags"),
        Layer("head", "head", ("spread2",), 1, "int16", 1),
    ]
    without = [
        replace(layer, op="conv", weights="binary", kernel=1) if layer.op == "spread" else layer for layer in flat
    ]
    made = random_model(layers=without, seed=2)
    wide = np.array([1, 0, 1, 1, 0], np.uint8)
    kept = {name: array for name, array in made.tensors.items() if not name.startswith("spread")}
    head = replace(flat[-1], scale=made.layers[-1].scale)
    model = replace(made, layers=(*flat[:-1], head), tensors={**kept, "spread1.wide": wide, "spread2.wide": wide})
    check.check(model)
    return model


def test_it_is_checked(model: Model) -> None:
    with pytest.raises(ModelFileError, match=r"spread1: it has other channels"):
        check.check(replace(model, layers=(*model.layers[:3], replace(model.layers[3], channels=4), *model.layers[4:])))
    with pytest.raises(ModelFileError, match=r"spread1: spread cannot have weights 'binary'"):
        check.check(
            replace(model, layers=(*model.layers[:3], replace(model.layers[3], weights="binary"), *model.layers[4:]))
        )
    short = {**model.tensors, "spread2.wide": np.ones(4, np.uint8)}
    with pytest.raises(ModelFileError, match=r"spread2\.wide: has shape \(4,\), not \(5,\)"):
        check.check(replace(model, tensors=short))


def test_it_is_saved_and_loaded(model: Model, tmp_path: Path) -> None:
    format.save(model, tmp_path / "a")
    loaded = format.load(tmp_path / "a")
    assert loaded.layers == model.layers
    assert np.array_equal(loaded.tensors["spread2.wide"], model.tensors["spread2.wide"])


def test_windows_reach_as_far_as_it_does(model: Model) -> None:
    """Back from the head: 1 by spread2; at half the resolution 1 up, 1 by spread1, 1 by conv: 6; 1 by the stem."""
    assert tiling.radius(model) == 7
    image = np.random.default_rng(0).integers(0, 256, (61, 75, 3), dtype=np.uint8)
    with Engine.load(model, "reference") as whole, Engine.load(model, "reference", tile_pixels=1) as cut:
        assert cut.tiling.cuts(61, 75)
        assert np.array_equal(cut.logits(image), whole.logits(image))


def test_it_stands_in_the_plan_and_costs_no_products(model: Model) -> None:
    compiled = plan.compile_plan(model)
    assert [step.layer.op for step in compiled.steps] == [layer.op for layer in model.layers]
    assert compiled.tensors[3] == ops.Tensor(CHANNELS, 2)
    assert strategy.weight_visits(model.layers)[3] == 0
    assert roofline.operations(model, 64)[3] == 0
    assert roofline._products(model, 64)["spread1"] == 0


def test_pruning_leaves_it_alone(model: Model) -> None:
    pruned = prune.prune(model)
    assert pruned.model is model
    assert pruned.why.startswith("spread1 has")


def test_the_native_sessions_say_that_they_cannot(model: Model) -> None:
    with pytest.raises(EngineError, match="layer spread1 is of a kind that"):
        CpuBackend(plan.compile_plan(model), "portable", 1)


def test_info_shows_it(model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    format.save(model, tmp_path / "a")
    assert cli.main(["info", str(tmp_path / "a"), "--device", "reference"]) == 0
    assert re.search(r"spread1 +spread +flags +conv +5", capsys.readouterr().out)
