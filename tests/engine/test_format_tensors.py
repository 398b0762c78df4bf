"""Hostile model files: every fault of a tensor, in dtype, shape and values, is refused, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open

from engine import check, format, ops
from engine.backends.cpu import CpuBackend
from engine.layer import IMAGE, Layer
from engine.model import Model, ModelFileError
from engine.networks import bfcn, multibranch
from engine.plan import compile_plan
from tests.engine.model_files import Description, Tensors, layer, rewrite
from tests.models import random_model


def put(name: str, index: Any, value: int) -> Callable[[Tensors], object]:
    """An edit that writes `value` at `index` of the tensor `name`."""
    return lambda tensors: tensors[name].__setitem__(index, value)


def swap(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Tensors], object]:
    """An edit that replaces the tensor `name` by `change` of it."""
    return lambda tensors: tensors.update({name: change(tensors[name])})


TENSORS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop("ct1.pos"), "ct1.pos: the tensor is missing"),
    "missing neg": (lambda t: t.pop("ct2.neg"), "ct2.neg: the tensor is missing"),
    "extra": (lambda t: t.update(extra=np.zeros(1)), "'extra': there should be no such tensor"),
    "neg of a binary layer": (lambda t: t.update({"ct1.neg": t["ct1.pos"]}), "'ct1.neg': there should be no"),
    "theta int64": (swap("ct1.theta", lambda a: a.astype(np.int64)), "ct1.theta: is I64, not int32"),
    "weight float": (swap("head.weight", lambda a: a.astype(np.float32)), "head.weight: is F32, not int16"),
    "planes int8": (swap("ct1.pos", lambda a: a.view(np.int8)), "ct1.pos: is int8, not uint8"),
    "shape": (swap("ct1.pos", lambda a: a[:, :-1]), r"ct1.pos: has shape \(1, 23, 2, 2, 1, 1, "),
    "theta flat": (swap("ct1.theta", lambda a: a[:, 0]), r"ct1.theta: has shape \(24,\)"),
    "two thresholds": (swap("ct1.theta", lambda a: np.repeat(a, 2, 1)), r"ct1.theta: has shape \(24, 2\)"),
    "empty": (swap("head.bias", lambda a: a[:0]), r"head.bias: has shape \(0,\)"),
    "scalar": (swap("head.bias", lambda a: np.array(a[0])), r"head.bias: has shape \(\)"),
    "padding of pos": (put("in.conv2.pos", 0, 0x08), "in.conv2.pos: a padding bit is set"),
    "padding of neg": (put("in.conv2.neg", 0, 0x80), "in.conv2.neg: a padding bit is set"),
    "padding between inputs": (
        put("up4.conv1.pos", (0, 1, 0, 0, 0, 0, 0), 0x10),
        "up4.conv1.pos: a padding bit",
    ),
    "overlap": (lambda t: t.update({"ct2.neg": t["ct2.pos"]}), "ct2.neg: overlaps ct2.pos"),
    "first weight": (put("in.conv1.weight", (0, 1, 2, 0), -32768), "in.conv1.weight: a weight lies beyond"),
    "head weight": (put("head.weight", (0, 1), -32768), "head.weight: a weight lies beyond"),
    "head sum up": (put("head.bias", 0, 2**31 - 1), "head: its sums can leave the range of int32"),
    "head sum down": (put("head.bias", 0, -(2**31)), "head: its sums can leave the range of int32"),
    "theta of pixels": (put("in.conv1.theta", (0, 0), 2**31 - 1), "in.conv1.theta: a threshold lies outside"),
    "theta below": (put("up1.conv2.theta", (3, 0), -12 * 9 - 1), "up1.conv2.theta: a threshold lies outside"),
    "theta above": (put("up1.conv2.theta", (3, 0), 12 * 9 + 2), "up1.conv2.theta: a threshold lies outside"),
    "theta of upconv": (put("ct1.theta", (0, 0), 24 + 2), "ct1.theta: a threshold lies outside"),
    "theta lowest": (put("ct2.theta", (0, 0), -(2**31)), "ct2.theta: a threshold lies outside"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_hostile_tensors_are_refused(path: Path, kind: str) -> None:
    edit, message = TENSORS[kind]
    rewrite(path, lambda _, tensors: edit(tensors))
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(path)


# -- what segments, residuals, gates and planes have of their own -----------------------------------------------------


@pytest.fixture
def bfcn_path(tmp_path: Path) -> Path:
    """Two segments, two planes, residuals, doublings."""
    flat = bfcn.layers(3, weights="masked", weight_bits=2)
    format.save(random_model(layers=flat), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


WEIGHTED: dict[str, tuple[Callable[[Description, Tensors], object], str]] = {
    "exponent 4": (lambda _, t: put("up8.exponents", (1, 2), 4)(t), "up8.exponents: an exponent is not 0 to 3"),
    "exponent 255": (lambda _, t: put("up8.exponents", (0, 0), 255)(t), "up8.exponents: an exponent is not"),
    "exponents flat": (lambda _, t: swap("up8.exponents", lambda a: a[0])(t), r"up8.exponents: has shape \(12,\)"),
    "exponents int32": (lambda _, t: swap("up8.exponents", lambda a: a.astype(np.int32))(t), "up8.exponents: is int32"),
    "exponents missing": (lambda _, t: t.pop("up8.exponents"), "up8.exponents: the tensor is missing"),
    "exponents of the stem": (
        lambda _, t: t.update({"in.exponents": np.zeros((1, 3), np.uint8)}),
        "'in.exponents': there should be no such tensor",
    ),
    "sign 0": (lambda _, t: put("res2.conv2.residual_signs", 1, 0)(t), "res2.conv2.residual_signs: a sign is neither"),
    "sign 2": (lambda _, t: put("res2.conv2.residual_signs", 0, 2)(t), "res2.conv2.residual_signs: a sign is neither"),
    "sign -128": (lambda _, t: put("res2.conv2.residual_signs", 0, -128)(t), "res2.conv2.residual_signs: a sign is"),
    "signs short": (
        lambda _, t: swap("res2.conv2.residual_signs", lambda a: a[:2])(t),
        r"res2.conv2.residual_signs: has shape \(2,\), not \(3,\)",
    ),
    "signs uint8": (
        lambda _, t: swap("res2.conv2.residual_signs", lambda a: a.view(np.uint8))(t),
        "res2.conv2.residual_signs: is uint8, not int8",
    ),
    "signs missing": (
        lambda _, t: t.pop("res2.conv2.residual_signs"),
        "res2.conv2.residual_signs: the tensor is missing",
    ),
    "signs without residual": (
        lambda _, t: t.update({"res2.conv1.residual_signs": np.ones(3, np.int8)}),
        "'res2.conv1.residual_signs': there should be no such tensor",
    ),
    "residual dropped": (
        lambda d, _: layer(d, "res2.conv2").update(residual="", residual_exponent=0),
        "'res2.conv2.residual_signs': there should be no such tensor",
    ),
    "a ring of residuals": (
        lambda d, _: layer(d, "res2.conv1").update(residual="res2.conv2"),
        "res2.conv1: input 'res2.conv2' is no earlier layer",
    ),
    "residual of one plane": (
        lambda d, _: layer(d, "in").update(planes=1),
        "pool2: its channels, planes or encoding are not its input's",
    ),
    "three planes": (lambda d, _: layer(d, "up8").update(planes=3), "up8: planes 3, not 1 to 2"),
    "one plane less": (
        lambda d, _: layer(d, "res2.conv1").update(planes=1),
        "res2.conv2: its residual is not of its channels and resolution, written as",
    ),
    "one segment less": (
        lambda d, _: layer(d, "up8").update(segments=1),
        "'up8.exponents': there should be no such tensor",
    ),
    "one segment more": (lambda d, _: layer(d, "up8").update(segments=3), r"up8.pos: has shape \(2, 12, "),
    "thresholds descend": (
        lambda _, t: swap("res2.conv1.theta", lambda a: np.ascontiguousarray(a[:, ::-1]))(t),
        "res2.conv1.theta: the thresholds of a channel do not ascend",
    ),
    "a doubling less": (lambda d, _: layer(d, "head").update(doublings=1), "head: the logits must have the image's"),
    "doubled beyond int32": (
        lambda _, t: t["head.bias"].fill(2**23),
        "head: its sums can leave the range of int32",
    ),
}


@pytest.mark.parametrize("kind", WEIGHTED)
def test_hostile_tensors_of_the_general_convolution_are_refused(bfcn_path: Path, kind: str) -> None:
    edit, message = WEIGHTED[kind]
    rewrite(bfcn_path, edit)
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(bfcn_path)


def wide(channels: int, planes: int = 1, segments: int = 1) -> Model:
    """A dense convolution that reads the `channels` of one layer twice."""
    written: Any = {"planes": planes, "encoding": "unsigned"}
    flat = [
        Layer("in", "stem", (IMAGE,), channels, "int16", 3, **written),
        Layer("wide", "conv", ("in", "in"), 1, "binary", 3, segments=segments),
        Layer("head", "head", ("wide",), 1, "int16", 1),
    ]
    return random_model(layers=flat)


def test_more_inputs_than_the_lists_hold_are_refused() -> None:
    CpuBackend(compile_plan(wide(3640)), "portable", 1).run([np.zeros((1, 1, 3), np.uint8)], [0], False)
    for shape in ((3641,), (2000, 2), (1000, 1, 4)):
        with pytest.raises(ModelFileError, match=r"^wide: an output adds up \d+ bits; 65528 are possible"):
            wide(*shape)


def test_sums_beyond_the_counters_are_refused() -> None:
    model = wide(900, 2, 2)
    model.tensors["wide.exponents"].fill(ops.MAX_EXPONENT)
    check.check_values(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "MAX_COUNT", int(model.bound(model.layers[1]).max()) - 1)
        with pytest.raises(ModelFileError, match=r"^wide: its sums can exceed \d+"):
            check.check_values(model)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: layer(d, "up1.position").update(channels=2), "up1.gate1: its second input is not one plane of one"),
        (lambda d: layer(d, "up1.position").update(planes=2, encoding="unsigned"), "up1.gate1: its second input"),
        (lambda d: layer(d, "up1.gate1")["inputs"].pop(), "up1.gate1: 1 inputs; gate reads 2 to 2"),
        (lambda d: layer(d, "up1.gate1").update(channels=1), "up1.gate1: its channels, planes or encoding"),
        (lambda d: layer(d, "up1.gate1").update(inputs=["down3.conv2", "down4.conv2"]), "up1.gate1: its inputs have"),
        (lambda d: layer(d, "up1.gate1").update(weights="masked"), "up1.gate1: gate cannot have weights"),
    ],
)
def test_hostile_gates_are_refused(tmp_path: Path, edit: Callable[[Description], object], message: str) -> None:
    path = tmp_path / "tiny.safetensors"
    format.save(random_model(layers=multibranch.layers(2)), path)
    rewrite(path, lambda description, _: edit(description))
    with pytest.raises(ModelFileError, match=f"^tiny.safetensors: {message}"):
        format.load(path)


@pytest.mark.parametrize("theta", [-12 * 9, 12 * 9 + 1])
def test_the_constants_are_allowed(path: Path, theta: int) -> None:
    rewrite(path, lambda _, tensors: tensors["up1.conv2.theta"].fill(theta))
    assert (format.load(path).tensors["up1.conv2.theta"] == theta).all()


def test_several_thresholds_must_ascend() -> None:
    model = random_model(width=1)
    two_planes = replace(model.layers[1], planes=2, encoding="unsigned")
    model = replace(model, layers=(model.layers[0], two_planes, *model.layers[2:]))
    theta = np.array([[-1, 0, 1]], np.int32)
    model.tensors[f"{two_planes.name}.theta"] = theta
    check.check_values(model)
    model.tensors[f"{two_planes.name}.theta"] = theta[:, ::-1]
    with pytest.raises(ModelFileError, match=r"in\.conv2\.theta: the thresholds of a channel do not ascend"):
        check.check_values(model)


def test_shapes_are_compared_before_tensors_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(path, lambda _, tensors: tensors.update({"ct1.pos": np.zeros((1, 1), np.uint8)}))

    class Unreadable:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __getattr__(self, name: str) -> Any:
            assert name != "get_tensor"
            return getattr(self.file, name)

        def __enter__(self) -> Unreadable:
            return self

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(format, "safe_open", lambda *args, **kwargs: Unreadable(safe_open(*args, **kwargs)))
    with pytest.raises(ModelFileError, match=r"ct1\.pos: has shape"):
        format.load(path)
