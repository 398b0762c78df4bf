"""Steps of training that wait for nothing, and that can be recorded and repeated as a CUDA graph is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from engine import mbu
from engine.layer import Layer
from engine.networks import unet
from engine.train import kinds, launch, quantize
from engine.train.config import Config
from engine.train.loss import Loss
from engine.train.network import Network
from engine.train.step import Step
from engine.train.trainer import Trainer
from tests.engine.train.test_trainer import tiny

WAITS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal", "item", "masked_select", "unique_consecutive"}
"""Operations that cannot end before the device has done all that came before."""
FORMS: dict[str, dict[str, Any]] = {
    "masked": {},
    "seq": {"weights": ("seq",)},
    "twn": {"weights": ("twn",)},
    "full precision": {"full_precision": True},
    "bfcn W2A2": {"family": "bfcn", "weight_bits": 2},
    "multi-branch": {"family": "multi-branch"},
    "classes": {"classes": ("ground", "a", "b"), "class_weights": ("1", "2", "3"), "overlap": "focal-tversky"},
}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in WAITS:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What a CUDA graph does, for a CPU: keeps every operation with its numbers and tensors, and repeats it on them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors(found)))
        return found

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, kept in self.calls:
                for new, old in zip(tensors(func(*args, **kwargs)), kept, strict=True):
                    if new.data_ptr() != old.data_ptr():
                        old.copy_(new)


def tensors(found: Any) -> list[Tensor]:
    flat: list[Tensor] = []
    tree_map(lambda item: flat.append(item) if isinstance(item, Tensor) else None, found)
    return flat


class Recorded(launch.Graph):
    """A graph for a CPU. Recording does the work, which a capture does not: it is undone."""

    step: Step

    def _beside(self, pixels: Tensor, labels: Tensor) -> Tensor:
        return self._update(pixels, labels)

    def _record(self, work: Callable[[], None]) -> Callable[[], None]:
        state = [*self.step.network.state_dict().values(), *tensors(self.step.optimizer.state_dict()["state"])]
        before = [tensor.clone() for tensor in state]
        recorder = Recorder()
        with recorder:
            work()
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
        return recorder.replay


def config_of(changes: dict[str, Any]) -> Config:
    return tiny(Path("data"), Path("out"), samples=40, learning_rate=0.01, **changes)


def step_of(config: Config, static: bool | None, teacher: bool = True) -> Step:
    torch.manual_seed(0)
    network = Network(config.layers(), config.full_precision, config.ramp)
    taught = Network(tiny(Path("data"), Path("out"), width=2, classes=config.classes).layers(), True)
    weights = torch.tensor([float(weight) for weight in config.class_weights]) if config.class_weights else None
    loss = Loss(config.overlap, config.missed, weights)
    return Step(config, network, taught.eval() if teacher else None, lambda: loss, static=static)


def batch(config: Config, k: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(k)
    pixels = torch.randint(0, 256, (config.batch, 3, config.crop, config.crop), dtype=torch.uint8, generator=generator)
    classes = max(len(config.classes), 2)
    return pixels, torch.randint(0, classes, pixels[:, 0].shape, dtype=torch.uint8, generator=generator)


def trained(step: Step, steps: int = 12, refresh_every: int = 4) -> tuple[list[float], dict[str, Tensor]]:
    """Losses and weights of some steps, with masking thresholds taken anew between them."""
    losses = []
    for k in range(steps):
        progress = k / steps
        if k % refresh_every == 0:
            step.network.set_zeros(step.config.zeros_at(progress), step.config.zeros_by)
        losses.append(step(*batch(step.config, k), progress))
    return torch.stack(losses).tolist(), step.network.state_dict()


def assert_same(one: tuple[list[float], dict[str, Tensor]], other: tuple[list[float], dict[str, Tensor]]) -> None:
    assert one[0] == other[0]
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_a_step_waits_for_nothing(changes: dict[str, Any]) -> None:
    step = step_of(config_of(changes), static=True)
    step.network.set_zeros(0.5)
    for progress in (0.0, 0.1, 0.9):
        with Waits() as waits:
            step(*batch(step.config, 0), progress)
        assert not waits.found
    with Waits() as waits:
        float(step(*batch(step.config, 0), 1.0))
    assert waits.found == ["aten._local_scalar_dense.default"]


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
def test_a_recorded_step_repeated_learns_what_a_plain_one_learns(changes: dict[str, Any]) -> None:
    """Nothing that changes from step to step is a number in Python, and nothing moves in memory."""
    config = config_of(changes)
    recorded = step_of(config, static=True)
    recorded.graph = graph = Recorded(recorded.update)
    graph.step = recorded
    assert_same(trained(step_of(config, static=True)), trained(recorded))
    assert graph._replay is not None


def test_convolutions_of_a_step_are_the_fastest_that_a_gpu_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """By cuDNN, which tries its algorithms on the first batch."""
    step, seen = step_of(config_of({}), static=None), []
    loss = step._loss

    def watched(pixels: Tensor, labels: Tensor) -> Tensor:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        return loss(pixels, labels)

    monkeypatch.setattr(step, "_loss", watched)
    step(*batch(step.config, 0), 0.0)
    assert seen == [(True, True)]


def test_a_number_that_is_recorded_is_noticed() -> None:
    config = config_of({})
    recorded = step_of(config, static=True)
    recorded.graph = graph = Recorded(recorded.update)
    graph.step = recorded
    recorded._static = False
    assert trained(step_of(config, static=True))[0] != trained(recorded)[0]


def test_a_static_step_learns_what_one_of_numbers_learns() -> None:
    """But for the order of Adam's own arithmetic, which is fused there."""
    config = config_of({"annealing": 0.0})
    (static, _), (numbers, _) = trained(step_of(config, True), 4), trained(step_of(config, None), 4)
    assert static[:2] == numbers[:2]  # the first learning rate is 0
    np.testing.assert_allclose(static, numbers, rtol=0.02)


