"""An engine that is easy to predict, to hold up and to break; a server in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from numpy.typing import NDArray

from engine import preprocess
from engine.layer import Layer
from engine.model import ClassInfo, Model, Preprocessing
from service.codec.pixels import Logits, Mask, Pixels
from service.server import listen, options
from service.settings import Settings

PATIENCE = 20  # seconds until a wait for another thread counts as failed


def fake_model(classes: int = 1, name: str = "fake") -> Model:
    reads = ["image", *(f"pool{i}" for i in range(4))]  # as coarse as the networks that are shipped
    pools = tuple(Layer(name, "pool", (read,), 3) for read, name in pairwise(reads))
    head = Layer("head", "head", (reads[-1],), classes, "int16", 1, doublings=len(pools), scale=1e-3)
    entries = tuple(ClassInfo(f"class {i}", (255, 40 * i, 0)) for i in range(classes))
    return Model(name, "mbu-net", (*pools, head), entries, Preprocessing(), 0.5, {"data": "none"}, {})


@dataclass
class FakeJob:
    """A turn is all images, or `turn_pixels` of the engine at a time."""

    engine: FakeEngine
    images: list[Pixels]
    masks: list[Mask]
    logits: list[Logits]
    ms: float = 3.0
    done: bool = False

    def __post_init__(self) -> None:
        self._left: int = sum(image.shape[0] * image.shape[1] for image in self.images)

    def advance(self) -> int:
        self.engine.enter(self.images)
        pixels = min(self._left, self.engine.turn_pixels)
        self._left -= pixels
        self.done = not self._left
        return pixels

    def finish(self) -> FakeJob:
        while not self.done:
            self.advance()
        return self


@dataclass
class FakeEngine:
    """A pixel is 1 where red reaches the threshold; with several classes it is red itself. Logits: see `_logits`.

    While `gate` is closed a turn does not return; `entered` says that one has begun. `breaks` makes a turn raise.
    """

    model: Model = field(default_factory=fake_model)
    device: str = "fake"
    bus: str = ""
    kernel: str = "fake"
    turn_pixels: int = 10**9
    breaks: Callable[[Pixels], bool] = lambda image: False
    batches: list[list[Pixels]] = field(default_factory=list)  # one each turn
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        return np.empty(shape, np.uint8)

    def start(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None, want_logits: bool = False
    ) -> FakeJob:
        limits = threshold if isinstance(threshold, Sequence) else [self.model.threshold] * len(images)
        masks = [self._mask(image[:, :, 0], limit) for image, limit in zip(images, limits, strict=True)]
        logits = [self._logits(image[:, :, :1].astype(np.int32)) for image in images if want_logits]
        return FakeJob(self, list(images), masks, logits)

    def enter(self, images: list[Pixels]) -> None:
        """A turn."""
        self.batches.append(images)
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if any(self.breaks(image) for image in images):
            raise RuntimeError("secret internals")

    def _mask(self, red: Pixels, limit: float) -> Mask:
        return red.astype(np.uint8) if len(self.model.classes) > 1 else (red >= 255 * limit).astype(np.uint8)

    def _logits(self, red: Logits) -> Logits:
        """1000 where red is 255, -1000 where it is 0; the model's scale is 1/1000."""
        return ((red * 2 - 255) * 1000 // 255).repeat(len(self.model.classes), axis=2)


def fitting_threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the threads are called, up to their number, that from now on fit images and bring masks back, in order."""
    threads: list[str] = []

    def noting(work: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any) -> Any:
            threads.append(threading.current_thread().name.partition("_")[0])
            return work(*arguments)

        return noted

    for name in ("preprocess", "postprocess"):
        monkeypatch.setattr(preprocess, name, noting(getattr(preprocess, name)))
    return threads


@contextmanager
def serving(app: FastAPI, wait: bool = True) -> Iterator[httpx.Client]:
    """A client of `app` on a real socket; by default once it is warmed up."""
    with listen(Settings(port=0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, **options(app.state.service.settings), log_level="critical"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=PATIENCE) as client:
                assert not wait or app.state.service.lifecycle.settled.wait(PATIENCE)
                yield client
        finally:
            server.should_exit = True
            thread.join(PATIENCE)
            assert not thread.is_alive()
