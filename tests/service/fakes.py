"""An engine that is easy to predict, to hold up and to break; images of every kind; a server in a thread."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from engine.layer import Layer
from engine.model import ClassInfo, Model, Preprocessing
from service.codec.pixels import Logits, Mask, Pixels
from service.server import listen, options
from service.settings import Settings

PATIENCE = 20  # seconds until a wait for another thread counts as failed


@dataclass(frozen=True)
class FakeTimings:
    fit_ms: float = 1.0
    run_ms: float = 2.0


def fake_model(classes: int = 1, name: str = "fake") -> Model:
    reads = ["image", *(f"pool{i}" for i in range(4))]  # as coarse as the networks that are shipped
    pools = tuple(Layer(name, "pool", (read,), 3) for read, name in pairwise(reads))
    head = Layer("head", "head", (reads[-1],), classes, "int16", 1, doublings=len(pools), scale=1e-3)
    entries = tuple(ClassInfo(f"class {i}", (255, 40 * i, 0)) for i in range(classes))
    return Model(name, "mbu-net", (*pools, head), entries, Preprocessing(), 0.5, {"data": "none"}, {})


@dataclass
class FakeEngine:
    """A pixel is 1 where red reaches the threshold; with several classes it is red itself.

    While `gate` is closed a run does not return; `entered` says that one has begun. `breaks` makes a run raise.
    """

    model: Model = field(default_factory=fake_model)
    device: str = "fake"
    kernel: str = "fake"
    breaks: Callable[[Pixels], bool] = lambda image: False
    batches: list[list[Pixels]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def run(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None
    ) -> tuple[list[Mask], FakeTimings]:
        self._begin(images)
        assert isinstance(threshold, Sequence)
        if len(self.model.classes) > 1:
            return [image[:, :, 0].copy() for image in images], FakeTimings()
        pairs = zip(images, threshold, strict=True)
        return [(image[:, :, 0] >= 255 * limit).astype(np.uint8) for image, limit in pairs], FakeTimings()

    def run_logits(self, images: Sequence[Pixels]) -> tuple[list[Logits], FakeTimings]:
        """A logit of 1000 where red is 255, of -1000 where it is 0; the model's scale is 1/1000."""
        self._begin(images)
        reds = [image[:, :, :1].astype(np.int32) for image in images]
        return [((red * 2 - 255) * 1000 // 255).repeat(len(self.model.classes), axis=2) for red in reds], FakeTimings()

    def _begin(self, images: Sequence[Pixels]) -> None:
        self.batches.append(list(images))
        self.entered.set()
        assert self.gate.wait(PATIENCE)
        if any(self.breaks(image) for image in images):
            raise RuntimeError("secret internals")


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


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of `image` as a file of format `kind`."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def photo(width: int = 21, height: int = 13) -> Image.Image:
    """An RGB image whose left half is red on blue, so that turns and flips show."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = (255, 10, 20)
    pixels[: height // 3, width // 2 :] = (0, 0, 200)
    return Image.fromarray(pixels)


def exif(orientation: int) -> bytes:
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()


def images() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Odd but sound images: the file and its displayed (width, height)."""
    size = photo().size
    grey16 = Image.fromarray(np.arange(13 * 21, dtype=np.uint16).reshape(13, 21) * 240)
    palette = photo().quantize(4)
    frames = {"save_all": True, "append_images": [photo().rotate(180)], "duration": 100}
    return {
        "RGB PNG": (file_of(photo()), size),
        "1x1": (file_of(photo(1, 1)), (1, 1)),
        "16-bit grey PNG": (file_of(grey16), size),
        "16-bit grey TIFF": (file_of(grey16, "TIFF"), size),
        "palette PNG": (file_of(palette), size),
        "palette PNG with transparency": (file_of(palette, transparency=0), size),
        "CMYK JPEG": (file_of(photo().convert("CMYK"), "JPEG"), size),
        "RGBA PNG": (file_of(photo().convert("RGBA")), size),
        "grey and alpha PNG": (file_of(photo().convert("LA")), size),
        "grey PNG": (file_of(photo().convert("L")), size),
        "1-bit PNG": (file_of(photo().convert("1")), size),
        "EXIF-rotated JPEG": (file_of(photo(), "JPEG", exif=exif(6)), size[::-1]),
        "animated GIF": (file_of(photo(), "GIF", **frames), size),
        "progressive JPEG": (file_of(photo(), "JPEG", progressive=True), size),
        "BMP": (file_of(photo(), "BMP"), size),
        "WebP": (file_of(photo(), "WEBP", lossless=True), size),
    }


def damaged() -> dict[str, bytes]:
    """Bodies that are no sound image."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    png, jpeg, gif = file_of(noise), file_of(noise, "JPEG"), file_of(noise, "GIF")
    return {
        "empty": b"",
        "text": b"this is not an image",
        "truncated PNG": png[: len(png) // 2],
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated GIF": gif[: len(gif) // 2],
        "PNG header only": png[:33],
        "half a PNG signature": png[:5],
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    }


def giant(side: int) -> bytes:
    """A PNG of a few bytes whose header promises side x side pixels."""
    file = bytearray(file_of(photo()))
    file[16:24] = struct.pack(">II", side, side)
    file[29:33] = struct.pack(">I", zlib.crc32(file[12:29]))
    return bytes(file)