def test_a_step_that_cannot_be_captured_is_plain_and_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Trainer(tiny(data, tmp_path / "plain"))
    plain.fit()
    monkeypatch.setattr(launch, "mode", lambda *_: "captured")
    run = Trainer(tiny(data, tmp_path / "captured"))
    capsys.readouterr()
    run.fit()
    assert capsys.readouterr().out.count("steps are plain, not captured: ") == 1
    for name, tensor in plain.network.state_dict().items():
        assert torch.equal(tensor, run.network.state_dict()[name]), name


@pytest.mark.parametrize(
    ("device", "changes", "there", "found"),
    [
        ("cpu", {}, True, "plain"),
        ("cpu", {"minutes": launch.COMPILING}, True, "compiled"),
        ("cpu", {"minutes": launch.COMPILING}, False, "plain"),
        ("cpu", {"minutes": launch.COMPILING, "full_precision": True}, True, "plain"),
        ("cuda", {"minutes": launch.COMPILING, "full_precision": True}, True, "compiled"),
        ("cpu", {"minutes": launch.COMPILING - 1}, True, "plain"),
        ("cpu", {"launch": "compiled"}, True, "compiled"),
        ("cpu", {"launch": "captured"}, True, "plain"),
        ("cpu", {"launch": "plain", "minutes": launch.COMPILING}, True, "plain"),
        ("cuda", {}, True, "captured"),
        ("cuda", {"minutes": launch.COMPILING}, True, "compiled"),
        ("cuda", {"minutes": launch.COMPILING}, False, "captured"),
        ("cuda", {"launch": "compiled"}, True, "compiled"),
    ],
)
def test_kernels_are_fused_where_the_minutes_are_worth_it(
    monkeypatch: pytest.MonkeyPatch, device: str, changes: dict[str, Any], there: bool, found: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/g++" if there else None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object() if there else None)
    assert launch.mode(config_of(changes), torch.device(device)) == found


def test_on_a_cpu_fused_kernels_learn_what_plain_ones_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: compiled(*args, backend="aot_eager", **kwargs))
    said: list[str] = []
    losses = {}
    for way in ("plain", "compiled"):
        step = step_of(config_of({"launch": way}), static=True)
        step._say = said.append
        losses[way] = trained(step)[0]
    assert said == []
    np.testing.assert_allclose(losses["compiled"], losses["plain"], rtol=0.02)


def test_a_step_that_cannot_be_compiled_is_plain_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> object:
        raise RuntimeError("no compiler")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: compiled(*args, backend=refuse, **kwargs))
    step = step_of(config_of({"launch": "compiled"}), static=None)
    said: list[str] = []
    step._say = said.append
    losses = trained(step)[0]
    assert len(said) == 1
    assert said[0].startswith("steps are plain, not compiled: ")
    assert losses == trained(step_of(config_of({}), static=True))[0]


