"""Masks to bytes: every format of the answer, in pieces, so that whoever takes them may stop between two.

An empty piece says no more than that: here one may stop.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.images import (
    BAND,
    MOST_PEAKS,
    WHOLE_COMPONENTS,
    Labels,
    ObjectParams,
    TooManyObjectsError,
    label,
    row_bands,
)
from engine.model import Model
from engine.preprocess import in_8_bits, is_8_bits
from service.codec import objects, png, polygons, rle
from service.codec.pixels import Logits, Mask, Pixels
from service.problems import TooIntricate, TooManyObjects

PIECE = 2**16  # characters of a piece of text, at least
RING_CORNERS = 2**12  # that become text at a time
CORNER_BYTES = 150  # that a corner of a polygon takes until it is text, and as text
CLASS_PIXELS = 2**27  # that may be looked at, all of them again for every class that occurs
OBJECT_PIXELS = 2**26  # the same, where objects are described
SPLIT_PIXELS = 2**23  # the same, where they are split


def to_png(mask: Mask, model: Model) -> Iterator[bytes]:
    """PNG: 0/255 for one class (1-bit greyscale), class indices for several (see `png.indices`)."""
    return png.black_and_white(mask) if len(model.classes) == 1 else png.indices(mask)


def to_npy(mask: Mask, model: Model) -> Iterator[bytes]:
    """numpy's .npy: the mask itself, uint8 [h, w], 0/1 for one class, class indices for several."""
    yield _npy_header(mask.shape, mask.dtype)
    for rows in row_bands(mask):
        yield mask[rows].tobytes()


def to_json(mask: Mask, model: Model) -> Iterator[bytes]:
    """Size, and per class its pixels and their share, as JSON."""
    names = [entry.name for entry in model.classes]
    if len(names) == 1:
        names = ["background", *names]
    classes = [
        {"index": i, "name": name, "pixels": pixels, "share": pixels / mask.size}
        for i, (name, pixels) in enumerate(zip(names, _counts(mask, len(names)), strict=True))
    ]
    yield from _document(mask, model, "classes", (iter([_json(entry)]) for entry in classes))


def to_rle(mask: Mask, model: Model) -> Iterator[bytes]:
    """JSON with COCO run lengths of every class that occurs (`size` is [height, width]), as pycocotools reads them."""

    def member(entry: dict[str, Any], where: NDArray[np.bool_]) -> Iterator[str]:
        yield _json(entry | {"size": mask.shape})[:-1] + ',"counts":"'
        for counts in rle.encode(where):
            yield counts.replace("\\", "\\\\")
        yield '"}'

    yield from _document(mask, model, "masks", (member(*present) for present in _present(mask, model)))


def to_polygons(mask: Mask, model: Model) -> Iterator[bytes]:
    """JSON with every connected area: class, and rings of pixel corners [x, y], the outer one before its holes.

    Raises TooIntricate, for a mask of too many corners.
    """

    def member(entry: dict[str, Any], rings: list[polygons.Ring]) -> Iterator[str]:
        yield _json(entry)[:-1] + ',"rings":['
        for number, ring in enumerate(rings):
            yield ",[" if number else "["
            for first in range(0, len(ring), RING_CORNERS):
                yield ("," if first else "") + _json(ring[first : first + RING_CORNERS].tolist())[1:-1]
            yield "]"
        yield "]}"

    def members() -> Iterator[Iterator[str]]:
        left = polygons.MAX_CORNERS
        for entry, where in _present(mask, model):
            for rings in polygons.trace(where, left):
                left -= sum(map(len, rings))
                yield member(entry, rings)

    try:
        yield from _document(mask, model, "polygons", members())
    except polygons.TooManyCornersError:
        raise TooIntricate(
            f"the outlines of this mask have more than {polygons.MAX_CORNERS} corners: ask for format=png or rle",
            limit=polygons.MAX_CORNERS,
        ) from None


def to_probability(logits: Logits, model: Model) -> Iterator[bytes]:
    """numpy's .npy of probabilities: float32 [h, w] for one class, [h, w, classes] for several."""
    single = len(model.classes) == 1
    yield _npy_header(logits.shape[:2] if single else logits.shape, np.dtype(np.float32))
    for _, probability in _probabilities(logits, model):
        yield probability.astype(np.float32).tobytes()


