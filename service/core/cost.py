"""What an image costs the engine, known before it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine import preprocess
from engine.model import Model
from service.core.params import SegmentParams
from service.problems import TooManyPixels

INDEX = 32  # bytes for each row and column of a mask that is resized: which one it is of, and on the way to that


def pixels(model: Model, image_shape: Sequence[int]) -> int:
    """Pixels that the network computes: of the size that the model resizes to, else of the image's own, padded.

    They are what every limit on pixels counts from the moment on that the model is known.
    """
    height, width, *_ = image_shape
    return math.prod(model.padded(*preprocess.size(height, width, model.preprocessing)))


def fitted_bytes(model: Model, image_shape: Sequence[int]) -> int:
    """Bytes of what the network sees of an image [h, w, ...], padded."""
    return 3 * pixels(model, image_shape)


def run_bytes(params: SegmentParams, image_shape: Sequence[int]) -> int:
    """Bytes that an image [h, w, ...] takes beside its pixels, fitted, run and encoded, at most.

    What the engine itself keeps, its buffers, is there before any image is.
    """
    model, encoder = params.engine.model, params.encoder
    own, computed = image_shape[0] * image_shape[1], pixels(model, image_shape)
    result = 1 + 4 * len(model.classes) * encoder.wants_logits  # bytes a pixel: the mask, the logits
    resized = model.preprocessing.resize_mode != "pad"
    fitted = fitted_bytes(model, image_shape) + result * computed
    if resized:  # where its contrast or depth is another than the network's, it is in 8 bits first
        fitted += 3 * own + result * own + result * min(computed, preprocess.BAND) + INDEX * sum(image_shape[:2])
    encoded = encoder.memory(own, len(model.classes))
    split = encoder.split_memory(own, len(model.classes)) if params.objects.split else 0
    return fitted + encoded + split


def require_size(model: Model, image_shape: Sequence[int], limit: int) -> None:
    """Raise TooManyPixels for an image [h, w, ...] that costs more than the setting `max_pixels`."""
    cost = pixels(model, image_shape)
    if cost > limit:
        height, width = image_shape[:2]
        detail = f"{width} x {height} is {cost} pixels for the model {model.name}; the limit is {limit}"
        raise TooManyPixels(detail, limit=limit)
