"""From a checkpoint to a model file, with a proof, layer by layer, that the file computes the same bits as torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine import format, ops, preprocess, selftest, whole
from engine.backends import reference
from engine.bits import pack
from engine.images import FIRST, Selection
from engine.layer import Layer
from engine.model import ClassInfo, Model, Preprocessing
from engine.preprocess import Image
from engine.prune import prune
from engine.runtime import Engine
from engine.train import calibrate, kinds, log, pretrained, split
from engine.train.config import Config
from engine.train.data import dataset, layouts
from engine.train.figures import colors
from engine.train.network import Network
from engine.train.params import QuantizedParams

Pixels = NDArray[np.uint8]

TOLD = ("crop", "batch", "learning_rate", "zeros_from", "zeros_by", "group", "run_seed", "ablate", "weights",
        "foreground", "empty", "activation_bits", "weight_bits", "branches", "gates", "bit_decay")  # fmt: skip
"""What a model file tells of its training where it is not the default."""

PROVEN = 256  # pixels a side
PROOF_SIZES = ((16, 16), (37, 53), (80, 33))  # (h, w) of the random images of a proof


class ExportError(ValueError):
    """A checkpoint that cannot become a model file; the message names the layer, where it is one layer's fault."""


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    name: str = "",
    class_name: str = "",
    color: tuple[int, int, int] = (64, 192, 96),
    metrics: Mapping[str, Any] | None = None,
    threshold: float = 0.5,
    selection: Selection = FIRST,
) -> Path:
    """Write the model file of `checkpoint` to `out`, read it back and prove it; returns its path.

    Channels that can never change a result are left out, and where the training data is at hand the probabilities are
    calibrated on its validation images. `name` is the file's stem by default, `class_name` the run's own, `threshold`
    the probability at which a pixel is foreground unless a request says otherwise, and `selection` the channel and page
    that the model names, by default those that it has learned from. `metrics` (JSON) go into the provenance,
    by default those that the trainer logged for this checkpoint. The proof runs random images and, where the training
    data is at hand, some of it. A file that fails is not left behind.
    """
    out = Path(out)
    network, config, _ = found = restore(checkpoint)
    parts = parts_of(checkpoint)
    model = _model(checkpoint, found, name or out.stem, classes_of(config, class_name, color), metrics)
    out.parent.mkdir(parents=True, exist_ok=True)
    small = prune(model)
    provenance = {**model.provenance, "removed": small.report(model)}
    how = _naming(model.preprocessing, selection)
    small = replace(small, model=replace(small.model, threshold=threshold, provenance=provenance, preprocessing=how))
    with whole.written(out) as file:
        file.write(format.to_bytes(small.model))
        file.flush()
        prove(network, format.load(file.name), proof_images(config, parts), small.kept)
        file.seek(0)
        file.truncate()
        file.write(format.to_bytes(calibrated(small.model, config, parts)))
    return out


def model_of(checkpoint: str | Path) -> Model:
    """The model of `checkpoint`, named by its file, neither calibrated nor proven; raises ExportError."""
    found = restore(checkpoint)
    return _model(checkpoint, found, Path(checkpoint).stem, classes_of(found[1]))


def _model(
    checkpoint: str | Path,
    found: tuple[Network, Config, int],
    name: str,
    classes: Sequence[ClassInfo],
    metrics: Mapping[str, Any] | None = None,
) -> Model:
    """The model of what was `found` in `checkpoint`, with its provenance."""
    network, config, step = found
    metrics = metrics or logged_metrics(Path(checkpoint).with_name("log.csv"), step)
    provenance = {"samples": step * config.batch, **_story(config, parts_of(checkpoint)), "metrics": dict(metrics)}
    return to_model(network, config, name=name, classes=classes, provenance=provenance)


def _story(config: Config, parts: dataset.Parts | None) -> dict[str, Any]:
    """What a model file tells of a run, but for what only its end shows."""
    return {**describe(config), **({"parts": parts.tell()} if parts else {})}


def check_ahead(config: Config, parts: dataset.Parts) -> None:
    """Raise ModelFileError where no model file could hold what `config` trains on `parts`: hours of training sooner."""
    layers, classes = tuple(config.layers()), tuple(classes_of(config))
    if any(layer.weights in kinds.MULTIBIT for layer in layers):
        return  # a baseline, of which there is none
    *body, head = (replace(layer, weights=kinds.stored(layer.weights)) for layer in layers)
    flat, story = (*body, replace(head, scale=1.0)), _story(config, parts)  # whatever scale it will have
    format.check_ahead(Model("model", config.family, flat, classes, config.preprocessing, 0.5, story, tensors={}))


