"""Numbers of bytes, as headers have them."""

from __future__ import annotations

MOST_DIGITS = 20  # of 2^64; int() refuses thousands, even zeros


def read_length(text: str) -> int | None:
    """A number of bytes from 0; None for anything else, and for what no machine holds."""
    digits = text.lstrip("0")
    return int(digits or 0) if text.isdecimal() and len(digits) <= MOST_DIGITS else None
