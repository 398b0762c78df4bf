"""How a step is run: operation by operation, of fused kernels, or on a GPU as one CUDA graph."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Hashable
from functools import cached_property

import torch
from torch import Tensor

from engine.train.config import Config

Update = Callable[[Tensor, Tensor], Tensor]
"""(pixels, labels) to the loss; it moves the weights."""

WARM_UP = 3  # plain steps before a capture: libraries choose their kernels, the optimizer makes its state


COMPILING = 5.0
"""Minutes of a run from which fused kernels pay for the time that they are built. On a CPU those of full precision
never do: its steps are convolutions for the most part, and as fast without."""


def mode(config: Config, device: torch.device) -> str:
    """How steps of `config` are run on `device`: plain, captured or compiled."""
    on_gpu = device.type == "cuda"
    if config.launch == "auto":
        able = _triton() if on_gpu else not config.full_precision and _compiler("CXX", "g++")
        fused = config.minutes >= COMPILING and able
        return "compiled" if fused else "captured" if on_gpu else "plain"
    return "plain" if config.launch == "captured" and not on_gpu else config.launch


def _triton() -> bool:
    """Whether torch.compile can build kernels for a GPU: by Triton, which calls a C compiler."""
    return importlib.util.find_spec("triton") is not None and _compiler("CC", "gcc", "clang")


def _compiler(variable: str, *names: str) -> bool:
    """Whether there is the compiler that the environment names, or else one of `names`."""
    named = os.environ.get(variable)
    return any(map(shutil.which, [named] if named else names))


class Graph:
    """Calls `update` as one CUDA graph, captured after WARM_UP plain calls.

    A graph repeats the launches of one call, with their addresses and numbers. So what changes from step to step lies
    on the device; what Python decides by is the `form` of a step, and each form is captured anew.
    """

    def __init__(self, update: Update) -> None:
        self._update = update
        self._form: Hashable = None
        self._warm = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, pixels: Tensor, labels: Tensor, form: Hashable) -> Tensor:
        """The loss of one batch, all of which have one size."""
        if form != self._form:
            self._form, self._warm, self._replay = form, 0, None
        if self._warm < WARM_UP:
            self._warm += 1
            return self._beside(pixels, labels)
        if self._replay is None:
            self._pixels, self._labels = pixels.clone(), labels.clone()
            self._replay = self._record(self._work)
        self._pixels.copy_(pixels)
        self._labels.copy_(labels)
        self._replay()
        return self._loss.clone()

    def _work(self) -> None:
        self._loss = self._update(self._pixels, self._labels)

    def _beside(self, pixels: Tensor, labels: Tensor) -> Tensor:
        """A plain call on the stream that captures use, which must not be the default one."""
        own = torch.cuda.current_stream()
        self._stream.wait_stream(own)
        with torch.cuda.stream(self._stream):
            loss = self._update(pixels, labels)
        own.wait_stream(self._stream)
        return loss

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def _record(self, work: Callable[[], None]) -> Callable[[], None]:
        """`work`, recorded without being done: calling what is returned does it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):  # others may use the GPU
            work()
        return graph.replay
