"""Time and joules of an answer: how long it may take, and how its headers tell what it took."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from service.core.service import Service
from service.problems import DeadlinePassed

T = TypeVar("T")


def milliseconds(seconds: Mapping[str, float]) -> dict[str, float]:
    """The same stages in milliseconds."""
    return {stage: round(1000 * value, 3) for stage, value in seconds.items()}


def server_timing(ms: Mapping[str, float]) -> str:
    """Milliseconds by stage as the header Server-Timing has them (W3C Server Timing)."""
    return ", ".join(f"{stage};dur={value:.2f}" for stage, value in ms.items())


def joules_header(service: Service) -> dict[str, str]:
    """What an image costs at present, where that can be read."""
    joules = service.image_joules()
    return {} if joules is None else {"X-Joules-Per-Image": f"{joules:.4g}"}


def deadline_passed(timeout_s: float) -> DeadlinePassed:
    """What a client is told whose images were not done in time."""
    return DeadlinePassed(f"there was no mask after {1000 * timeout_s:.12g} ms")


async def in_time(request: Request, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """The result of `work`, which is cancelled when `timeout_s` have passed or the client has left."""
    task = asyncio.create_task(work)
    leaving = asyncio.ensure_future(request.receive())  # the body is read: all that can still come is a disconnect
    try:
        done, _ = await asyncio.wait({task, leaving}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        if leaving in done:
            raise ClientDisconnect
        raise deadline_passed(timeout_s)
    finally:
        task.cancel()
        leaving.cancel()
