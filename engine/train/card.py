"""A model card in Markdown, written from the model file and from what was measured just now; nothing by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine import ops
from engine.layer import Layer
from engine.model import Model
from engine.train import evaluate, metrics
from engine.train.evaluate import Row
from engine.train.renamed import current

NETWORKS = {
    "mbu-net": "A U-Net",
    "bfcn": "A network with residual blocks, a reconstruction of BFCN",
    "multi-branch": "A U-Net with upsampling in branches and gates, a reconstruction of a multi-branch network",
}
"""What each family is."""

FEW = 10  # images; scores over fewer say little
FULL = 0.02  # of an empty part: from there on who sends empty fields should know


def write(model: Model, rows: Sequence[Row], part: str) -> str:
    """The card of `model`, scored on `rows`: the `part` ("validation", "all", …) of a data folder."""
    story = current(model.provenance)
    lines = [f"# {model.name}", "", _what(model), "", "## Data and training", "", *_story(story)]
    lines += ["", f"## Scores ({len({row.name for row in rows})} images, part: {part})", "", *_table(rows)]
    if confused := evaluate.confusion_table(rows, [info.name for info in model.classes]):
        lines += ["", "```", confused, "```"]
    if found := evaluate.salient(rows):
        lines += ["", f"Of the probabilities, as salient objects are scored: {found}."]
    error = evaluate.calibration_error(rows)
    if error is not None:
        lines += [
            "",
            f"Expected calibration error of the probabilities: {error:.4f} ({metrics.BINS} bins, all pixels).",
        ]
        if "temperature" in story:
            lines += [f"They were calibrated on the validation images with the temperature {story['temperature']:.3g}."]
    lines += ["", "## Limits", "", *(f"- {limit}" for limit in _limits(model, rows, part))]
    return "\n".join(lines) + "\n"


def _what(model: Model) -> str:
    bits = [layer for layer in model.layers if ops.operation(layer).has_bits]
    signs = [model.ternary(layer) for layer in bits]
    size, zeros = sum(w.size for w in signs), sum(int(np.count_nonzero(w == 0)) for w in signs)
    names = ", ".join(info.name for info in model.classes)
    activations = "single bits" if model.layers[0].planes == 1 else f"levels of {model.layers[0].planes} bits"
    return (
        f"Segments: {names}. {NETWORKS[model.family]} ({model.family}) whose activations are {activations}; "
        f"{_masked(bits)}, the others binary; {size:,} bit weights, {zeros / size:.1%} of them zero. "
        f"Images are {_fitted(model)}, contrast: {model.preprocessing.contrast}{_taken(model)}."
    )


def _masked(bits: Sequence[Layer]) -> str:
    """How many blocks are masked, or how many layers where a network has no blocks."""
    blocks = [layer for layer in bits if layer.block]
    parts = {layer.block or layer.name: layer.weights for layer in blocks or bits}
    masked = sum(weights == "masked" for weights in parts.values())
    return f"{masked} of {len(parts)} {'blocks' if blocks else 'layers of bits'} are masked (-1, 0, +1)"


def _fitted(model: Model) -> str:
    how = model.preprocessing
    if how.resize_mode == "resize":
        return f"resized to {how.height} x {how.width} pixels"
    if how.resize_mode == "aspect":
        return f"resized to fit into {how.height} x {how.width} pixels"
    return f"padded to multiples of {model.stride} pixels"


def _taken(model: Model) -> str:
    named = {"channel": model.preprocessing.channel, "page": model.preprocessing.page}
    return "".join(f", {name}: {choice}" for name, choice in named.items() if choice)


def _story(story: Mapping[str, Any]) -> list[str]:
    return [f"- {name}: {_plain(_short(story[name]))}" for name in sorted(story) if name != "metrics"]


def _short(value: Any) -> Any:
    """The parts of a split by their counts alone."""
    return (
        {name: v for name, v in value.items() if name not in ("digest", "digests")}
        if isinstance(value, Mapping)
        else value
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(entry) for entry in value)
    return str(value)


def _table(rows: Sequence[Row]) -> list[str]:
    otsu = all(row.otsu for row in rows)
    columns = evaluate.columns(rows)
    alone = evaluate.taken_for_objects(rows) is not None
    heads = ["images", *columns, *([evaluate.EMPTY] if alone else []), *(["Otsu's Dice"] if otsu else [])]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for title, chosen in evaluate.parts(rows).items():
        own = evaluate.score(chosen)
        cells = [f"{getattr(own, name):.3f}" for name in columns.values()]
        line = f"| {title} | {own.images} | {' | '.join(cells)} |"
        if alone:
            line += f" {evaluate.percent(evaluate.taken_for_objects(chosen))} |"
        if otsu:
            line += f" {metrics.summarize(row.otsu for row in chosen if row.otsu).dice:.3f} |"
        lines.append(line)
    return lines + [line for remark in evaluate.score(rows).remarks for line in ("", f"**{remark}**")]


def _limits(model: Model, rows: Sequence[Row], part: str) -> list[str]:
    limits = []
    if part in ("training", "all"):
        limits.append("These scores are not over the validation images alone: training has seen some of them.")
    story = model.provenance
    if "split" in story and "group" not in story and not story["split"].get("groups"):
        limits.append("The split is random: images of one slide, patient or instrument can lie on both sides of it, "
                      "so scores on other sources will be lower.")  # fmt: skip
    divided = evaluate.parts(rows)
    for title, chosen in divided.items():
        share = evaluate.taken_for_objects(chosen)
        if share is not None and share >= FULL and (title != "all" or len(divided) == 1):
            limits.append(f"{title}: {share:.1%} of an empty part of an image, sent alone, come back as objects; "
                          "send such a field as part of a larger image.")  # fmt: skip
        if title == "all":
            continue
        count = len({row.name for row in chosen})
        if count < FEW:
            limits.append(f"{title}: {count} images only; the score says little.")
        otsu = [row.otsu for row in chosen if row.otsu]
        if otsu and metrics.summarize(otsu).dice > evaluate.score(chosen).dice:
            limits.append(f"{title}: Otsu's threshold is better.")
    return [*limits, "Not a medical device; look at its masks before you rely on them."]
