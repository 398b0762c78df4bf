"""Arrays in bands of rows: what is done band by band takes little memory beside its result, and lets others run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

BAND = 2**18  # samples


def row_bands(array: NDArray[Any]) -> Iterator[slice]:
    """Rows of [h, w, ...], some at a time."""
    rows = max(1, BAND * len(array) // array.size) if array.size else 1
    return (slice(first, first + rows) for first in range(0, len(array), rows))
