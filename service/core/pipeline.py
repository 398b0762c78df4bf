"""The way of an image: decode → queue → engine → encode.

    stage   takes → gives                             in the thread
    decode  the bytes of a file → pixels              codec
    queue   pixels → a batch of one padded shape      codec, which then is free
    engine  a batch → a mask of each, logits if asked engine
    encode  a mask → the bytes of the response        engine where that is brief and nothing waits, else codec

Neither decoding nor encoding ever runs in the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from engine.images import WHOLE, Taken
from service.codec import decode
from service.codec.encoders import Result
from service.codec.pixels import Pixels
from service.core import cost
from service.core.batcher import Batcher, InferenceResult
from service.core.params import SegmentParams
from service.core.threads import CodecThreads
from service.problems import Problem
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.telemetry.traces import Traces


@dataclass(frozen=True)
class Decoded:
    """Pixels, the seconds that decoding them took, and what of the image they are."""

    image: Pixels
    seconds: float
    taken: Taken = WHOLE


@dataclass(frozen=True)
class SegmentResponse:
    """The encoded mask, the seconds of every stage, and what of the image was segmented."""

    body: bytes
    seconds: dict[str, float]
    taken: Taken = WHOLE


class Pipeline:
    """The four stages, for one image, for many, and for pixels that need no decoding."""

    def __init__(
        self,
        batcher: Batcher,
        threads: CodecThreads,
        settings: Settings,
        metrics: Metrics,
        traces: Traces | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher = batcher
        self._threads = threads
        self._settings = settings
        self._metrics = metrics
        self._traces = traces
        self._clock = clock

    async def segment(self, data: bytes, params: SegmentParams) -> SegmentResponse:
        """One image. Raises problems; cancelling it takes the image out of the queue."""
        started = self._clock()

        def decode_and_queue() -> tuple[Decoded, Future[InferenceResult]]:
            decoded = self._decode(data, params, started)
            return decoded, self._batcher.submit(decoded.image, params, started + params.timeout_s)

        queueing = self._threads.submit(decode_and_queue)
        try:
            decoded, inferring = await asyncio.wrap_future(queueing)
        except asyncio.CancelledError:
            queueing.add_done_callback(_leave_queue)
            raise
        return await self._encode(decoded, inferring, params)

    async def segment_all(self, bodies: Sequence[bytes], params: SegmentParams) -> list[SegmentResponse | Problem]:
        """Many images: all are queued, or none and QueueFull; then each has its response or a problem of its own."""
        deadline = self._clock() + params.timeout_s
        decoded = await self._decode_all(bodies, params)
        images = [entry.image for entry in decoded if isinstance(entry, Decoded)]
        inferring = iter(self._batcher.submit_all(images, params, deadline))
        return await asyncio.gather(*(self._encode_or_problem(entry, inferring, params) for entry in decoded))

    async def infer(self, images: Sequence[Pixels], params: SegmentParams) -> list[InferenceResult]:
        """Queue and engine alone, for pixels: all of `images` or none."""
        queued = self._batcher.submit_all(images, params, self._clock() + params.timeout_s)
        results = await asyncio.gather(*map(asyncio.wrap_future, queued))
        for result in results:
            self._observe({"queue": result.queue_s, "engine": result.engine_s})
        return results

    def _decode(self, data: bytes, params: SegmentParams, started: float) -> Decoded:
        decoded = decode.decode(data, self._settings.max_pixels, params.selection)
        cost.require_size(params.engine.model, decoded.pixels.shape, self._settings.max_pixels)
        return Decoded(decoded.pixels, self._clock() - started, decoded.taken)

    async def _encode(
        self, decoded: Decoded, inferring: Future[InferenceResult], params: SegmentParams
    ) -> SegmentResponse:
        encoder, batcher = params.encoder, self._batcher
        seconds = {"decode": decoded.seconds}

        def encode() -> bytes:
            result, started = inferring.result(), self._clock()
            model = params.engine.model
            body = encoder.encode(Result(model, decoded.image, result.mask, result.logits, params.objects))
            seconds.update(queue=result.queue_s, engine=result.engine_s, encode=self._clock() - started)
            return body

        encoding = self._threads.after(inferring, encode, in_place=lambda: encoder.brief and not batcher.waiting)
        body = await asyncio.wrap_future(encoding)
        self._observe(seconds)
        return SegmentResponse(body, seconds, decoded.taken)

    async def _decode_all(self, bodies: Sequence[bytes], params: SegmentParams) -> list[Decoded | Problem]:
        """One after the other."""
        decoded: list[Decoded | Problem] = []
        for data in bodies:
            try:
                entry = await self._threads.run(partial(self._decode, data, params, self._clock()))
            except Problem as problem:
                decoded.append(problem)
                continue
            decoded.append(entry)
        return decoded

    async def _encode_or_problem(
        self, decoded: Decoded | Problem, inferring: Iterator[Future[InferenceResult]], params: SegmentParams
    ) -> SegmentResponse | Problem:
        if isinstance(decoded, Problem):
            return decoded
        try:
            return await self._encode(decoded, next(inferring), params)
        except Problem as problem:
            return problem

    def _observe(self, seconds: dict[str, float]) -> None:
        """One image is done, after so many seconds by stage."""
        self._metrics.observe(seconds)
        if self._traces:
            self._traces.stages(seconds)


def _leave_queue(queueing: Future[tuple[Decoded, Future[InferenceResult]]]) -> None:
    """The client has left while its image was decoded: nobody waits for what is queued."""
    if not queueing.cancelled() and queueing.exception() is None:
        queueing.result()[1].cancel()
