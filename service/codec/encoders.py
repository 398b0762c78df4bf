"""Masks to bytes: every format of the answer."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.images import WHOLE_COMPONENTS, Labels, ObjectParams, TooManyObjectsError, label
from engine.model import Model
from engine.preprocess import in_8_bits, is_8_bits
from service.codec import objects, png, polygons, rle
from service.codec.pixels import Logits, Mask, Pixels
from service.problems import TooManyObjects


def to_png(mask: Mask, model: Model) -> bytes:
    """PNG: 0/255 for one class (1-bit greyscale), class indices for several (see `png.indices`)."""
    return png.black_and_white(mask) if len(model.classes) == 1 else png.indices(mask)


def to_npy(mask: Mask, model: Model) -> bytes:
    """numpy's .npy: the mask itself, uint8 [h, w], 0/1 for one class, class indices for several."""
    return _npy(mask)


def to_json(mask: Mask, model: Model) -> bytes:
    """Size, and per class its pixels and their share, as JSON."""
    names = [entry.name for entry in model.classes]
    if len(names) == 1:
        names = ["background", *names]
    counts = np.bincount(mask.ravel(), minlength=len(names)).tolist()
    classes = [
        {"index": i, "name": name, "pixels": pixels, "share": pixels / mask.size}
        for i, (name, pixels) in enumerate(zip(names, counts, strict=True))
    ]
    return _document(mask, model, classes=classes)


def to_rle(mask: Mask, model: Model) -> bytes:
    """JSON with COCO run lengths of every class that occurs (`size` is [height, width]), as pycocotools reads them."""
    masks = [entry | {"size": mask.shape, "counts": rle.encode(where)} for entry, where in _present(mask, model)]
    return _document(mask, model, masks=masks)


def to_polygons(mask: Mask, model: Model) -> bytes:
    """JSON with every connected area: class, and rings of pixel corners [x, y], the outer one before its holes."""
    areas = [entry | {"rings": rings} for entry, where in _present(mask, model) for rings in polygons.trace(where)]
    return _document(mask, model, polygons=areas)


def to_probability(logits: Logits, model: Model) -> bytes:
    """numpy's .npy of probabilities: float32 [h, w] for one class, [h, w, classes] for several."""
    return _npy(_probabilities(logits, model).astype(np.float32))


def to_labels(mask: Mask, params: ObjectParams) -> bytes:
    """16-bit PNG with the number of every pixel's object, those of format objects; 0 is background."""
    return png.labels(_labelled(mask, params)[0])


def to_objects(mask: Mask, logits: Logits, model: Model, params: ObjectParams) -> bytes:
    """JSON with every object, as a COCO document of one image (`objects.document`)."""
    labels, classes = _labelled(mask, params)
    probability = _probabilities(logits, model)
    if probability.ndim == 3:
        probability = np.take_along_axis(probability, mask[:, :, None].astype(np.intp), axis=2)[:, :, 0]
    document = objects.document(labels, classes, probability, model)
    return json.dumps(document, separators=(",", ":")).encode()


def _labelled(mask: Mask, params: ObjectParams) -> tuple[Labels, NDArray[np.uint8]]:
    try:
        return label(mask, params)
    except TooManyObjectsError as error:
        raise TooManyObjects(f"{error}: raise min_area or the threshold") from error


def _probabilities(logits: Logits, model: Model) -> NDArray[np.float64]:
    """[h, w] for one class, [h, w, classes] for several."""
    real = logits * model.layers[-1].scale
    if len(model.classes) == 1:
        foreground: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(real[:, :, 0], -500, 500)))
        return foreground
    odds = np.exp(real - real.max(axis=2, keepdims=True))
    shares: NDArray[np.float64] = odds / odds.sum(axis=2, keepdims=True)
    return shares


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _present(mask: Mask, model: Model) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
    """Index, name and pixels of every class that occurs; of a single class only the foreground counts."""
    single = len(model.classes) == 1
    for index, entry in enumerate(model.classes, start=single):
        where = mask == index
        if where.any():
            yield {"index": index, "name": entry.name}, where


def _document(mask: Mask, model: Model, **content: Any) -> bytes:
    height, width = mask.shape
    document = {"model": model.name, "width": width, "height": height} | content
    return json.dumps(document, separators=(",", ":")).encode()


def overlay(image: Pixels, mask: Mask, model: Model) -> bytes:
    """PNG of `image` with every class in its own colour at half strength; one class leaves the background alone.

    An image of 16 bits is shown in the contrast in which the model sees it.
    """
    if not is_8_bits(image):
        image = in_8_bits(image, model.preprocessing)
    colors = [entry.color for entry in model.classes]
    painted = np.ones(mask.shape, bool)
    if len(colors) == 1:
        colors, painted = [(0, 0, 0), *colors], mask != 0
    blended = (image // 2) + np.array(colors, np.uint8)[mask] // 2
    file = io.BytesIO()
    Image.fromarray(np.where(painted[:, :, None], blended, image)).save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True)
class Result:
    """What an encoder may draw on. `logits` are there for encoders that want them."""

    model: Model
    image: Pixels
    mask: Mask
    logits: Logits | None = None
    objects: ObjectParams = WHOLE_COMPONENTS


@dataclass(frozen=True)
class Encoder:
    """One format of the answer: its media type, and the function that makes its bytes."""

    media_type: str
    encode: Callable[[Result], bytes]
    wants_logits: bool = False
    of_objects: bool = False  # heeds ObjectParams
    brief: bool = False  # takes a small part of the engine's time, whatever the mask


def _of_mask(encode: Callable[[Mask, Model], bytes]) -> Callable[[Result], bytes]:
    return lambda result: encode(result.mask, result.model)


def _overlay(result: Result) -> bytes:
    return overlay(result.image, result.mask, result.model)


def _probability(result: Result) -> bytes:
    assert result.logits is not None
    return to_probability(result.logits, result.model)


def _labels(result: Result) -> bytes:
    return to_labels(result.mask, result.objects)


def _objects(result: Result) -> bytes:
    assert result.logits is not None
    return to_objects(result.mask, result.logits, result.model, result.objects)


ENCODERS = {  # of two with one media type, the Accept header means the first
    "png": Encoder("image/png", _of_mask(to_png), brief=True),
    "npy": Encoder("application/x-npy", _of_mask(to_npy), brief=True),
    "json": Encoder("application/json", _of_mask(to_json)),
    "rle": Encoder("application/vnd.mbunet.rle+json", _of_mask(to_rle)),
    "polygons": Encoder("application/vnd.mbunet.polygons+json", _of_mask(to_polygons)),
    "objects": Encoder("application/vnd.mbunet.objects+json", _objects, wants_logits=True, of_objects=True),
    "labels": Encoder("image/png", _labels, of_objects=True),
    "overlay": Encoder("image/png", _overlay),
    "probability": Encoder("application/x-npy", _probability, wants_logits=True),
}
