"""The way of an image: decode → queue → engine → encode.

    stage   takes → gives                             in the thread
    decode  the bytes of a file → pixels, and as the
            network sees them                         codec
    queue   pixels → a batch of one padded shape      codec, which then is free
    engine  a batch → a mask of each, logits if asked engine
    encode  a mask, at the size of the image → the
            bytes of the response                     that of answers where it is brief and nothing waits, else codec

Neither decoding nor encoding ever runs in the event loop, nor what is small behind what is large (`core.threads`).
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from engine import preprocess
from engine.images import WHOLE, Taken, fresh
from engine.model import Model
from service.codec import decode
from service.codec.encoders import Result
from service.codec.pixels import Fitted, Logits, Mask, Pixels
from service.core import cost
from service.core.budget import Budget, Holding
from service.core.params import SegmentParams
from service.core.queue import InferenceResult, Queue
from service.core.threads import LANES, SMALL_BYTES, CodecThreads
from service.problems import DeadlinePassed, Problem, QueueFull, Unavailable, let_go
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces

T = TypeVar("T")

COPIES = 3  # of a file's bytes that its decoder makes
LABOR = 16  # bytes of pixels that are made in the time in which a byte of the worst files is read


@dataclass(frozen=True)
class Decoded:
    """Pixels, the same as the network sees them, the seconds that it all took, and what of the image they are."""

    image: Pixels
    fitted: Fitted
    seconds: float
    taken: Taken = WHOLE


@dataclass(frozen=True)
class SegmentResponse:
    """The encoded mask in pieces, the seconds of every stage, and what of the image was segmented."""

    pieces: list[bytes]
    seconds: dict[str, float]
    taken: Taken = WHOLE

    @property
    def size(self) -> int:
        """Bytes of the encoded mask."""
        return sum(map(len, self.pieces))


class Pipeline:
    """The four stages, for one image, for many, and for pixels that need no decoding.

    The memory that an image takes on its way is counted in `budget` before it is allocated. `memory` is what its
    request holds: the file, and in the end the answer.
    """

    def __init__(
        self,
        queue: Queue,
        threads: CodecThreads,
        budget: Budget,
        settings: Settings,
        metrics: Metrics,
        traces: Traces | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._queue = queue
        self._threads = threads
        self._budget = budget
        self._settings = settings
        self._metrics = metrics
        self._traces = traces
        self._clock = clock

    async def segment(self, data: bytes, params: SegmentParams, memory: Holding) -> SegmentResponse:
        """One image. Raises problems; cancelling it takes the image out of the queue."""
        started = self._clock()
        deadline = started + params.timeout_s

        def decode_and_queue(most: float) -> tuple[Decoded, Future[InferenceResult]]:
            decoded = self._decode(data, params, started, held, most)
            return decoded, self._queue.submit(decoded.fitted, params, deadline)

        with self._budget.holding() as held:
            decoded, inferring = await self._in_lane(len(data), decode_and_queue, _leave_queue)
            return await self._encode(decoded, inferring, params, deadline, held, memory)

    async def segment_all(
        self, bodies: Sequence[bytes], params: SegmentParams, memory: Holding
    ) -> list[SegmentResponse | Problem]:
        """Many images: all are queued, or none and QueueFull; then each has its response or a problem of its own."""
        deadline = self._clock() + params.timeout_s
        with ExitStack() as stack:
            held = [stack.enter_context(self._budget.holding()) for _ in bodies]
            decoded = [await self._decode_or_problem(*one, params) for one in zip(bodies, held, strict=True)]
            images = [entry.fitted for entry in decoded if isinstance(entry, Decoded)]
            inferring = iter(self._queue.submit_all(images, params, deadline))
            encoding = [
                entry
                if isinstance(entry, Problem)
                else self._encode(entry, next(inferring), params, deadline, its, memory)
                for entry, its in zip(decoded, held, strict=True)
            ]
            return await asyncio.gather(*map(_or_problem, encoding))

    def fit(self, image: Pixels, params: SegmentParams, memory: Holding) -> Fitted:
        """It as the network sees it, where the engine reads it. `memory` holds what that takes (`cost.run_bytes`)."""
        fitted = preprocess.preprocess(image, params.engine.model.preprocessing, params.engine.empty)
        return self._queue.place(fitted, memory.grow)

    async def infer(self, images: Sequence[Fitted], params: SegmentParams, deadline: float) -> list[InferenceResult]:
        """Queue and engine alone, for fitted pixels: all of `images` or none.

        Who writes their answer brings them to their size by `restored`, and tells `answered`.
        """
        return await asyncio.gather(*map(asyncio.wrap_future, self._queue.submit_all(images, params, deadline)))

    def answered(self, results: Sequence[InferenceResult], decode_s: float, encode_s: float) -> None:
        """The images of `infer` are in their answer: what it took to fit all of them, and to write it, in seconds."""
        for result in results:
            decode, encode = decode_s / len(results), encode_s / len(results)
            self._observe({"decode": decode, "queue": result.queue_s, "engine": result.engine_s, "encode": encode})

    async def _in_lane(
        self, size: int, work: Callable[[float], T], left: Callable[[Future[T]], None] = lambda working: None
    ) -> T:
        """The result of `work(most)` on a file of `size` bytes. `left` gets what nobody waits for any more.

        In the first lane that it may be for, unless it is found to take more than `most` bytes and raises
        PostponedError; then again, in the next.
        """
        for most in LANES[bisect.bisect_left(LANES, LABOR * size) :]:
            working = self._threads.submit(partial(work, most), most)
            try:
                return await asyncio.wrap_future(working)
            except asyncio.CancelledError:
                working.add_done_callback(left)
                raise
            except decode.PostponedError:
                continue
        raise AssertionError

    def _decode(self, data: bytes, params: SegmentParams, started: float, held: Holding, most: float) -> Decoded:
        """Pixels, for which `held` holds what they take until their answer is there. Raises PostponedError."""

        def claim(size: int) -> None:
            if LABOR * len(data) + size > most:
                raise decode.PostponedError
            held.require(COPIES * len(data) + size)

        with held:  # also when nobody waits any more
            limit, model = self._settings.max_pixels, params.engine.model
            kept = preprocess.keeps(model.preprocessing)
            decoded = decode.decode(data, limit, params.selection, claim, params.engine.empty if kept else fresh)
            cost.require_size(model, decoded.pixels.shape, limit)
            if cost.fitted_bytes(model, decoded.pixels.shape) > most:
                raise decode.PostponedError
            self._require_time(started + params.timeout_s, "the image was decoded")
            held.hold(decoded.pixels.nbytes + cost.run_bytes(params, decoded.pixels.shape))
            fitted = self.fit(decoded.pixels, params, held)
            image = fitted if kept else decoded.pixels
            return Decoded(image, fitted, self._clock() - started, decoded.taken)

    async def _decode_or_problem(self, data: bytes, held: Holding, params: SegmentParams) -> Decoded | Problem:
        try:
            return await self._in_lane(len(data), partial(self._decode, data, params, self._clock(), held))
        except Problem as problem:
            let_go(problem)
            return problem

    async def _encode(
        self,
        decoded: Decoded,
        inferring: Future[InferenceResult],
        params: SegmentParams,
        deadline: float,
        held: Holding,
        memory: Holding,
    ) -> SegmentResponse:
        """The response to an image that is in the queue; `memory` then holds it."""
        encoder = params.encoder
        seconds = {"decode": decoded.seconds}

        def encode(inferred: Future[InferenceResult]) -> list[bytes]:
            model, result, started = params.engine.model, inferred.result(), self._clock()
            pieces = []
            with held:
                self._require_time(deadline, "the answer was written")
                mask, logits = restored(result, decoded.image.shape, model)
                drawn = Result(model, decoded.image, mask, logits, params.objects)
                for piece in encoder.encode(drawn):
                    self._require_time(deadline, "the answer was written")
                    if piece:
                        pieces.append(piece)
            seconds.update(queue=result.queue_s, engine=result.engine_s, encode=self._clock() - started)
            return pieces

        size = cost.run_bytes(params, decoded.image.shape)
        brief = encoder.brief and size <= SMALL_BYTES and decoded.fitted.shape == decoded.image.shape
        encoding = self._threads.after(inferring, encode, size, in_place=lambda: brief and not self._queue.busy)
        response = SegmentResponse(await asyncio.wrap_future(encoding), seconds, decoded.taken)
        held.hold(0)
        memory.grow(response.size)
        self._observe(seconds)
        return response

    def _require_time(self, deadline: float, doing: str) -> None:
        if self._clock() > deadline:
            raise DeadlinePassed(f"the deadline passed while {doing}")

    def _observe(self, seconds: dict[str, float]) -> None:
        """One image is done, after so many seconds by stage."""
        self._metrics.observe(seconds)
        if self._traces:
            self._traces.stages(seconds)


def restored(result: InferenceResult, shape: Sequence[int], model: Model) -> tuple[Mask, Logits | None]:
    """Mask and logits of a fitted image at the size of the image, `shape` [h, w, ...], that it was made of."""
    how, logits = model.preprocessing, result.logits
    mask = preprocess.postprocess(result.mask, shape, how)
    return mask, None if logits is None else preprocess.postprocess(logits, shape, how)


async def _or_problem(encoding: Problem | Coroutine[Any, Any, SegmentResponse]) -> SegmentResponse | Problem:
    if isinstance(encoding, Problem):
        return encoding
    try:
        return await encoding
    except (QueueFull, Unavailable):  # the queue's answer to all of them
        raise
    except Problem as problem:
        let_go(problem)
        return problem


def _leave_queue(queueing: Future[tuple[Decoded, Future[InferenceResult]]]) -> None:
    """The client has left while its image was decoded: nobody waits for what is queued."""
    if not queueing.cancelled() and queueing.exception() is None:
        queueing.result()[1].cancel()
