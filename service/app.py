"""The application: routes, what is round them, and one running service, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from service.api import (
    access_log,
    auth,
    memory,
    models,
    oip,
    openapi,
    operation,
    pages,
    raw_routes,
    root_path,
    segment,
    stream,
    tracing,
    v2,
    websocket_limits,
)
from service.core.budget import Budget
from service.core.engine import Engine
from service.core.service import Service, assemble
from service.problems import Problem
from service.settings import Settings
from service.telemetry.traces import Traces

EXPOSED = (
    "Accept-Encoding",
    "Allow",
    oip.LENGTH_HEADER,
    "Retry-After",
    "Server-Timing",
    "WWW-Authenticate",
    "X-Image-Taken",
    "X-Joules-Per-Image",
    "X-Request-Id",
)
"""Headers of answers that a page of another origin may read, beside those that every page may (Fetch, 2.2.2)."""


def create_app(
    engines: Engine | Sequence[Engine],
    settings: Settings,
    clock: Callable[[], float] = time.monotonic,
    load: Callable[[], Sequence[Engine]] | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """An ASGI application that segments with `engines`; its lifespan starts the worker and drains the queue.

    The first engine's model is the default one. `load` gives the engines anew, for `app.state.service.models.reload()`.
    `traces` takes a span of every request.
    """
    engines = engines if isinstance(engines, Sequence) else [engines]
    return application(assemble(engines, settings, clock, load, traces), traces)


def application(service: Service, traces: Traces | None = None) -> FastAPI:
    """An ASGI application whose lifespan starts and stops `service`."""
    settings, handlers = service.settings, access_log.handlers(service.metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Budget]]:
        service.lifecycle.start()
        yield {websocket_limits.BUDGET: service.budget}
        await asyncio.to_thread(service.lifecycle.stop)

    app = FastAPI(
        title="MBU-Net segmentation",
        description="An image in, its mask out, the whole way on single bits.",
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # there are `telemetry` and `logs`
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        lifespan=lifespan,
        exception_handlers=handlers,
    )
    app.state.service = service
    app.add_middleware(raw_routes.RawRoutes, routes=segment.router.routes + v2.raw.routes, problem=handlers[Problem])
    app.add_middleware(auth.Auth, settings=settings, metrics=service.metrics)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=EXPOSED,
        )
    app.add_middleware(memory.Memory, budget=service.budget)
    app.add_middleware(access_log.AccessLog, metrics=service.metrics)
    if traces:
        app.add_middleware(tracing.Tracing, traces=traces)
    app.add_middleware(root_path.RootPath, root_path=settings.root_path)
    # one by one: of a router within another, traces and metrics would see a part of its path only
    parts = (segment.router, v2.raw, models.router, operation.router, pages.router, stream.router, v2.router)
    for router in parts:
        app.router.routes.extend(router.routes)
    openapi.list_problems(app)
    return app
