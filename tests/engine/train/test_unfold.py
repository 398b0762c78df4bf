"""A model file as the beginning of a run: the same bits before the first step, and a network that learns on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine import format, preprocess
from engine.backends import reference
from engine.model import Model
from engine.train import export, pretrained, trainer
from engine.train.config import Config
from engine.train.pretrained import MismatchError
from engine.train.trainer import Trainer
from engine.train.unfold import UnfoldError
from engine.train.validation import predict


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "BATCH_NORM_SAMPLES", 8)


def tiny(data: Path, out: Path, **changes: Any) -> Config:
    config = Config(str(data), str(out), width=4, samples=12, batch=2, crop=32, learning_rate=0.01, device="cpu")
    return dataclasses.replace(config, **changes)


def shipped(data: Path, folder: Path, **changes: Any) -> tuple[Path, Model]:
    run = Trainer(tiny(data, folder / "first", **changes), quiet=True)
    run.fit()
    run.save()
    path = export.export(run.checkpoint, folder / "discs.safetensors")
    return path, format.load(path)


def begun(data: Path, out: Path, path: Path, **changes: Any) -> Trainer:
    run = Trainer(tiny(data, out, **(pretrained.settings(str(path)) | {"init": str(path)} | changes)), quiet=True)
    run._set_zeros()
    run.network.eval()
    return run


@pytest.mark.parametrize("bits", [{}, {"masked": ("Up4",)}], ids=["masked", "binary"])
def test_before_its_first_step_a_run_computes_what_its_model_file_computes(
    bits: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    path, model = shipped(data, tmp_path, contrast="stretch", zeros=0.8, **bits)
    run = begun(data, tmp_path / "second", path)
    assert run.config.contrast == "stretch"
    for sample in run.validation:
        image, _ = sample.load()
        padded = preprocess.pad(preprocess.stretch(image), model.padded(*image.shape[:2]))
        mask = reference.decide(reference.run(model, padded).logits[: image.shape[0], : image.shape[1]], 0)
        np.testing.assert_array_equal(predict(run.network, image, run.config), mask)
    before = [stage.quantized_params().weights for stage in run.network.bit_convolutions().values()]
    run.fit()
    after = [stage.quantized_params().weights for stage in run.network.bit_convolutions().values()]
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True))


def test_activations_of_two_bits_begin_close_to_the_files(data: Path, tmp_path: Path) -> None:
    path, model = shipped(data, tmp_path, activation_bits=2, zeros=0.5)
    run = begun(data, tmp_path / "second", path)
    for layer in model.layers:
        theta = model.tensors.get(f"{layer.name}.theta")
        if theta is not None:
            found = run.network.quantized_params()[layer.name].arrays["theta"]
            spread = np.maximum(theta[:, -1] - theta[:, 0], 4)[:, None]
            assert np.median(np.abs(found - theta) / spread) < 0.3, layer.name


def test_a_file_that_fits_no_network_of_the_run_is_refused(data: Path, tmp_path: Path) -> None:
    path, _ = shipped(data, tmp_path, samples=2)
    with pytest.raises(UnfoldError, match="has 4 channels, here 3"):
        begun(data, tmp_path / "second", path, width=3)
    with pytest.raises(UnfoldError, match="has other layers"):
        begun(data, tmp_path / "second", path, activation_bits=2)
    with pytest.raises(MismatchError, match="holds bits; a network in full precision cannot begin"):
        begun(data, tmp_path / "second", path, full_precision=True)


def test_other_classes_begin_with_a_new_head(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = shipped(data, tmp_path, samples=2)
    given = pretrained.settings(str(path)) | {"init": str(path), "classes": ("a", "b", "c")}
    Trainer(tiny(data, tmp_path / "second", **given))
    assert f"the classes are not those of {path}" in capsys.readouterr().out


def test_a_shipped_model_says_what_a_run_from_it_is_like() -> None:
    taken = pretrained.settings("nuclei-small")
    assert Config("", "", **taken) == Config("", "", contrast="stretch", zeros=0.9, zeros_from=0.9, annealing=0.0)


def test_the_split_of_a_model_file_is_known(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = shipped(data, tmp_path, samples=2)
    for seed, said in ((0, False), (1, True)):
        given = pretrained.settings(str(path)) | {"init": str(path), "seed": seed}
        Trainer(tiny(data, tmp_path / f"seed{seed}", **given))
        assert ("validation images" in capsys.readouterr().out) == said