def to_labels(mask: Mask, params: ObjectParams) -> Iterator[bytes]:
    """16-bit PNG with the number of every pixel's object, those of format objects; 0 is background."""
    return png.labels(labelled(mask, params)[0])


def to_objects(mask: Mask, logits: Logits, model: Model, params: ObjectParams) -> Iterator[bytes]:
    """JSON with every object, as a COCO document of one image (`objects.described`).

    Raises TooIntricate, for objects of too many runs.
    """
    _require_few(len(model.classes), mask.size, OBJECT_PIXELS)
    labels, classes = labelled(mask, params)
    yield b""
    sums, areas = np.zeros(len(classes) + 1), np.zeros(len(classes) + 1)
    for rows, probability in _probabilities(logits, model):
        if probability.ndim == 3:
            index = mask[rows, :, None].astype(np.intp)
            probability = np.take_along_axis(probability, index, axis=2)[:, :, 0]
        flat = labels[rows].ravel()
        sums += np.bincount(flat, probability.ravel(), len(sums))
        areas += np.bincount(flat, minlength=len(sums))
    yield b""
    parts = objects.described(labels, classes, sums[1:] / areas[1:])
    try:
        yield from _listed(
            objects.head(mask.shape, model), "annotations", (iter([_json(part)[1:-1]]) for part in parts)
        )
    except objects.TooManyRunsError:
        raise TooIntricate(
            f"the objects have more than {objects.MAX_RUNS} vertical runs of pixels: ask for format=labels",
            limit=objects.MAX_RUNS,
        ) from None


def labelled(mask: Mask, params: ObjectParams) -> tuple[Labels, NDArray[np.uint8]]:
    """The objects of a mask: the number of each pixel's, and the class of each. Raises TooManyObjects, TooIntricate."""
    classes = sum(count > 0 for count in _counts(mask, 256)[1:])
    if params.split:
        _require_few(classes, mask.size, SPLIT_PIXELS, "ask without split")
    _require_few(classes, mask.size, CLASS_PIXELS)
    try:
        return label(mask, params)
    except TooManyObjectsError as error:
        raise TooManyObjects(f"{error}: raise min_area or the threshold") from error


def _probabilities(logits: Logits, model: Model) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """[rows, w] for one class, [rows, w, classes] for several, some rows at a time. Raises TooIntricate."""
    single = len(model.classes) == 1
    _require_few(len(model.classes) if not single else 0, logits.shape[0] * logits.shape[1], CLASS_PIXELS)
    for rows in row_bands(logits):
        real = logits[rows] * model.layers[-1].scale
        if single:
            yield rows, 1 / (1 + np.exp(-np.clip(real[:, :, 0], -500, 500)))
        else:
            odds = np.exp(real - real.max(axis=2, keepdims=True))
            yield rows, odds / odds.sum(axis=2, keepdims=True)


def overlay(image: Pixels, mask: Mask, model: Model) -> Iterator[bytes]:
    """PNG of `image` with every class in its own colour at half strength; one class leaves the background alone.

    An image of 16 bits is shown in the contrast in which the model sees it.
    """
    if not is_8_bits(image):
        image = in_8_bits(image, model.preprocessing)
    colors = np.array([entry.color for entry in model.classes], np.uint8) // 2
    single = len(colors) == 1
    shown = np.empty_like(image)
    for rows in row_bands(image):
        if single:
            shown[rows] = np.where(mask[rows, :, None] != 0, image[rows] // 2 + colors[0], image[rows])
        else:
            shown[rows] = image[rows] // 2 + colors[mask[rows]]
    return png.rgb(shown)


def _counts(mask: Mask, classes: int) -> list[int]:
    """Pixels of every class."""
    counts = sum(np.bincount(mask[rows].ravel(), minlength=classes) for rows in row_bands(mask))
    return [int(count) for count in np.asarray(counts)]


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    file = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, described)
    return file.getvalue()


def _present(mask: Mask, model: Model) -> Iterator[tuple[dict[str, Any], NDArray[np.bool_]]]:
    """Index, name and pixels of every class that occurs; of a single class only the foreground counts."""
    single = len(model.classes) == 1
    counts = _counts(mask, len(model.classes) + single)
    found = [(i, entry.name) for i, entry in enumerate(model.classes, start=single) if counts[i]]
    _require_few(len(found), mask.size, CLASS_PIXELS)
    for index, name in found:
        yield {"index": index, "name": name}, mask == index


