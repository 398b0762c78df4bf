"""What images and masks are in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [h, w, 3]
Mask = NDArray[np.uint8]  # [h, w]: 0/1 for one class, class indices for several
Logits = NDArray[np.int32]  # [h, w, classes], to be multiplied by the head's scale


def fitted_pixels(height: int, width: int) -> int:
    """Pixels that the engine computes for an image: both sides rounded up to multiples of 16."""
    return (height + 15) // 16 * ((width + 15) // 16) * 256
