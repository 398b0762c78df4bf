"""The resident engine: a model loaded once, run on any images by one of several backends that give the same bits."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import mbu, ops, preprocess
from engine.backends import registry
from engine.backends.base import Backend, ClosedBackend, EngineError
from engine.backends.cpu import available_kernels
from engine.format import load
from engine.model import Model
from engine.plan import compile_plan
from engine.preprocess import Image, Pixels
from engine.tiling import PIXELS, Tiling

__all__ = ["Engine", "EngineError", "Timings", "available_kernels", "resolve"]

Mask = NDArray[np.uint8]
Logits = NDArray[np.int32]

MODELS = Path(__file__).parent / "models"
"""The shipped model files."""


class Timings(NamedTuple):
    """Milliseconds of one `Engine.run`: fitting the images to the network, and the network itself."""

    fit_ms: float
    run_ms: float


Turns = Generator[int, None, tuple[list[Mask], list[Logits]]]
"""Yields, before each turn, the pixels that it will compute."""


class Job:
    """Images on their way through an engine, which others may use between two of its turns.

    A turn is all images of one shape, or one window of an image that is too large. When `done`, there are `masks`, and
    `logits` where they were wanted, at the size of what was given; `ms` are the milliseconds of all turns.
    """

    def __init__(self, turns: Turns) -> None:
        self.done = False
        self.masks: list[Mask] = []
        self.logits: list[Logits] = []
        self.ms = 0.0
        self._turns = turns
        self._pixels = 0  # of the next turn
        self.advance()

    def advance(self) -> int:
        """Run the next turn; returns the pixels that it computed."""
        started, pixels = time.perf_counter(), self._pixels
        try:
            self._pixels = next(self._turns)
        except StopIteration as end:
            self.masks, self.logits = end.value
            self.done = True
        self.ms += 1e3 * (time.perf_counter() - started)
        return pixels

    def finish(self) -> Job:
        """Run all turns."""
        while not self.done:
            self.advance()
        return self


class Engine:
    """A loaded model and the backend that runs it. Thread-safe: calls take turns."""

    def __init__(self, model: Model, device: str, backend: Backend, tile_pixels: int = PIXELS) -> None:
        self.model = model
        self.device = device
        self.bus = registry.bus(device)
        self.kernel = backend.kernel
        self.tiling = Tiling(model, tile_pixels)
        self._backend = backend
        self._lock = threading.Lock()
        self._scale = model.layers[-1].scale

    @classmethod
    def load(
        cls,
        model: str | Path | Model,
        device: str = "auto",
        threads: int = 0,
        kernel: str = "auto",
        tile_pixels: int = PIXELS,
    ) -> Engine:
        """Load a model file, or a shipped model by name.

        `device` is "cpu", "cuda" or "cuda:1" and so on (a GPU), "reference" (numpy, slow), or "auto": a GPU where one
        can be used, else the CPU. For the CPU, `threads` 0 means one per available core, and `kernel` is "auto" or one
        of `available_kernels()`. Images of more than `tile_pixels` pixels run in tiles, with the same bits and in the
        memory of one tile. Raises EngineError, or ModelFileError for a file that is not sound.
        """
        if not isinstance(model, Model):
            model = load(resolve(model))
        return cls(model, *registry.choose(compile_plan(model), device, threads, kernel), tile_pixels)

    def fit(self, image: Image) -> Pixels:
        """`image` (uint8 or uint16 [h, w, 3]) as the network sees it, uint8: its contrast, then its size.

        Raises ValueError for what is no image.
        """
        check_image(image)
        return preprocess.preprocess(image, self.model.preprocessing, self.empty)

    def start(
        self, images: Sequence[Pixels], threshold: float | Sequence[float] | None = None, want_logits: bool = False
    ) -> Job:
        """Begin to run the network on `images` (uint8 [h, w, 3] each, any sizes) as it sees them: `fit` makes them so.

        `threshold` as in `run`. A batch gives what single calls give. Raises ValueError for what is no such image.
        """
        for image in images:
            check_image(image, (np.uint8,))
        return Job(self._turns(images, self._integer_thresholds(threshold, len(images)), want_logits))

    def run(
        self, images: Sequence[Image], threshold: float | Sequence[float] | None = None
    ) -> tuple[list[Mask], Timings]:
        """Masks of `images` (uint8 or uint16 [h, w, 3] each, any sizes), and the time it took.

        A mask is uint8 [h, w]: 0 or 1 with one class (1 where the probability reaches `threshold`, one for all images
        or one each; the model's own by default), class indices with several. A batch gives what single calls give.
        """
        masks, _, timings = self._run(images, threshold, want_logits=False)
        return masks, timings

    def run_logits(self, images: Sequence[Image]) -> tuple[list[Logits], Timings]:
        """As `run`, but integer logits int32 [h, w, classes]; `model.layers[-1].scale` times them is the real logit."""
        _, logits, timings = self._run(images, None, want_logits=True)
        return logits, timings

    def logits(self, image: Image) -> Logits:
        """Those of one image."""
        return self.run_logits([image])[0][0]

    def mask_and_logits(self, image: Image, threshold: float | None = None) -> tuple[Mask, Logits]:
        """Both, of one image, as `run` and `run_logits` give them."""
        (mask,), (logits,), _ = self._run([image], threshold, want_logits=True)
        return mask, logits

    def probabilities(self, image: Image) -> NDArray[np.float64]:
        """Of every pixel and class, float64 [h, w, classes], from the logits; with one class the foreground's."""
        return mbu.probabilities(self.logits(image) * self._scale)

    def empty(self, shape: tuple[int, ...]) -> Pixels:
        """Memory for an image as the network sees it, uint8 of `shape` [h, w, 3], with whatever lies there.

        A GPU reads it by itself, so that a call with such images is not held up by copies on the host. It may outlive
        the engine. On a CPU it is memory like any other, and so it is for an image that runs in windows, which are
        copied, and where the GPU has no more of it.
        """
        return preprocess.ordinary(shape) if self.tiling.cuts(*shape[:2]) else self._backend.empty(shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes whose indices the masks hold; none for one class, where masks are 0 and 1."""
        return tuple(info.name for info in self.model.classes) if len(self.model.classes) > 1 else ()

    def describe(self) -> list[dict[str, Any]]:
        """One row per layer: name, op, weights, output channels, share of zeros, device, kernel and why that."""
        rows = []
        for i, layer in enumerate(self.model.layers):
            kernel, why = self._backend.explain(i, layer)
            row: dict[str, Any] = {"layer": layer.name, "op": layer.op, "weights": layer.weights}
            row |= {"channels": layer.channels, "zeros": None, "device": self.device, "kernel": kernel}
            if ops.operation(layer).has_bits:
                row["zeros"] = 1 - np.count_nonzero(self.model.ternary(layer)) / self.model.ternary(layer).size
            rows.append(row | {"why": why + self._backend.note})
        return rows

    def close(self) -> None:
        """Release the backend's threads and memory; the engine cannot run afterwards."""
        with self._lock:
            self._backend = ClosedBackend()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(
        self, images: Sequence[Image], threshold: float | Sequence[float] | None, want_logits: bool
    ) -> tuple[list[Mask], list[Logits], Timings]:
        """From images to masks and, if wanted, logits at their own size."""
        started, how = time.perf_counter(), self.model.preprocessing
        job = self.start([self.fit(image) for image in images], threshold, want_logits).finish()
        shapes = [image.shape for image in images]
        masks = [preprocess.postprocess(*one, how) for one in zip(job.masks, shapes, strict=True)]
        logits = [preprocess.postprocess(*one, how) for one in zip(job.logits, shapes, strict=want_logits)]
        return masks, logits, Timings(1e3 * (time.perf_counter() - started) - job.ms, job.ms)

    def _turns(self, images: Sequence[Pixels], thresholds: list[int], want_logits: bool) -> Turns:
        """Masks, and logits if wanted."""
        images = [np.ascontiguousarray(image) for image in images]
        masks: dict[int, Mask] = {}
        logits: dict[int, Logits] = {}
        for indices in group_by_shape(images, self.model):
            some, some_logits = yield from self.tiling.turns(
                self._compute,
                self._backend.empty,
                [images[i] for i in indices],
                [thresholds[i] for i in indices],
                want_logits,
            )
            masks |= zip(indices, some, strict=True)
            if want_logits:
                logits |= zip(indices, some_logits, strict=True)
        order = range(len(images))
        return [masks[i] for i in order], [logits[i] for i in order if want_logits]

    def _compute(
        self, images: list[Pixels], thresholds: list[int], want_logits: bool
    ) -> tuple[list[Mask], list[Logits]]:
        with self._lock:
            return self._backend.run(images, thresholds, want_logits)

    def _integer_thresholds(self, threshold: float | Sequence[float] | None, count: int) -> list[int]:
        if threshold is None:
            threshold = self.model.threshold
        each = [threshold] * count if isinstance(threshold, (int, float)) else list(threshold)
        if len(each) != count:
            raise ValueError(f"{len(each)} thresholds for {count} images")
        return [mbu.integer_threshold(probability, self._scale) for probability in each]


def check_image(image: Image, samples: Sequence[type[np.unsignedinteger[Any]]] = (np.uint8, np.uint16)) -> None:
    """Raise ValueError unless `image` is [h, w, 3] of one of these kinds of samples, with at least one pixel."""
    if image.dtype not in samples or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        kinds = " or ".join(kind.__name__ for kind in samples)
        raise ValueError(f"an image is {kinds} [height, width, 3], not {image.dtype} {list(image.shape)}")


def group_by_shape(images: Sequence[Pixels], model: Model) -> list[list[int]]:
    """Indices of `images` (fitted) by padded shape, in the order of first appearance: each group can run at once."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, image in enumerate(images):
        groups.setdefault(model.padded(*image.shape[:2]), []).append(i)
    return list(groups.values())


def resolve(model: str | Path) -> Path:
    """Path of a model file, or of a shipped model given by name; raises EngineError when there is none."""
    shipped = MODELS / f"{model}.safetensors"
    if isinstance(model, str) and shipped.is_file():
        return shipped
    if Path(model).is_file():
        if Path(model).suffix == ".pt":
            command = f"mbunet export {shlex.quote(str(model))} MODEL.safetensors"
            raise EngineError(f"{model} is a checkpoint: {command} makes a model file of it")
        return Path(model)
    names = ", ".join(sorted(file.stem for file in MODELS.glob("*.safetensors"))) or "none"
    raise EngineError(f"no model '{model}': neither a file nor one of the shipped models ({names})")
