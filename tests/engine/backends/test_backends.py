"""Every backend gives the reference's bits: compared with ==, outputs poisoned, run twice."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import pytest

from engine import _native, mbu
from engine.backends import reference, registry
from engine.backends.cpu import CpuBackend, available_kernels
from engine.backends.cuda import CudaBackend
from engine.model import Model
from engine.plan import compile_plan
from engine.runtime import Engine
from tests.cases import CASES, Case, same
from tests.models import random_model

# of this architecture; NEON is also emulated elsewhere (test_neon.py)
ARM = platform.machine() in ("aarch64", "arm64")
KERNELS: tuple[str, ...] = ("neon", "portable") if ARM else ("avx512vnni", "avx512", "avx2", "portable")
KERNELS += ("cuda:0",) if registry.gpus() else ()  # `make test-gpu`; without a GPU, emulated (test_cuda_session.py)


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name not in registry.available() and name not in available_kernels():
        pytest.skip(f"this machine cannot run the {name} kernels")
    return name


def backend_of(model: Model, kernel: str, threads: int) -> CpuBackend | CudaBackend:
    return (
        CudaBackend(compile_plan(model), 0) if kernel == "cuda:0" else CpuBackend(compile_plan(model), kernel, threads)
    )


def poison(backend: CpuBackend | CudaBackend, value: int) -> None:
    """Overwrite what a backend holds between two runs."""
    backend.session.poison(value)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_logits_equal_the_reference(case: Case, kernel: str, threads: int) -> None:
    backend = backend_of(case.model, kernel, threads)
    images, expected = case.images, case.expected()
    for value in (0x00, 0xFF, 0xA5):
        for i, image in enumerate(images):  # shapes in turn: what a smaller one leaves behind must not matter
            masks, logits = backend.run([image], [0], want_logits=True)
            poison(backend, value)
            assert same(logits, [expected[i]])
            assert same([m.astype(np.int32) for m in masks], [reference.decide(expected[i], 0).astype(np.int32)])


def test_what_has_no_size_is_refused_and_not_divided_by(kernel: str) -> None:
    backend = backend_of(random_model(width=3), kernel, 1)
    for shape in ((0, 0, 3), (0, 16, 3), (16, 0, 3)):
        with pytest.raises(ValueError, match="an image without pixels"):
            backend.run([np.zeros(shape, np.uint8)], [0], want_logits=False)
    with pytest.raises(ValueError, match="a session needs a thread"):
        _native.Session("portable", 0)
    for threads, size in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="a peak needs a thread and a byte"):
            _native.peak("portable", threads, size)


def test_rows_of_tiles_may_be_wider_than_a_group(kernel: str) -> None:
    """The neighbours of a group's lanes, a row of tiles up or down, then lie two groups away."""
    case = Case("wide rows", ((20, 8270),), width=1)  # 4 x 1034 tiles: nine groups
    _, logits = backend_of(case.model, kernel, 2).run(case.images, [0], want_logits=True)
    assert same(logits, case.expected())


@pytest.mark.parametrize("case", [case for case in CASES if len(case.sizes) > 1], ids=lambda case: case.name)
def test_a_batch_gives_what_single_calls_give(case: Case, kernel: str) -> None:
    thresholds = list(np.linspace(0.3, 0.7, len(case.sizes)))
    device, own = (kernel, "auto") if kernel in registry.available() else ("cpu", kernel)
    with Engine.load(case.model, device, 2, own) as engine:
        batched, _ = engine.run(case.images, thresholds)
        single = [engine.run([image], t)[0][0] for image, t in zip(case.images, thresholds, strict=True)]
    scale = case.model.layers[-1].scale
    for mask, alone, logits, t in zip(batched, single, case.expected(), thresholds, strict=True):
        assert np.array_equal(mask, alone)
        assert np.array_equal(mask, reference.decide(logits, mbu.integer_threshold(t, scale)))


@pytest.mark.parametrize("count", [3, 4, 7])
def test_images_that_threads_run_side_by_side_give_what_single_calls_give(count: int) -> None:
    rng = np.random.default_rng(count)
    images = [rng.integers(0, 256, (371, 390, 3), dtype=np.uint8) for _ in range(count)]
    backend = CpuBackend(compile_plan(random_model(3)), "auto", 2)
    single = [backend.run([image], [0], want_logits=True) for image in images]
    for value in (0x00, 0xFF):
        masks, logits = backend.run(images, [0] * count, want_logits=True)
        poison(backend, value)
        assert same(logits, [own[0] for _, own in single])
        assert all(np.array_equal(mask, own[0]) for mask, (own, _) in zip(masks, single, strict=True))


def test_bits_really_vary() -> None:
    """The cases would prove little if their networks answered the same everywhere."""
    for case in CASES:
        if case.sizes[0][0] * case.sizes[0][1] > 1000:
            logits = case.expected()[0]
            assert len(np.unique(logits)) > 2, case.name


def test_a_wrong_bit_is_noticed(kernel: str) -> None:
    """The comparison can fail: one flipped weight changes some logit."""
    case = CASES[1]
    model = case.model
    name = "up4.conv2.pos"
    other = {**model.tensors, name: model.tensors[name] ^ model.tensors["up4.conv2.neg"]}
    changed = replace(model, tensors=other)
    logits = backend_of(changed, kernel, 1).run(case.images, [0], want_logits=True)[1]
    assert not same(logits, case.expected())


def test_tensors_that_are_never_needed_together_share_memory() -> None:
    model = random_model(8)
    with Engine.load(model, "cpu", 1) as engine:
        engine.run([np.zeros((512, 512, 3), np.uint8)])
        backend = engine._backend
        assert isinstance(backend, CpuBackend)
        bits = sum(t.channels * t.planes * (512 // t.stride) ** 2 for t in compile_plan(model).tensors)
        assert backend.session.memory < 1.5 * bits / 8  # planes have borders: without sharing it is more than twice
