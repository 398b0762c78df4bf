"""Every family from a folder to masks, trained for a few steps, taught, exported, scored; and what each can be told."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import format
from engine.networks import unet
from engine.runtime import Engine
from engine.train import card, evaluate, export, kinds, network_engine, trainer
from engine.train.config import Config
from engine.train.network import Network
from engine.train.trainer import Trainer
from engine.train.view import View

FORMS: dict[str, dict[str, Any]] = {
    "mbu-net of two bits": {"activation_bits": 2},
    "bfcn": {"family": "bfcn", "masked": ()},
    "bfcn W2A2": {"family": "bfcn", "masked": (), "weight_bits": 2, "bit_decay": 0.5},
    "bfcn masked W2A1": {"family": "bfcn", "weight_bits": 2, "activation_bits": 1},
    "multi-branch": {"family": "multi-branch"},
    "multi-branch of two bits": {"family": "multi-branch", "activation_bits": 2, "gates": "channel", "masked": ()},
}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 4)
    monkeypatch.setattr(View, "draw", lambda *_: None)


def tiny(data: Path, out: Path, **changes: Any) -> Config:
    config = Config(str(data), str(out), width=3, samples=16, batch=2, crop=32, learning_rate=0.01, device="cpu")
    return dataclasses.replace(config, **changes)


@pytest.mark.parametrize("form", FORMS)
def test_from_a_folder_to_the_masks_of_torch(form: str, data: Path, tmp_path: Path) -> None:
    changes = FORMS[form]
    shape = {name: value for name, value in changes.items() if name in ("family", "masked", "gates")}
    teacher = Trainer(tiny(data, tmp_path / "teacher", full_precision=True, **{**shape, "samples": 4}))
    teacher.run()
    first = str(teacher.checkpoint)
    run = Trainer(tiny(data, tmp_path / "run", init=first, teacher=first, **changes))
    run.run()
    model = format.load(export.export(run.checkpoint, tmp_path / "discs.safetensors"))
    assert model.family == changes.get("family", "mbu-net")
    assert "no channel is removed: " in model.provenance["removed"]
    with Engine.load(model, "reference") as reference, Engine.load(model, "cpu") as engine:
        for image, _ in (sample.load() for sample in run.validation):
            expected = network_engine.predict(run.network, image, run.config)
            np.testing.assert_array_equal(reference.run([image])[0][0], expected)
            np.testing.assert_array_equal(engine.run([image])[0][0], expected)
        text = card.write(model, evaluate.evaluate(engine, run.validation), "validation")
    assert f"({model.family}" in text


def test_a_run_whose_bits_decay_resumes_to_the_same_bits(data: Path, tmp_path: Path) -> None:
    def config(out: str) -> Config:
        return tiny(data, tmp_path / out, family="bfcn", bit_decay=0.75, save_every=4)

    whole, parts = Trainer(config("whole")), Trainer(config("parts"))
    assert [whole.config.bits_at(step / 8) for step in range(8)] == [32, 32, 8, 4, 4, 2, 0, 0]
    whole.run()
    batches = parts.batches.now(range(4))
    for pixels, labels in batches:
        parts._train_step(pixels, labels)
        parts.step += 1
    parts.save()
    resumed = Trainer(config("parts"))
    assert resumed.step == 4
    resumed.run()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name


def planes(config: Config) -> set[tuple[int, str]]:
    return {(layer.planes, layer.encoding) for layer in config.layers()[:-1]}


def test_activations_have_the_familys_own_bits_or_those_asked_for() -> None:
    assert planes(Config("", "")) == planes(Config("", "", family="bfcn", activation_bits=1)) == {(1, "sign")}
    assert planes(Config("", "", family="bfcn")) == planes(Config("", "", activation_bits=2)) == {(2, "unsigned")}


def test_levels_are_dorefas_in_bfcn_alone() -> None:
    ramps = {family: Config("", "", family=family).ramp for family in ("mbu-net", "bfcn", "multi-branch")}
    assert ramps == {"mbu-net": kinds.CENTERED, "bfcn": kinds.DOREFA, "multi-branch": kinds.CENTERED}


def quantizers(**changes: Any) -> set[str]:
    return {layer.weights for layer in Config("", "", **changes).layers()} - {"", "int16"}


def test_weights_are_masked_or_not_and_of_one_or_two_bits() -> None:
    assert quantizers(family="bfcn") == {"masked"}
    assert quantizers(family="bfcn", masked=()) == {"binary"}
    assert quantizers(family="bfcn", masked=(), weight_bits=2) == {"two-bit"}
    assert quantizers(family="bfcn", weight_bits=2) == {"two-bit-masked"}
    assert quantizers(family="multi-branch", masked=()) == {"binary", "masked"}
    assert quantizers(family="multi-branch", weights=("twn",)) == {"twn"}


@pytest.mark.parametrize("masked", [(), unet.BLOCKS])
def test_residuals_of_bfcn_are_about_as_large_as_the_sums_that_they_join(masked: tuple[str, ...]) -> None:
    config = Config("", "", family="bfcn", width=8, masked=masked)
    torch.manual_seed(0)
    network = Network(config.layers(), ramp=config.ramp)
    network.set_zeros(config.zeros)
    with torch.no_grad():
        levels = network.trace(torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8), keep=True)
        for name, conv in network.bit_convolutions().items():
            if conv.layer.residual:
                spread = conv._sums(levels[conv.layer.inputs[0]], conv._fake_quantized()).std((0, 2, 3)).mean()
                residual = levels[conv.layer.residual].std((0, 2, 3)).mean() * 2**conv.layer.residual_exponent
                assert 0.5 < float(spread / residual) < 2, name


@pytest.mark.parametrize(
    ("wrong", "answer"),
    [
        ({"family": "u-net"}, "no family 'u-net'; there are mbu-net, bfcn, multi-branch"),
        ({"activation_bits": 3}, "activations have 1 or 2 bits"),
        ({"family": "bfcn", "weight_bits": 3}, "weights have 1 or 2 bits"),
        ({"weight_bits": 2}, "mbu-net has no weight_bits; bfcn has"),
        ({"family": "bfcn", "gates": "none"}, "bfcn has no gates; multi-branch has"),
        ({"family": "multi-branch", "branches": 4}, "1 to 3 branches"),
        ({"family": "bfcn", "masked": unet.BLOCKS[:2]}, "the blocks are mbu-net's"),
        ({"family": "bfcn", "weights": ("Up1=twn",)}, "'Up1' is no masked block"),
        ({"family": "bfcn", "weights": ("seq",)}, "res2.conv2 adds something to its sums"),
        ({"family": "multi-branch", "weights": ("int8",)}, "up1.branches adds something to its sums"),
        ({"family": "bfcn", "weights": ("twn",), "weight_bits": 2}, "weights of two bits cannot be 'twn'"),
        ({"bit_decay": 1.0}, "the share of the run in which bits decay lies in"),
    ],
)
def test_what_a_family_does_not_have_is_refused(wrong: dict[str, Any], answer: str) -> None:
    with pytest.raises(ValueError, match=answer.replace(".", r"\.")):
        Config("data", "out", **wrong)
