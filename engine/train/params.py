"""What training hands over: a layer's integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class QuantizedParams:
    """One layer as every backend computes it.

    `weights` are int16 [out, kh, kw, in], negated where gamma < 0; `offsets` int32 [out] hold theta, or the bias of
    the head, whose logits are `scale` times its integers.
    """

    weights: NDArray[np.int16]
    offsets: NDArray[np.int32]
    scale: float = 1.0
