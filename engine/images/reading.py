"""What every reader of a format gives."""

from __future__ import annotations

from dataclasses import dataclass

from engine.images import orientation
from engine.images.samples import Pixels
from engine.images.selection import Taken


@dataclass(frozen=True)
class Reading:
    """Pixels as they lie in the file, and what of it says how they are to be shown."""

    pixels: Pixels
    taken: Taken
    orientation: int = orientation.UPRIGHT
    profile: bytes = b""
