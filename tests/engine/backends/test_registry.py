"""Which device an engine runs on, and what it says where that cannot be; a GPU's stand-in counts on the CPU."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engine import _native, selftest
from engine.backends import reference, registry
from engine.model import Model
from engine.preprocess import pad
from engine.runtime import Engine, EngineError
from tests.models import random_model

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 33, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(width=3)


class StandIn:
    """`_native.CudaSession` where there is no GPU: the CPU's session, and failures when they are asked for."""

    fails_at = ""

    def __init__(self, gpu: int) -> None:
        self._fail("make", f"there is no GPU {gpu}; this machine has 1", gpu != 0)
        self._session = _native.Session("portable", 1)
        self._loaded = False
        self.kernels: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def load(self) -> None:
        self._fail("load", "7 MiB of GPU memory for weights: out of memory")
        self.kernels = [f"kernel {i}" for i in range(100)]

    def run(self, *arguments: Any) -> None:
        assert self.kernels, "not loaded"
        self._fail("run", "9 MiB of GPU memory for activations: out of memory")
        self._session.run(*arguments)

    def host_memory(self, bytes: int) -> NDArray[np.uint8] | None:
        return np.empty(bytes, np.uint8)

    def _fail(self, place: str, message: str, fails: bool = False) -> None:
        if fails or self.fails_at == place:
            raise _native.CudaError(message)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    """One GPU, whose session is StandIn."""
    monkeypatch.setattr(_native, "gpus", lambda: [SimpleNamespace(bus="0000:3b:00.0")])
    monkeypatch.setattr(_native, "CudaSession", StandIn)
    monkeypatch.setattr(StandIn, "fails_at", "")
    return StandIn


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise _native.CudaError("there is no NVIDIA driver")

    monkeypatch.setattr(_native, "gpus", fail)
    monkeypatch.setattr(_native, "CudaSession", fail)


@pytest.mark.parametrize(("asked", "named"), [("cuda", "cuda:0"), ("cuda:0", "cuda:0"), ("auto", "cuda:0")])
def test_a_gpu_is_used(model: Model, gpu: type[StandIn], asked: str, named: str) -> None:
    with Engine.load(model, device=asked) as engine:
        assert engine.device == named
        assert np.array_equal(
            engine.logits(IMAGE), reference.run(model, pad(IMAGE, model.padded(20, 33))).logits[:20, :33]
        )
        rows = engine.describe()
    assert [row["kernel"] for row in rows] == [f"kernel {i}" for i in range(len(model.layers))]
    assert {row["device"] for row in rows} == {"cuda:0"}
    assert all(row["why"] for row in rows)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
def test_an_explicit_gpu_that_is_not_there_is_an_error(model: Model, no_gpu: None, device: str) -> None:
    with pytest.raises(EngineError, match=r"cuda:\d: there is no NVIDIA driver"):
        Engine.load(model, device=device)


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda0", "CUDA", "gpu"])
def test_what_is_no_device_is_refused(model: Model, gpu: type[StandIn], device: str) -> None:
    with pytest.raises(EngineError, match="no device"):
        Engine.load(model, device=device)


def test_a_gpu_is_known_by_its_slot(model: Model, gpu: type[StandIn]) -> None:
    buses = {device: Engine.load(model, device=device).bus for device in ("auto", "cuda", "cpu")}
    assert buses == {"auto": "0000:3b:00.0", "cuda": "0000:3b:00.0", "cpu": ""}


def test_another_gpu_than_there_is_refused(model: Model, gpu: type[StandIn]) -> None:
    with pytest.raises(EngineError, match="cuda:1: there is no GPU 1; this machine has 1"):
        Engine.load(model, device="cuda:1")


def test_a_cpu_kernel_is_no_gpu_s(model: Model, gpu: type[StandIn]) -> None:
    with pytest.raises(EngineError, match="'portable' is one of the CPU's"):
        Engine.load(model, device="cuda", kernel="portable")
    assert Engine.load(model, device="auto", kernel="portable").device == "cpu"


def test_auto_takes_the_cpu_and_says_so(model: Model, no_gpu: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "mbunet"):
        engine = Engine.load(model)
    assert engine.device == "cpu"
    assert "there is no NVIDIA driver" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.INFO}  # most machines have none
    assert all("auto chose the CPU: cuda:0: there is no NVIDIA driver" in row["why"] for row in engine.describe())
    assert all("auto" not in row["why"] for row in Engine.load(model, device="cpu").describe())


@pytest.mark.parametrize("place", ["make", "load"])
def test_auto_warns_of_a_gpu_that_fails(
    model: Model, gpu: type[StandIn], place: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "fails_at", place)
    assert Engine.load(model).device == "cpu"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    with pytest.raises(EngineError, match="cuda:0: "):
        Engine.load(model, device="cuda")


def test_too_little_memory_for_an_image_is_an_error_and_no_end(
    model: Model, gpu: type[StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(model, device="cuda")
    with monkeypatch.context() as during:
        during.setattr(gpu, "fails_at", "run")
        with pytest.raises(EngineError, match="cuda:0: 9 MiB of GPU memory for activations: out of memory"):
            engine.run([IMAGE])
    assert engine.run([IMAGE])[0][0].shape == (20, 33)


def test_auto_does_on_the_cpu_what_the_gpu_fails_at_and_says_so(
    model: Model, gpu: type[StandIn], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(model)
    expected = engine.logits(IMAGE)
    assert not caplog.records
    monkeypatch.setattr(gpu, "fails_at", "run")
    assert np.array_equal(engine.logits(IMAGE), expected)
    assert "1 images ran on the CPU: cuda:0: 9 MiB of GPU memory for activations: out of memory" in caplog.text
    monkeypatch.setattr(gpu, "fails_at", "")
    caplog.clear()
    assert np.array_equal(engine.logits(IMAGE), expected)
    assert not caplog.records


def test_available_devices(gpu: type[StandIn]) -> None:
    assert registry.available() == ["cuda:0", "cpu", "reference"]
    assert "cuda:0" in selftest.available()


def test_available_devices_without_a_gpu(no_gpu: None) -> None:
    assert registry.available() == ["cpu", "reference"]
    assert "cuda:0" not in selftest.available()


def test_the_selftest_replays_on_a_gpu(gpu: type[StandIn]) -> None:
    golden = sorted(selftest.GOLDEN.glob("*.safetensors"))[0]
    row = selftest.replay(golden, "cuda:0")
    assert (row["kernel"], row["wrong"], row["ok"]) == ("cuda:0", 0, True)


def test_the_native_module_says_why_there_is_no_gpu() -> None:
    """With CUDA compiled or without, the import asks for no driver; only looking for GPUs does."""
    if registry.gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(_native.CudaError, match=r"built without CUDA|no NVIDIA driver|no CUDA-capable device|too old"):
        _native.gpus()
    with pytest.raises(_native.CudaError):
        _native.CudaSession(0)
