"""`python -m tests.bench.servers NAME MODEL PORT`: one contender of the service benchmark, until it is terminated."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from PIL import Image

from engine.runtime import Engine, Job, Turns
from service import server
from service.app import create_app
from service.codec.pixels import Mask, Pixels
from service.settings import Settings


@dataclass
class Nothing:
    """An engine in no time: what is left is the service's own cost."""

    model: Any
    device: str = "none"
    bus: str = ""
    kernel: str = "none"

    def start(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None, want_logits: bool = False
    ) -> Job:
        """The upper half is foreground."""
        return Job(_upper_halves(images, want_logits), 0.0)


def _upper_halves(images: Sequence[Pixels], want_logits: bool) -> Turns:
    masks = [np.zeros(image.shape[:2], np.uint8) for image in images]
    for mask in masks:
        mask[: len(mask) // 2] = 1
    yield sum(mask.size for mask in masks)
    return masks, [np.zeros((*mask.shape, 1), np.int32) for mask in masks if want_logits]


def decode(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(mask: Mask) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(out, "PNG")
    return out.getvalue()


def nothing(model: str, port: int) -> None:
    """Our service round an engine that does nothing."""
    with Engine.load(model) as engine:
        ours(create_app(Nothing(engine.model), Settings(port=port)), Settings(port=port))


def mbunet(model: str, port: int) -> None:
    """Our service as `mbunet serve` starts it."""
    server.serve(Settings(port=port, model=model))


def ours(app: FastAPI, settings: Settings) -> None:
    with server.listen(settings) as listener:
        uvicorn.Server(uvicorn.Config(app, **server.options(settings))).run([listener])


def fastapi(model: str, port: int) -> None:
    """What one writes first: an endpoint in a thread pool."""
    app, engine = FastAPI(), Engine.load(model)

    def work(data: bytes) -> bytes:
        (mask,), _ = engine.run([decode(data)])
        return encode(mask)

    @app.post("/segment")
    async def segment(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        return Response(await run_in_threadpool(work, await request.body()), media_type="image/png")

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


def litserve(model: str, port: int) -> None:
    """LitServe."""
    from tests.bench import lit

    lit.serve(model, port)


if __name__ == "__main__":
    {"mbunet": mbunet, "nothing": nothing, "fastapi": fastapi, "litserve": litserve}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3])
    )
