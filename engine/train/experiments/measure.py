"""What a run of a study is worth: its scores, its products and zeros, its milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from engine import preprocess, strategy
from engine.model import Model, Preprocessing
from engine.runtime import Engine
from engine.train import export, metrics, saliency, timing
from engine.train.config import Config
from engine.train.data import dataset
from engine.train.evaluate import Segments
from engine.train.network import Network

Row = dict[str, Any]
Pixels = NDArray[np.uint8]


@cache
def _held(sample: dataset.Sample, classes: int, how: Preprocessing) -> tuple[Pixels, Pixels]:
    """(prepared image, mask at the image's own size) of a validation sample, remembered."""
    image, mask = sample.load(classes)
    return preprocess.preprocess(image, how), mask


def model_of(network: Network, config: Config, name: str, parts: dataset.Parts) -> Model:
    """The model of `network`, which `config` has trained on the split `parts`."""
    story = {"samples": config.samples, **export.describe(config), "parts": parts.tell()}
    return export.to_model(network, config, name=name, classes=export.classes_of(config), provenance=story)


def score(model: Model, items: Sequence[dataset.Sample]) -> metrics.Metrics:
    """Metrics of `model` over whole images, by the engine, which gives the bits of torch in less time."""
    how = model.preprocessing
    classes = tuple(info.name for info in model.classes) if len(model.classes) > 1 else ()
    counted: list[tuple[str, metrics.Counts]] = []
    with Engine.load(replace(model, preprocessing=Preprocessing()), threads=torch.get_num_threads()) as engine:
        for sample in items:
            image, mask = _held(sample, len(classes), how)
            (predicted,), _ = engine.run([image])
            found = preprocess.postprocess(predicted, mask.shape, how)
            counted += metrics.by_class(found, mask, classes)
    return metrics.summarize_classes(counted)


def salient(engine: Segments, items: Sequence[dataset.Sample]) -> Row:
    """MAE and maximum F-beta of masks of one class."""
    loaded = (sample.load() for sample in items)
    found = saliency.summarize(saliency.curve(engine.probabilities(image)[..., 0], mask) for image, mask in loaded)
    return {"mae": round(found.mae, 5), "max_f": round(found.max_f, 5)}


def columns(result: metrics.Metrics) -> Row:
    """The scores of a row."""
    row: Row = {name: round(getattr(result, name), 5) for name in metrics.EXACT}
    row |= {"constant": round(result.constant, 5), "never_found": " ".join(result.never_found)}
    return row | {f"f1_{name}": round(own.f1, 5) for name, own in result.by_class.items()}


def counts(model: Model) -> Row:
    """Products for a 512 x 512 image by backend, non-zero weights, and the share of zeros of all weights and by block.

    The block "in" is the input block.
    """
    visits = strategy.weight_visits(model.layers)
    row: Row = {"bmma_products": strategy.products(model.layers, "bmma"), "cpu_products": 0.0}
    weights: dict[str, tuple[int, int]] = {}
    for layer, count in zip(model.layers, visits, strict=True):
        if count:
            signs = model.ternary(layer)
            nonzero, block = int(np.count_nonzero(signs)), layer.block or "in"
            row["cpu_products"] += count * nonzero / signs.size
            zeros, size = weights.get(block, (0, 0))
            weights[block] = zeros + signs.size - nonzero, size + signs.size
    row["nonzeros"] = sum(size - zeros for zeros, size in weights.values())
    row["zero_weights"] = round(1 - row["nonzeros"] / sum(size for _, size in weights.values()), 4)
    return row | {f"zeros_{block}": round(zeros / size, 4) for block, (zeros, size) in weights.items()}


def milliseconds(models: Sequence[Path], rounds: int = 15, side: int = 512, threads: int = 0) -> list[float]:
    """Fastest call of the engine for each model on one image of `side` x `side` (`timing.fastest`)."""
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    engines = [Engine.load(path, threads=threads) for path in models]
    found = timing.fastest(engines, image, tqdm(range(rounds), desc="timing", unit="round", dynamic_ncols=True))
    for engine in engines:
        engine.close()
    return found


def with_times(rows: Iterable[Row], out: Path, measure: Callable[[Sequence[Path]], list[float]]) -> list[Row]:
    """`rows`, each model with its `ms` and `fps`, all measured now: times of two sessions do not compare."""
    rows = list(rows)
    files = {row["name"]: out / "models" / f"{row['name']}.safetensors" for row in rows}
    timed = {name: file for name, file in files.items() if file.is_file()}
    times = dict(zip(timed, measure(list(timed.values())), strict=True))
    return [
        row
        | (
            {"ms": round(times[row["name"]], 3), "fps": round(1e3 / times[row["name"]], 1)}
            if row["name"] in times
            else {}
        )
        for row in rows
    ]
