"""`python -m tests.bench.servers NAME MODEL PORT WORKERS`: one contender of the service benchmark, until terminated."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray
from PIL import Image

from engine import format
from engine.runtime import Engine, Job, Turns
from service import server
from service.codec.pixels import Mask, Pixels
from service.processes import supervisor
from service.settings import Settings


@dataclass
class Nothing:
    """An engine in no time: what is left is the service's own cost."""

    model: Any
    device: str = "none"
    bus: str = ""
    kernel: str = "none"

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.empty(shape, np.uint8)

    def start(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None, want_logits: bool = False
    ) -> Job:
        """The upper half is foreground."""
        return Job(_upper_halves(images, want_logits))


@cache
def _upper_half(height: int, width: int) -> Mask:
    """Made once: what is not done takes no memory either."""
    mask = np.zeros((height, width), np.uint8)
    mask[: height // 2] = 1
    return mask


def _upper_halves(images: Sequence[Pixels], want_logits: bool) -> Turns:
    masks = [_upper_half(*image.shape[:2]) for image in images]
    yield sum(mask.size for mask in masks)
    return masks, [np.zeros((*mask.shape, 1), np.int32) for mask in masks if want_logits]


def decode(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def encode(mask: Mask) -> bytes:
    out = io.BytesIO()
    Image.fromarray(mask * np.uint8(255)).save(out, "PNG")
    return out.getvalue()


def idle(settings: Settings) -> list[Nothing]:
    """What an engine process loads that does nothing."""
    return [Nothing(format.load(Path(settings.model)))]


def nothing(model: str, port: int, workers: int) -> None:
    """Our service round an engine that does nothing."""
    serve(model, port, workers, "tests.bench.servers:idle")


def mbunet(model: str, port: int, workers: int) -> None:
    """Our service as `mbunet serve` starts it."""
    serve(model, port, workers, server.LOAD)


def serve(model: str, port: int, workers: int, load: str) -> None:
    """The same, with engines of `load`."""
    settings = Settings(port=port, model=model, workers=str(workers))
    (supervisor if workers > 1 else server).serve(settings, load)


def fastapi(model: str, port: int, _: int) -> None:
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


def litserve(model: str, port: int, _: int) -> None:
    """LitServe."""
    from tests.bench import lit

    lit.serve(model, port)


if __name__ == "__main__":
    {"mbunet": mbunet, "nothing": nothing, "fastapi": fastapi, "litserve": litserve}[sys.argv[1]](
        sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    )
