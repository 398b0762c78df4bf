"""The application: routes, envelope and one running service, put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from service import envelope, problems
from service.batcher import Engine
from service.routes import router
from service.service import Service
from service.settings import Settings


def create_app(engine: Engine, settings: Settings, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """An ASGI application that segments with `engine`; its lifespan starts the worker and drains the queue."""
    service = Service(engine, settings, clock)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="MBU-Net segmentation",
        description="An image in, its mask out, the whole way on single bits.",
        docs_url=None,  # FastAPI's own pages load their scripts from another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=envelope.handlers(service.metrics),
    )
    app.state.service = service
    app.add_middleware(envelope.Envelope, metrics=service.metrics)
    app.include_router(router)
    _explain_problems(app)
    return app


def _explain_problems(app: FastAPI) -> None:
    """Put the list of problems into /openapi.json, from where /docs takes it."""
    document: dict[str, Any] = app.openapi()
    document["x-problems"] = [
        {"reason": problem.reason(), "status": problem.status, "title": problem.title} for problem in problems.tree()
    ]
