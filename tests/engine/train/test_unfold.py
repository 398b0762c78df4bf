"""A model file as the beginning of a run: the same bits before the first step, and a network that learns on."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine import format, preprocess
from engine.backends import reference
from engine.model import Model
from engine.train import export, pretrained, trainer
from engine.train.config import Config
from engine.train.network import Network
from engine.train.network_engine import predict
from engine.train.pretrained import MismatchError
from engine.train.trainer import Trainer
from engine.train.unfold import UnfoldError


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


def written(config: Config, folder: Path) -> Path:
    """The model file of a new network."""
    network, path = Network(config.layers()).eval(), folder / "new.safetensors"
    classes, story = export.classes_of(config), export.describe(config)
    format.save(export.to_model(network, config, name="new", classes=classes, provenance=story), path)
    return path


def begun(data: Path, out: Path, path: Path, **changes: Any) -> Trainer:
    run = Trainer(tiny(data, out, **(pretrained.settings(str(path)) | {"init": str(path)} | changes)), quiet=True)
    run._set_zeros()
    run.network.eval()
    return run


ONE_SEGMENT = {"family": "multi-branch", "branches": 1, "gates": "none"}


@pytest.mark.parametrize(
    "bits",
    [{}, {"masked": ("Up4",)}, ONE_SEGMENT, {**ONE_SEGMENT, "masked": ()}],
    ids=["masked", "binary", "multi-branch", "multi-branch, binary"],
)
def test_before_its_first_step_a_run_computes_what_its_model_file_computes(
    bits: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    path, model = shipped(data, tmp_path, contrast="stretch", zeros=0.8, **bits)
    run = begun(data, tmp_path / "second", path)
    assert run.config.contrast == "stretch"
    assert [layer.weights for layer in run.network.layers] == [layer.weights for layer in model.layers]
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


def test_other_classes_of_the_same_number_begin_with_a_new_head_too(tmp_path: Path) -> None:
    path = written(Config("none", "out", width=4, classes=("a", "b")), tmp_path)
    file = format.load(path).tensors["head.weight"].astype(np.float64)
    cosines = []
    for classes in (("a", "b"), ("c", "d")):
        config = Config("none", "out", **(pretrained.settings(str(path)) | {"classes": classes}))
        network = Network(config.layers())
        pretrained.begin(network, pretrained.load_any(str(path)), config, [torch.zeros(1, 3, 16, 16)])
        head = network.get_parameter("stages.head.weight").detach().numpy()[..., 0, 0]
        cosines.append((head * file).sum() / (np.linalg.norm(head) * np.linalg.norm(file)))
    assert cosines[0] > 0.99 > cosines[1]


@pytest.mark.parametrize(
    "given",
    [
        {"family": "bfcn", "weight_bits": 2},
        {"family": "bfcn", "masked": ()},
        {"family": "multi-branch", "branches": 2, "gates": "position"},
        {"family": "multi-branch", "masked": (), "gates": "channel"},
    ],
    ids=["two bits", "binary bfcn", "branches", "binary branches"],
)
def test_a_file_of_any_family_says_of_what_shape_it_is(given: dict[str, Any], tmp_path: Path) -> None:
    config = Config("none", "out", width=4, **given)
    taken = pretrained.settings(str(written(config, tmp_path)))
    assert {name: taken[name] for name in given} == given
    own = Config("none", "out", **taken)
    assert [layer.weights for layer in own.layers()] == [layer.weights for layer in config.layers()]


def test_a_shipped_model_says_what_a_run_from_it_is_like() -> None:
    taken = pretrained.settings("nuclei-small")
    assert Config("", "", **taken) == Config("", "", contrast="stretch", zeros=0.9, zeros_from=0.9, annealing=0.0)


def test_the_split_of_a_model_file_is_known(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = shipped(data, tmp_path, samples=2)
    for seed, said in ((0, False), (1, True)):
        given = pretrained.settings(str(path)) | {"init": str(path), "seed": seed}
        Trainer(tiny(data, tmp_path / f"seed{seed}", **given))
        assert ("validation images" in capsys.readouterr().out) == said