def _naming(how: Preprocessing, selection: Selection) -> Preprocessing:
    channel, page = (
        was if choice is None else str(choice)
        for was, choice in ((how.channel, selection.channel), (how.page, selection.page))
    )
    return replace(how, channel=channel, page=page)


def classes_of(config: Config, class_name: str = "", color: tuple[int, int, int] = (64, 192, 96)) -> list[ClassInfo]:
    """The classes of a run with their colors; without index masks the foreground, as named here or by the run."""
    named = [ClassInfo(n, c) for n, c in zip(config.classes, colors(len(config.classes)), strict=True)]
    return named or [ClassInfo(class_name or config.class_name, color)]


def restore(checkpoint: str | Path) -> tuple[Network, Config, int]:
    """(network in evaluation mode, its run's configuration, step) of a trainer's checkpoint."""
    found = pretrained.load(str(checkpoint))
    return found.network(), found.config, found.step


def config_of(checkpoint: str | Path) -> Config:
    """The configuration of a checkpoint's run."""
    return pretrained.load(str(checkpoint)).config


def exportable(config: Config) -> bool:
    """Whether a kernel runs what `config` trains: `to_model` has a model of it."""
    return not config.full_precision and kinds.MULTIBIT.keys().isdisjoint(layer.weights for layer in config.layers())


def bare_model(network: Network, config: Config, name: str) -> Model:
    """That of `to_model` without a story, for which no data is looked at."""
    return to_model(network, config, name=name, classes=classes_of(config), provenance={})


def to_model(
    network: Network,
    config: Config,
    *,
    name: str,
    classes: Sequence[ClassInfo],
    provenance: Mapping[str, Any],
) -> Model:
    """The model of `network`, which `config` has trained; `provenance` (JSON) gains the share of zeros reached."""
    if network.full_precision:
        raise ExportError(
            "a network in full precision has no bits to export or describe: mbunet eval scores it without a card, "
            "mbunet segment runs it, and mbunet train DATA -o RUN --bits-only --init CHECKPOINT makes bits of it"
        )
    for layer in network.layers:
        if layer.weights in kinds.MULTIBIT:
            raise ExportError(f"{layer.name}: weights of {layer.weights} are a baseline that no kernel runs")
    params = network.quantized_params()
    layers: list[Layer] = []
    tensors: dict[str, NDArray[Any]] = {}
    for layer in network.layers:
        if layer.name in params:
            inputs = [network.outputs[name].channels for name in layer.inputs]
            parts = _tensors(layer, params[layer.name], inputs)
            tensors |= {f"{layer.name}.{part}": np.ascontiguousarray(array) for part, array in parts.items()}
        layer = replace(layer, weights=kinds.stored(layer.weights))
        layers.append(replace(layer, scale=params[layer.name].scale) if layer.op == "head" else layer)
    return Model(
        name=name,
        family=config.family,
        layers=tuple(layers),
        classes=tuple(classes),
        preprocessing=config.preprocessing,
        threshold=0.5,
        provenance={**provenance, "zeros": _zeros(network.layers, params)},
        tensors=tensors,
    )


def calibrated(model: Model, config: Config, parts: dataset.Parts | None) -> Model:
    """`model` with the temperature that suits the validation images, where those are at hand."""
    held = validation_samples(config, parts)
    if not held:
        return model
    classes, scale = len(config.classes), model.layers[-1].scale
    with Engine.load(model) as engine:
        loaded = (sample.load(classes) for sample in held)
        labeled = [calibrate.subsample(engine.logits(image) * scale, mask) for image, mask in loaded]
    t = calibrate.temperature(labeled)
    provenance = {**model.provenance, "temperature": round(t, 4)}
    return calibrate.with_temperature(replace(model, provenance=provenance), t)


def prove(
    network: Network, model: Model, images: Iterable[Pixels], kept: Mapping[str, NDArray[np.intp]] | None = None
) -> None:
    """Check that `network` and the reference on `model` agree in every bit of every layer.

    `images` are uint8 [h, w, 3] of any sizes; `kept` names the channels that a pruned model has left of each layer.
    Raises ExportError naming the first layer that differs.
    """
    for image in images:
        fitted = preprocess.pad(image, model.padded(*image.shape[:2]))
        with torch.no_grad():
            expected = network.trace(torch.from_numpy(fitted.transpose(2, 0, 1).copy())[None], keep=True)
        result = reference.run(model, fitted)
        for layer in model.layers:
            theirs = expected[layer.name][0].permute(1, 2, 0).numpy()
            theirs = theirs[..., kept[layer.name]] if kept else theirs
            head = layer.op == "head"
            ours = result.logits if head else result.trace[layer.name]
            wrong = np.count_nonzero(ours != (np.rint(theirs / layer.scale) if head else theirs))
            if wrong:
                where = f"on an image of {fitted.shape[:2]} (h, w)"
                raise ExportError(f"{layer.name}: {wrong} of {ours.size} values differ from torch {where}")