def test_a_step_that_cannot_be_compiled_on_a_gpu_is_captured_and_plain_where_that_fails_too() -> None:
    step = step_of(config_of({"launch": "compiled"}), static=True)
    said: list[str] = []
    step._say = said.append

    def refuse(*_: object) -> Tensor:
        raise RuntimeError("not here")

    step.graph = Recorded(step.update)
    step._student = refuse
    losses = trained(step)[0]
    assert [line.partition(":")[0] for line in said] == [
        "steps are captured, not compiled",
        "steps are plain, not captured",
    ]
    assert losses == trained(step_of(config_of({}), static=True))[0]


def three_levels(x: Tensor, annealed: quantize.Share) -> Tensor:
    return quantize.levels(x, kinds.CENTERED, 3, annealed=annealed)


@pytest.mark.parametrize("annealed", [0.0, 0.3, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_on_the_device_gives_the_bits_of_its_number(annealed: float, dtype: torch.dtype) -> None:
    values = torch.linspace(-2, 2, 999).to(dtype)
    for make, held in ((quantize.bit, dtype), (three_levels, torch.float32)):
        found = []
        for share in (float(torch.tensor(annealed).to(held)), torch.tensor(annealed)):
            x = values.clone().requires_grad_()
            y = make(x, share)
            y.backward(torch.linspace(-1, 1, 999).to(dtype))  # type: ignore[no-untyped-call]
            assert x.grad is not None
            found.append((y.detach(), x.grad))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])


@pytest.mark.parametrize("zeros", [0.0, 1e-4, 0.5, 0.9, 0.9999])
def test_a_threshold_by_sorting_is_that_of_the_partition(zeros: float) -> None:
    latent = torch.randn(8, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    latent[0] = latent[1]  # ties
    with Waits() as waits:
        found = quantize.threshold_in_place(latent, zeros)
    assert not waits.found
    assert float(found) == mbu.zero_threshold(latent.numpy(), zeros)


@pytest.mark.parametrize("annealed", [1.0, torch.tensor(0.5)], ids=["bits", "annealed"])
def test_a_network_compiles_whole(annealed: quantize.Share) -> None:
    """Without breaks, by torch's tracer alone, which needs no compiler; layers of every kind that MBU-Net has."""
    written: dict[str, Any] = {"planes": 1, "encoding": "sign"}
    flat = [
        *unet.layers(3)[:4],
        Layer("up", "conv", ("down1.conv1",), 3, "binary", 1, 2, **written),
        Layer("joined", "conv", ("in.conv2", "up"), 3, "masked", 3, **written),
        Layer("head", "head", ("joined",), 1, "int16", 1),
    ]
    network = Network(flat)
    network.set_zeros(0.5)
    network.set_annealed(annealed)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    found = []
    for forward in (network, compiled):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(pixels)
        logits.square().sum().backward()
        found.append((logits.detach(), network.stages["in_conv2"].weight.grad))
    for plain, fused in zip(*found, strict=True):
        torch.testing.assert_close(plain, fused, rtol=0.02, atol=0.02)


@CUDA
@pytest.mark.parametrize("how", ["captured", "compiled"])
def test_on_a_gpu_steps_of_all_ways_learn_alike_and_wait_for_nothing(how: str) -> None:
    found = []
    for way in ("plain", how):
        config = config_of({"launch": way, "device": "cuda"})
        torch.manual_seed(0)
        loss = Loss()
        network = Network(config.layers()).to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]
        said: list[str] = []
        step = Step(config, network, None, lambda loss=loss: loss, said.append)  # type: ignore[misc]
        batches = [(pixels.cuda(), labels.cuda()) for pixels, labels in (batch(config, k) for k in range(12))]
        network.set_zeros(0.5)
        losses = [step(*batches[k], 0.9) for k in range(6)]
        torch.cuda.set_sync_debug_mode("error")
        losses += [step(*batches[k], 0.9) for k in range(6, 12)]
        torch.cuda.set_sync_debug_mode("default")
        assert said == []
        found.append(torch.stack(losses).tolist())
    np.testing.assert_allclose(found[0], found[1], rtol=0.05)
