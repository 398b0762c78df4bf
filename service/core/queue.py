"""The queue's face: all that an image's way knows of what runs it, here (`core.batcher`) or in another process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from service.codec.pixels import Fitted, Logits, Mask
from service.core.params import SegmentParams


class InferenceResult(NamedTuple):
    """One image's mask, its logits where wanted, and the seconds it waited and its whole batch was worked on."""

    mask: Mask
    logits: Logits | None
    queue_s: float
    engine_s: float


class Recipient(Protocol):
    """Who waits for a result and may leave: what the batcher knows of a future, or of one in another process."""

    def cancelled(self) -> bool:
        """Whether he has left."""

    def set_running_or_notify_cancel(self) -> bool:
        """Whether he has not, and now can leave no more: the last word follows."""

    def set_result(self, result: InferenceResult, /) -> None:
        """Give it to him."""

    def set_exception(self, exception: BaseException | None, /) -> None:
        """Tell him why there is none."""


class Queue(Protocol):
    """Images in, futures out, from any thread. Cancelling a future takes its image out.

    What is refused raises QueueFull or Unavailable, at once or as the future's exception: all of `images` then do.
    """

    def place(self, image: Fitted, claim: Callable[[int], None]) -> Fitted:
        """The image where the engine reads it, copied if it must be: `claim` is told the bytes. Raises MemoryFull."""

    @property
    def busy(self) -> bool:
        """Whether the thread that gives answers has more to do at once."""

    def submit(self, image: Fitted, params: SegmentParams, deadline: float = math.inf) -> Future[InferenceResult]:
        """Queue one image, for whose turn `deadline`, a time of the monotonic clock, is the last moment."""

    def submit_all(
        self, images: Sequence[Fitted], params: SegmentParams, deadline: float = math.inf
    ) -> list[Future[InferenceResult]]:
        """Queue all of `images`, or none."""
