"""The image and mask files of a data set, read by the one decoder (`engine.images`, which says what counts)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine import images
from engine.images import FIRST, ImageError, Pixels, Selection


class DataError(ValueError):
    """Data that cannot be trained on; the message names the file and what is wrong with it."""


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) as the image is displayed, from its header."""
    with _data_errors():
        return images.size(path)


def read_image(path: Path, selection: Selection = FIRST) -> Pixels:
    """[h, w, 3], RGB: uint8, or uint16 where the file has more than 8 bits."""
    with _data_errors():
        return images.decode(path, selection=selection).pixels


def read_mask(path: Path, classes: int = 0) -> NDArray[np.uint8]:
    """uint8 [h, w] of 0 and 1, or with `classes` above 0 of class indices below that (`engine.images.read_mask`)."""
    with _data_errors():
        return images.read_mask(path, classes)


@contextmanager
def _data_errors() -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise DataError(str(error)) from error
