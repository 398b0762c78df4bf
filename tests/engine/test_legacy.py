"""Files of format 1: they load as what they have always been, and what format 1 never had is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from engine import format, selftest
from engine.model import Model, ModelFileError
from engine.runtime import Engine
from tests.models import random_model

WRITTEN = Path(__file__).parents[1] / "data" / "format-1"
OLD_NAMES = {"stem": "pixels3x3", "pool": "pool2x2", "head": "head1x1"}
OLD_FIELDS = ("name", "inputs", "channels", "weights", "block", "planes", "encoding", "scale")

Description = dict[str, Any]


def write(model: Model, path: Path, edit: Callable[[Description], object] = lambda description: None) -> Path:
    """The file of format 1 that version 0.1 wrote of an MBU-Net, with an `edit` of its description."""
    format.save(model, path)
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["mbunet"])
    description["format"] = 1
    description["layers"] = [
        {field: layer[field] for field in OLD_FIELDS}
        | {"op": OLD_NAMES.get(layer["op"]) or ("conv3x3" if layer["up"] == 1 else "upconv2x2")}
        for layer in description["layers"]
    ]
    how = description["preprocessing"]
    how["fit"], how["multiple"] = how.pop("resize_mode"), 16
    edit(description)
    tensors = {
        name: array[0].reshape(len(array[0]), *2 * (array.shape[2] * array.shape[4],), -1) if array.ndim == 7 else array
        for name, array in load_file(path).items()
    }
    save_file(tensors, path, metadata={"mbunet": json.dumps(description, sort_keys=True, separators=(",", ":"))})
    return path


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3, masked=("Down1", "CT2", "Up4"))


def test_an_old_file_is_todays_model(model: Model, tmp_path: Path) -> None:
    old = format.load(write(model, tmp_path / "old.safetensors"))
    assert (old.layers, old.preprocessing, old.classes) == (model.layers, model.preprocessing, model.classes)
    assert old.tensors.keys() == model.tensors.keys()
    for name, array in old.tensors.items():
        np.testing.assert_array_equal(array, model.tensors[name])


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_file_that_version_0_1_wrote_keeps_its_bits(device: str) -> None:
    """Written and run by the code before format 2; its random weights mean nothing."""
    with safe_open(WRITTEN / "model.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["mbunet"])["format"] == 1
    with Engine.load(WRITTEN / "model.safetensors", device=device) as engine:
        for image, logits in selftest.read_golden(WRITTEN / "golden.safetensors"):
            np.testing.assert_array_equal(engine.logits(image), logits)


def test_the_multiple_has_no_effect(model: Model, tmp_path: Path) -> None:
    old = format.load(write(model, tmp_path / "a.safetensors", lambda d: d["preprocessing"].update(multiple=64)))
    assert old.padded(17, 70) == (32, 80)


def layer(description: Description, name: str) -> Description:
    return next(item for item in description["layers"] if item["name"] == name)


REFUSED: dict[str, tuple[Callable[[Description], object], str]] = {
    "multiple 0": (lambda d: d["preprocessing"].update(multiple=0), "preprocessing: multiple 0"),
    "multiple huge": (lambda d: d["preprocessing"].update(multiple=2**40), "preprocessing: multiple"),
    "multiple text": (lambda d: d["preprocessing"].update(multiple="16"), "multiple: must be int"),
    "todays operation": (lambda d: layer(d, "ct1").update(op="conv"), "op 'conv' is not supported in format 1"),
    "todays field": (lambda d: layer(d, "ct1").update(up=2), "unknown key 'up'"),
    "two planes": (lambda d: layer(d, "ct1").update(planes=2), "ct1.*: planes and encoding other than"),
    "levels": (lambda d: layer(d, "ct1").update(encoding="unsigned"), "ct1.*: planes and encoding other than"),
    "todays preprocessing": (lambda d: d["preprocessing"].update(resize_mode="pad"), "unknown key 'resize_mode'"),
    "unknown key": (lambda d: d.update(extra=1), "unknown key 'extra'"),
    "wrong shape": (lambda d: layer(d, "ct1").update(channels=5), r"ct1.pos: has shape \(24, 2, 2, 3\), not \(5, 2"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_format_1_never_had_is_refused(model: Model, tmp_path: Path, kind: str) -> None:
    edit, message = REFUSED[kind]
    with pytest.raises(ModelFileError, match=message):
        format.load(write(model, tmp_path / "a.safetensors", edit))
