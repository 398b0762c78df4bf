"""WS /stream: frames in, masks out. A client that is ahead loses frames, never time: only the newest one waits.

Each answer is a text message, JSON with `frame` (counted from 0 as they came), `dropped` (so far), `status`, `ms` by
stage, `taken` where the frame has several channels or pages and `joules_per_image` where known, and after it, when the
status is 200, a binary message: the mask in the format that was asked for. With another status the text carries the
problem document as `problem`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from service.api import refusals
from service.api.access_log import INTERNAL_ERROR
from service.api.memory import held_by
from service.api.query import segment_params
from service.api.running import running_service
from service.api.taken import taken_member
from service.api.timing import deadline_passed, milliseconds
from service.core.budget import Holding
from service.core.params import SegmentParams
from service.core.readiness import RETRY
from service.core.service import Service
from service.problems import Problem, Unavailable
from service.telemetry.metrics import Metrics

UNSUPPORTED_DATA, ABNORMAL_CLOSURE = 1003, 1006  # RFC 6455, 7.4.1
PROTOCOL = "mbunet"  # the subprotocol that is accepted when a client offers it

router = APIRouter()

T = TypeVar("T")


class LatestFrame:
    """Room for one frame. Another one put in before the first is taken replaces it: `drop` is called for each such."""

    def __init__(self, interval_s: float, clock: Callable[[], float], drop: Callable[[], None] = lambda: None) -> None:
        self.dropped = 0
        self.arrived = asyncio.Event()
        self._interval_s = interval_s
        self._clock = clock
        self._drop = drop
        self._next_at = 0.0
        self._came = -1
        self._waiting: tuple[int, bytes] | None = None

    def put(self, frame: bytes) -> None:
        """Take in one frame, and drop the one that waits."""
        self._came += 1
        if self._waiting:
            self.dropped += 1
            self._drop()
        self._waiting = (self._came, frame)
        self.arrived.set()

    def pause_s(self) -> float:
        """Seconds until the next frame may be taken: two are at least `interval_s` apart."""
        return max(0.0, self._next_at - self._clock())

    def take(self) -> tuple[int, bytes]:
        """The number and the bytes of the newest frame, which must have arrived."""
        assert self._waiting
        taken, self._waiting = self._waiting, None
        self.arrived.clear()
        self._next_at = self._clock() + self._interval_s
        return taken


@router.websocket("/stream")
async def stream(socket: WebSocket) -> None:
    """Segment frames until the client leaves. The query is that of POST /segment."""
    service = await running_service(socket)
    try:
        _admit(socket, service)
    except Problem as problem:
        refusals.tell(problem, socket.scope["state"], service.metrics)
        await socket.send_denial_response(problem.response(socket.scope))
        return
    try:
        await _serve(socket, service)
    finally:
        service.streams.add(-1)


async def _serve(socket: WebSocket, service: Service) -> None:
    offered = [text.strip() for text in socket.headers.get("sec-websocket-protocol", "").split(",")]
    await socket.accept(PROTOCOL if PROTOCOL in offered else None)
    drop = service.metrics.frames.labels("dropped").inc
    frames = LatestFrame(1 / service.settings.stream_fps, service.clock, drop)
    tasks = {
        asyncio.create_task(_receive(socket, frames)),
        asyncio.create_task(_answer(socket, frames, service)),
    }
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.wait(tasks)
    socket.state.log["frames_dropped"] = frames.dropped
    for task in done:
        error = task.exception()
        if error and not isinstance(error, WebSocketDisconnect):
            with contextlib.suppress(WebSocketDisconnect):
                await _while_there(socket.close(INTERNAL_ERROR, "an internal error"))
            raise error


def _admit(socket: WebSocket, service: Service) -> None:
    """Let another stream begin whose query is valid; raises problems."""
    _params(socket, service)
    service.lifecycle.require_ready()
    if not service.streams.add(1, service.settings.streams):
        raise Unavailable(f"{service.settings.streams} streams are open", headers=RETRY)


def _params(socket: WebSocket, service: Service) -> SegmentParams:
    """What the query asks for, of the engines that serve now: a stream outlives models and the engine's process."""
    return segment_params(socket.query_params, "", service)


async def _receive(socket: WebSocket, frames: LatestFrame) -> None:
    """Take in frames until the client leaves, or sends a text."""
    while (message := await _while_there(socket.receive()))["type"] == "websocket.receive":
        frame = message.get("bytes")
        if frame is None:
            text = "a frame is a binary message: the bytes of an image file"
            await _while_there(socket.close(UNSUPPORTED_DATA, text))
            return
        frames.put(frame)


async def _while_there(talk: Awaitable[T]) -> T:
    """What comes of `talk` with the client; raises WebSocketDisconnect where it has left, however that is told."""
    try:
        return await talk
    except (RuntimeError, OSError) as error:
        raise WebSocketDisconnect(ABNORMAL_CLOSURE) from error


async def _answer(socket: WebSocket, frames: LatestFrame, service: Service) -> None:
    memory = held_by(socket)  # what is sent is held until the next answer
    while True:
        await frames.arrived.wait()
        await asyncio.sleep(frames.pause_s())
        number, frame = frames.take()
        head: dict[str, Any] = {"frame": number, "dropped": frames.dropped}
        body = b""
        try:
            memory.hold(len(frame))
            told, body = await _segment(frame, _params(socket, service), service, memory)
            head |= told
        except Problem as problem:
            head |= _refused(problem, socket, service.metrics)
        await _while_there(socket.send_json(head))
        if body:
            await _while_there(socket.send_bytes(body))


async def _segment(
    frame: bytes, params: SegmentParams, service: Service, memory: Holding
) -> tuple[dict[str, Any], bytes]:
    """What is told of a frame, and its mask; raises problems. Between two frames nothing holds their engine."""
    try:
        segmented = await asyncio.wait_for(service.pipeline.segment(frame, params, memory), params.timeout_s)
    except asyncio.TimeoutError:
        raise deadline_passed(params.timeout_s) from None
    memory.grow(segmented.size)  # for a moment, twice
    told = {"status": 200, "ms": milliseconds(segmented.seconds)} | taken_member(segmented.taken)
    joules = service.image_joules()
    if joules is not None:
        told["joules_per_image"] = joules
    service.metrics.frames.labels("answered").inc()
    return told, b"".join(segmented.pieces)


def _refused(problem: Problem, socket: WebSocket, metrics: Metrics) -> dict[str, Any]:
    state = socket.scope["state"]
    metrics.frames.labels("refused").inc()
    refusals.tell(problem, state, metrics)
    return {"status": problem.status, "problem": problem.document(state)}