def golden(checkpoint: str | Path, images: Iterable[Image], out: str | Path) -> Path:
    """Write the golden file of `checkpoint`: `images` ([h, w, 3], any sizes) and torch's logits for them."""
    network, config, _ = restore(checkpoint)
    scale = network.quantized_params()[network.layers[-1].name].scale
    expected = []
    for image in images:
        prepared = preprocess.preprocess(image, config.preprocessing)
        height, width = prepared.shape[:2]
        with torch.no_grad():
            padded = preprocess.pad(prepared, network.padded(height, width))
            real = network(torch.from_numpy(padded.transpose(2, 0, 1).copy())[None])
        logits = np.rint(real[0, :, :height, :width].permute(1, 2, 0).numpy() / scale).astype(np.int32)
        expected.append((image, preprocess.postprocess(logits, image.shape, config.preprocessing)))
    selftest.write_golden(Path(out), expected)
    return Path(out)


def proof_images(config: Config, parts: dataset.Parts | None) -> list[Pixels]:
    """Random images of odd sizes and, where the data folder is at hand, the two smallest of the validation images.

    Of those no more than PROVEN pixels a side: the reference is exact, and slow.
    """
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in PROOF_SIZES]
    smallest = sorted(validation_samples(config, parts), key=lambda sample: sample.size)[:2]
    own = [sample.load(len(config.classes))[0] for sample in smallest]
    return images + [preprocess.preprocess(image, config.preprocessing)[:PROVEN, :PROVEN] for image in own]


def parts_of(checkpoint: str | Path) -> dataset.Parts | None:
    """The split that a checkpoint keeps; None in those of earlier versions."""
    return pretrained.load(str(checkpoint)).parts


def validation_samples(config: Config, parts: dataset.Parts | None) -> list[dataset.Sample]:
    """The validation images of a run, by the split it has kept; none where its data is not at hand."""
    if not config.data or not Path(config.data).is_dir():
        return []
    everything = split.samples(config)
    return (parts.divide(everything) if parts else dataset.split(everything, config.share, config.seed))[1]


def describe(config: Config) -> dict[str, Any]:
    """How a model came to be, as JSON without paths: data, split, budget, code."""
    data = Path(config.data)
    samples = dataset.grouped(layouts.samples(data), config.group) if data.is_dir() else []
    groups = len({sample.split_group for sample in samples if sample.split_group})
    validation = _name(config.validation) if isinstance(config.validation, str) else config.validation
    default = Config(config.data, config.out)
    changed = {name: getattr(config, name) for name in TOLD if getattr(config, name) != getattr(default, name)}
    others = {name: _called(source) for name in ("init", "teacher") if (source := getattr(config, name))}
    run = {"width": config.width, "annealing": config.annealing, **changed, **others}
    return {
        "data": _name(data),
        **({"images": len(samples)} if samples else {}),
        "split": {"validation": validation, "seed": config.seed, **({"groups": groups} if groups else {})},
        **run,
        "code": metadata.version("mbunet"),
    }


def _called(source: str) -> str:
    """A run by its folder, another file or a shipped model by its own name."""
    path = Path(source)
    return _name(path.parent if path.name in ("checkpoint.pt", "best.pt") else path.with_suffix(""))


def _name(path: str | Path) -> str:
    """The last part of `path` as text: bytes that are no UTF-8 become question marks."""
    return Path(path).name.encode(errors="replace").decode()


def logged_metrics(log_csv: Path, step: int) -> dict[str, float]:
    """Validation metrics that the log at `log_csv` holds for `step`; empty where it holds none."""
    rows = log.read(log_csv) if log_csv.is_file() else []
    found = [row for row in rows if row["step"] == step and "dice" in row]
    return {name: round(found[-1][name], 4) for name in ("dice", "iou", "f1")} if found else {}


def _tensors(layer: Layer, params: QuantizedParams, inputs: Sequence[int]) -> dict[str, NDArray[Any]]:
    if not ops.operation(layer).has_bits:
        return {"weight": params.weights, **params.arrays}
    planes = {"pos": pack(params.weights > 0, inputs)}
    if kinds.stored(layer.weights) == "masked":
        planes["neg"] = pack(params.weights < 0, inputs)
    return {**planes, **params.arrays}


def _zeros(layers: Iterable[Layer], params: Mapping[str, QuantizedParams]) -> float:
    """Share of zeros among the weights of all masked layers, rounded to four digits."""
    weights = [params[layer.name].weights for layer in layers if kinds.stored(layer.weights) == "masked"]
    zeros = sum(np.count_nonzero(w == 0) for w in weights)
    return round(zeros / max(sum(w.size for w in weights), 1), 4)
