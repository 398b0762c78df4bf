"""What only a real GPU can show: `make test-gpu`. The cases that every backend must pass stand in test_backends.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.backends import registry
from engine.layer import IMAGE, Layer
from engine.runtime import Engine, EngineError
from tests.cases import CASES, same
from tests.models import random_model

pytestmark = pytest.mark.skipif(not registry.gpus(), reason="this machine has no GPU that CUDA offers")


def test_two_sessions_run_at_the_same_time() -> None:
    """Each on its own stream, from its own thread: neither disturbs the other's bits."""
    chosen = [case for case in CASES if case.name in ("odd size", "nineteen channels, 98 % zeros")]

    def run(index: int) -> bool:
        case = chosen[index]
        with Engine.load(case.model, device="cuda") as engine:
            return all(same([engine.logits(image) for image in case.images], case.expected()) for _ in range(50))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, (0, 1))) == [True, True]


def test_a_batch_of_64_gives_what_single_calls_give() -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (90, 70, 3), dtype=np.uint8) for _ in range(64)]
    with Engine.load("nuclei-small", device="cuda") as gpu, Engine.load("nuclei-small", device="cpu") as cpu:
        batched, expected = gpu.run(images)[0], cpu.run(images)[0]
        assert all(np.array_equal(a, b) for a, b in zip(batched, expected, strict=True))
        for image, mask in zip(images, batched, strict=True):
            assert np.array_equal(gpu.run([image])[0][0], mask)


def test_memory_does_not_grow_once_warm() -> None:
    engine = Engine.load(random_model(width=3), device="cuda")
    session = engine._backend.session  # type: ignore[attr-defined]
    memory = []
    for _ in range(3):
        for height, width in ((30, 40), (100, 64), (16, 16)):
            engine.run([np.zeros((height, width, 3), np.uint8)])
        memory.append(session.memory)
    assert memory[0] == memory[1] == memory[2] > 0


def test_memory_for_images_changes_no_bit_and_outlives_the_engine() -> None:
    """Neither while the GPU has some that it reads and writes by itself, nor when all of that is taken."""
    model, rng = random_model(width=3), np.random.default_rng(5)
    with Engine.load(model, device="cuda") as gpu, Engine.load(model, device="cpu") as cpu:
        images = [gpu.empty((height, width, 3)) for height, width in ((16, 16), (30, 40), (32, 48))]
        for image in images:
            image[...] = rng.integers(0, 256, image.shape, dtype=np.uint8)
        expected = cpu.run(images)[0]
        results = [gpu.run(images)[0]]
        assert not results[0][0].flags.owndata  # the GPU wrote it
        taken = [gpu.empty((512, 683, 3)) for _ in range(64)]  # a MiB each
        assert taken[-1].flags.owndata
        results.append(gpu.run(images)[0])
    taken[0][:] = 1
    for masks in results:
        assert all(np.array_equal(a, b) for a, b in zip(masks, expected, strict=True))


def test_too_large_a_batch_is_an_error_and_no_end() -> None:
    """Of tensors that are all alive at once there are more than the memory holds; they are refused before any runs."""
    large, channels, together = (4096, 4080), 4096, 4  # the most that a session takes in one launch
    tensor_bytes = together * large[0] * large[1] * channels // 8
    image = np.zeros((*large, 3), np.uint8)
    small = image[:16, :16].copy()
    model = random_model(layers=_alive_together(registry.gpus()[0].memory // tensor_bytes + 1, channels))
    with Engine.load(model, device="cuda", tile_pixels=image.size) as engine:
        before = engine.run([small])[0][0]
        with pytest.raises(EngineError, match="of GPU memory for activations"):
            engine.run([image] * together)
        assert np.array_equal(engine.run([small])[0][0], before)


def _alive_together(tensors: int, channels: int) -> list[Layer]:
    """A network in the middle of which so many tensors of full resolution still have a reader."""
    flat = [Layer("0", "stem", (IMAGE,), channels, "int16", 3)]
    flat += [Layer(str(i), "gate", (str(i - 1), str(i - 1)), channels) for i in range(1, tensors)]
    for i in reversed(range(tensors - 1)):
        flat.append(Layer(f"back{i}", "gate", (flat[-1].name, str(i)), channels))
    return [*flat, Layer("head", "head", (flat[-1].name,), 1, "int16", 1)]
