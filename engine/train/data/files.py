"""The image and mask files of a data set: the only place here that decodes any."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")


class DataError(ValueError):
    """Data that cannot be trained on; the message names the file and what is wrong with it."""


def is_image(file: Path) -> bool:
    """Whether `file` is named like an image."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def read_size(path: Path) -> tuple[int, int]:
    """(width, height) from the image's header."""
    with _opened(path) as file:
        width, height = file.size
    return width, height


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 [h, w, 3], RGB."""
    with _opened(path) as file:
        return np.asarray(file.convert("RGB"))


def read_mask(path: Path, classes: int = 0) -> NDArray[np.uint8]:
    """uint8 [h, w] of 0 and 1, or with `classes` above 0 of class indices below that; raises DataError for others.

    Indices are the mask's own values, those of its palette where it has one.
    """
    with _opened(path) as file:
        mask = np.asarray(file if classes and file.mode == "P" else file.convert("L"))
    values = np.unique(mask)
    if classes and values[-1] >= classes:
        raise DataError(f"{path}: holds class {values[-1]}, but the {classes} classes are 0 to {classes - 1}")
    if not classes and np.count_nonzero(values) > 1:
        raise DataError(f"{path}: not a binary mask: it holds the values {values[:8].tolist()}")
    return mask.astype(np.uint8) if classes else (mask > 0).astype(np.uint8)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
