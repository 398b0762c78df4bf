"""Images over a pixel budget run in windows that overlap by more than the network sees, so that no bit changes.

A window is cut out of the fitted image at multiples of the network's stride, so that pooling falls on the same squares,
and of its result only that part is kept which no border of its own can reach. The image's borders are borders of the
outermost windows too. All windows of an image have one padded shape: one set of buffers serves them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine import ops
from engine.layer import IMAGE
from engine.model import Model
from engine.preprocess import Empty

PIXELS = 4 * 2**20
"""Default budget, in pixels of an image with both sides rounded up to the stride: 2048 x 2048 runs in one piece."""

Pixels = NDArray[np.uint8]
Mask = NDArray[np.uint8]
Logits = NDArray[np.int32]
Run = Callable[[list[Pixels], list[int], bool], tuple[list[Mask], list[Logits]]]
"""As `Backend.run`."""


@dataclass(frozen=True)
class Span:
    """One window along one axis, in pixels: it reads [begin, end), and [first, last) of its result is kept."""

    begin: int
    end: int
    first: int
    last: int

    @property
    def read(self) -> slice:
        """Of the image."""
        return slice(self.begin, self.end)

    @property
    def kept(self) -> slice:
        """Of the image's result."""
        return slice(self.first, self.last)

    @property
    def own(self) -> slice:
        """Of the window's result."""
        return slice(self.first - self.begin, self.last - self.begin)


def radius(model: Model) -> int:
    """How far beyond a rectangle with its corners on the stride's grid the pixels lie that its result depends on.

    Followed back from the head in steps of each layer's own resolution, and the same in all four directions, by each
    operation's reach. What several layers read has the largest of their distances.
    """
    reach: dict[str, int] = {}
    for layer in reversed(model.layers):
        seen = ops.operation(layer).reach(layer, reach.get(layer.name, 0))
        for name in layer.reads:
            reach[name] = max(reach.get(name, 0), seen)
    return reach[IMAGE]


class Tiling:
    """Cuts images over `budget` pixels for one model. Windows may exceed a budget that is too small for any."""

    def __init__(self, model: Model, budget: int = PIXELS) -> None:
        self.stride = model.stride
        self.halo = self._padded(radius(model) + 1)
        self.budget = budget

    def cuts(self, height: int, width: int) -> bool:
        """Whether an image of this size runs in windows."""
        return self._padded(height) * self._padded(width) > self.budget

    def windows(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """Rows and columns of the windows of an image: as square as it allows, which wastes least on overlap."""
        height, width = self._padded(height), self._padded(width)
        short = min(height, width, math.isqrt(self.budget))
        long = self.budget // short
        most = (short, long) if height <= width else (long, short)
        return self._spans(height, most[0]), self._spans(width, most[1])

    def turns(
        self, run: Run, empty: Empty, images: list[Pixels], thresholds: list[int], want_logits: bool
    ) -> Generator[int, None, tuple[list[Mask], list[Logits]]]:
        """What `run` gives for fitted images of one padded shape: at once, or image by image in windows.

        Before each call of `run` it yields the pixels that this will compute. Windows are cut into memory of `empty`.
        """
        if not self.cuts(*images[0].shape[:2]):
            yield len(images) * self._computed(images[0])
            return run(images, thresholds, want_logits)
        masks, logits = [], []
        for image, threshold in zip(images, thresholds, strict=True):
            mask, of_image = yield from self._windows(run, empty, image, threshold, want_logits)
            masks.append(mask)
            logits += of_image
        return masks, logits

    def _windows(
        self, run: Run, empty: Empty, image: Pixels, threshold: int, want_logits: bool
    ) -> Generator[int, None, tuple[Mask, list[Logits]]]:
        """Mask and, if wanted, logits of one image, window by window."""
        height, width = image.shape[:2]
        mask = np.empty((height, width), np.uint8)
        logits: list[Logits] = []
        rows, columns = self.windows(height, width)
        for row in rows:
            for column in columns:
                window = _gapless(image[row.read, column.read], empty)
                yield self._computed(window)
                (own,), own_logits = run([window], [threshold], want_logits)
                mask[row.kept, column.kept] = own[row.own, column.own]
                if want_logits and not logits:
                    logits = [np.empty((height, width, own_logits[0].shape[2]), np.int32)]
                for whole, part in zip(logits, own_logits, strict=False):  # some give logits unasked
                    whole[row.kept, column.kept] = part[row.own, column.own]
        return mask, logits

    def _computed(self, image: Pixels) -> int:
        return self._padded(image.shape[0]) * self._padded(image.shape[1])

    def _spans(self, length: int, most: int) -> list[Span]:
        """Equal windows of at most `most` pixels (but two halos and a stride at least) along `length` pixels."""
        if length <= max(most, 2 * self.halo + self.stride):
            return [Span(0, length, 0, length)]
        inside = max(self.stride, (most - 2 * self.halo) // self.stride * self.stride)
        count = math.ceil((length - 2 * self.halo) / inside)
        inside = self._padded(math.ceil((length - 2 * self.halo) / count))  # as even as the grid allows
        begins = [min(i * inside, length - inside - 2 * self.halo) for i in range(count)]
        cuts = [0, *(begin + self.halo for begin in begins[1:]), length]
        ends = [begin + inside + 2 * self.halo for begin in begins]
        return [Span(*span) for span in zip(begins, ends, cuts[:-1], cuts[1:], strict=True)]

    def _padded(self, side: int) -> int:
        return -(-side // self.stride) * self.stride


def _gapless(window: Pixels, empty: Empty) -> Pixels:
    """`window` itself where its rows follow each other without gaps, else a copy in memory of `empty`."""
    if window.flags.c_contiguous:
        return window
    copy = empty(window.shape)
    copy[...] = window
    return copy
