"""What images and masks are in memory. `Pixels` are those of a file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.images import Pixels

__all__ = ["Fitted", "Logits", "Mask", "Pixels"]

Fitted = NDArray[np.uint8]  # [h, w, 3]: an image as the network sees it
Mask = NDArray[np.uint8]  # [h, w]: 0/1 for one class, class indices for several
Logits = NDArray[np.int32]  # [h, w, classes], to be multiplied by the head's scale
