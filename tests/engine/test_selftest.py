"""Golden files: what torch computed at export comes out of every backend; and the reference's bits, for any model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from engine import comparison, format, selftest
from engine.backends.base import Backend
from engine.backends.cpu import available_kernels
from engine.backends.reference import ReferenceBackend
from engine.model import Model
from engine.networks import bfcn, multibranch, unet
from engine.runtime import MODELS, EngineError
from service import cli
from tests.models import random_model

KERNELS = selftest.available()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("golden", sorted(selftest.GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_backend_replays(golden: Path, kernel: str) -> None:
    row = selftest.replay(golden, kernel)
    assert row["wrong"] == 0
    assert row["ok"]
    assert row["logits"] > 10_000


def test_every_shipped_model_has_its_golden_file() -> None:
    models = {path.name for path in MODELS.glob("*.safetensors")}
    assert models == {path.name for path in selftest.GOLDEN.glob("*.safetensors")}
    assert models


def test_a_wrong_logit_is_counted(tmp_path: Path) -> None:
    golden = sorted(selftest.GOLDEN.glob("*.safetensors"))[0]
    pairs = selftest.read_golden(golden)
    pairs[0][1][3, 4, 0] += 1
    selftest.write_golden(tmp_path / golden.name, pairs)
    row = selftest.replay(tmp_path / golden.name, "auto")
    assert (row["wrong"], row["ok"]) == (1, False)


def test_no_golden_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "GOLDEN", tmp_path)
    with pytest.raises(EngineError, match="no golden files"):
        selftest.run()


# -- any model ---------------------------------------------------------------------------------------------------------

FAMILIES = {
    "MBU-Net W1A2": unet.layers(3, activation_bits=2),
    "BFCN W2A2": bfcn.layers(3, classes=3, weight_bits=2),
    "multi-branch": multibranch.layers(3),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kernel_equals_the_reference_on_any_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "PRODUCTS", 10**6)
    format.save(random_model(layers=FAMILIES[name]), tmp_path / "a")
    rows = selftest.run_model(tmp_path / "a")
    assert [row["kernel"] for row in rows if row["images"]] == [kernel for kernel in KERNELS if kernel != "reference"]
    assert all(row["ok"] and not row["wrong"] for row in rows)


def constant(model: Model, layer: str, theta: int) -> Backend:
    """A backend whose `layer` has the threshold `theta`, which is not its own, in all channels."""
    name = f"{layer}.theta"
    return ReferenceBackend(replace(model, tensors={**model.tensors, name: np.full_like(model.tensors[name], theta)}))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_first_layer_that_differs_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the head where no layer does: what is always zero or always one may be so anyway, but not both."""
    model = random_model(layers=FAMILIES[name])
    monkeypatch.setattr(comparison, "PRODUCTS", 0)
    images = comparison.random_images(model, 0)
    assert images[0].shape == (model.stride, model.stride, 3)
    for layer in [layer for layer in model.layers if f"{layer.name}.theta" in model.tensors][::4]:
        found = set()
        for theta in (2**31 - 1, -(2**31)):
            backend = partial(constant, layer=layer.name, theta=theta)
            monkeypatch.setattr(comparison, "_backend", lambda part, *_, backend=backend: backend(part))
            found.add(comparison.first_difference(model, "cpu", "portable", images))
        assert layer.name in found <= {layer.name, "head"}


def test_layers_below_are_shown_by_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds the layer at fault must not find one where there is none."""
    model = random_model(layers=FAMILIES["BFCN W2A2"])
    monkeypatch.setattr(comparison, "PRODUCTS", 0)
    images = comparison.random_images(model, 1)
    for kernel in available_kernels():
        assert comparison.first_difference(model, "cpu", kernel, images) == "head"


def test_the_command_says_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    format.save(random_model(layers=FAMILIES["multi-branch"]), tmp_path / "a")
    monkeypatch.setattr(comparison, "PRODUCTS", 0)
    assert cli.main(["selftest", str(tmp_path / "a"), "--kernel", "portable"]) == 0
    assert "True" in capsys.readouterr().out
    monkeypatch.setattr(comparison, "_backend", lambda part, *_: constant(part, "in.conv1", 2**31 - 1))
    monkeypatch.setattr(ReferenceBackend, "kernel", "portable")
    assert cli.main(["selftest", str(tmp_path / "a"), "--kernel", "portable"]) == 1
    assert "in.conv1" in capsys.readouterr().out