def _require_few(classes: int, pixels: int, most: int, instead: str = "ask for format=png") -> None:
    """Raise TooIntricate where every class is work for every pixel, and that is too much."""
    if classes * pixels > most:
        detail = f"{classes} classes in {pixels} pixels take too long in this format: {instead}"
        raise TooIntricate(detail, limit=most // max(1, classes))


def _document(mask: Mask, model: Model, key: str, members: Iterable[Iterator[str]]) -> Iterator[bytes]:
    """A JSON object with a list of `members` under `key`; they come as texts, which are gathered to pieces."""
    height, width = mask.shape
    return _listed({"model": model.name, "width": width, "height": height}, key, members)


def _listed(document: dict[str, Any], key: str, members: Iterable[Iterator[str]]) -> Iterator[bytes]:
    """`document` with a list more."""
    texts = [f'{_json(document)[:-1]},"{key}":[']
    size = 0
    for number, member in enumerate(members):
        if number:
            texts.append(",")
        for text in member:
            texts.append(text)
            size += len(text)
            if size > PIECE:
                yield "".join(texts).encode()
                texts, size = [], 0
    yield "".join([*texts, "]}"]).encode()


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


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
    """One format of the answer: its media type, the function that makes its pieces, and the bytes of memory that it
    takes at most for so many pixels and classes, the answer included.
    """

    media_type: str
    encode: Callable[[Result], Iterator[bytes]]
    memory: Callable[[int, int], int]
    split_memory: Callable[[int, int], int] = lambda pixels, classes: 0  # that much more where objects are split
    wants_logits: bool = False
    of_objects: bool = False  # heeds ObjectParams
    brief: bool = False  # takes a small part of the engine's time, whatever the mask


def _bytes(a_pixel: int, banded: int, band: int = BAND) -> Callable[[int, int], int]:
    """So many for every pixel, and more for those that are worked on at a time."""
    return lambda pixels, classes: a_pixel * pixels + banded * min(pixels, band)


def _of_mask(encode: Callable[[Mask, Model], Iterator[bytes]]) -> Callable[[Result], Iterator[bytes]]:
    return lambda result: encode(result.mask, result.model)


def _overlay(result: Result) -> Iterator[bytes]:
    return overlay(result.image, result.mask, result.model)


def _probability(result: Result) -> Iterator[bytes]:
    assert result.logits is not None
    return to_probability(result.logits, result.model)


def _labels(result: Result) -> Iterator[bytes]:
    return to_labels(result.mask, result.objects)


def _objects(result: Result) -> Iterator[bytes]:
    assert result.logits is not None
    return to_objects(result.mask, result.logits, result.model, result.objects)


ENCODERS = {  # of two with one media type, the Accept header means the first
    "png": Encoder("image/png", _of_mask(to_png), _bytes(1, 8), brief=True),
    "npy": Encoder("application/x-npy", _of_mask(to_npy), _bytes(1, 2), brief=True),
    "json": Encoder("application/json", _of_mask(to_json), _bytes(0, 16)),
    "rle": Encoder("application/vnd.mbunet.rle+json", _of_mask(to_rle), _bytes(6, 120, rle.BAND)),
    "polygons": Encoder(
        "application/vnd.mbunet.polygons+json",
        _of_mask(to_polygons),
        lambda pixels, classes: 6 * pixels + CORNER_BYTES * min(2 * pixels, polygons.MAX_CORNERS),
    ),
    "objects": Encoder(
        "application/vnd.mbunet.objects+json",
        _objects,
        _bytes(20, 200, objects.MAX_RUNS),
        split_memory=_bytes(64, 250, MOST_PEAKS),
        wants_logits=True,
        of_objects=True,
    ),
    "labels": Encoder("image/png", _labels, _bytes(20, 24), split_memory=_bytes(64, 250, MOST_PEAKS), of_objects=True),
    "overlay": Encoder("image/png", _overlay, _bytes(7, 24)),
    "probability": Encoder(
        "application/x-npy",
        _probability,
        lambda pixels, classes: (2 + 6 * classes) * pixels + 60 * min(classes * pixels, BAND),
        wants_logits=True,
    ),
}
