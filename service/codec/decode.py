"""Bytes to pixels, by the one decoder (`engine.images`, which says what counts); every refusal is a problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine import images
from engine.images import FIRST, Decoded, ImageError, Selection, fresh
from service.logs import log
from service.problems import BadParameter, NotAnImage, Problem, TooManyPixels, Unavailable, UnsupportedType

RETRY = {"Retry-After": "1"}
EMPTY = "the body is empty: send the image file itself, or a form with a file in the field `image`"
PROBLEMS: dict[type[ImageError], type[Problem]] = {
    images.TooManyPixelsError: TooManyPixels,
    images.UnsupportedImageError: UnsupportedType,
    images.NoSuchPartError: BadParameter,
}
"""NotAnImage of all others."""


class PostponedError(MemoryError):
    """Raised by a `claim`: this is not to be decoded here and now."""


def decode(
    data: bytes,
    max_pixels: int,
    selection: Selection = FIRST,
    claim: Callable[[int], None] = lambda size: None,
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]] = fresh,
) -> Decoded:
    """The image in `data` as it is displayed. `claim` is told before how many bytes decoding takes, and may refuse;
    where it can, the decoder writes into memory that `empty` gives, which may refuse too.

    Raises TooManyPixels, UnsupportedType, BadParameter for a channel or page that is not there, else NotAnImage;
    Unavailable where there is no memory for it, which is not its fault.
    """
    if not data:
        raise NotAnImage(EMPTY)
    try:
        return images.decode(data, max_pixels, selection, claim, empty)
    except ImageError as error:
        extra: dict[str, Any] = {} if error.limit is None else {"limit": error.limit}
        raise PROBLEMS.get(type(error), NotAnImage)(error.reason, **extra) from error
    except (Problem, PostponedError):  # raised by `claim` or `empty`
        raise
    except MemoryError as error:
        log.exception("no memory to decode an image of %d bytes", len(data))
        raise Unavailable("there is no memory for this image at present", headers=RETRY) from error
