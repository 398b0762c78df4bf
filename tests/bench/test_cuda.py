"""The GPU's benchmark as far as it goes without a GPU: what it compares, counts and prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine import _native, roofline
from engine.networks import unet
from tests.bench import cuda
from tests.engine.backends.test_registry import StandIn
from tests.models import random_model


class Timed(StandIn):
    """A session that says how long its steps take, and counts how often it has run them all."""

    runs = 0

    def seconds(self, begin: int, end: int, repeats: int, launches: int = 1) -> float:
        Timed.runs += repeats * (1 + launches)
        return 1e-3 * (end - begin)

    def peak(self) -> float:
        return 1e12


@contextmanager
def counter(bus: str) -> Iterator[object]:
    """A joule for every run of the network, whoever asked for it."""
    yield lambda: float(Timed.runs)


def test_it_measures_prints_and_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu = SimpleNamespace(name="A GPU", capability=90, memory=1, bus="0000:01:00.0")
    monkeypatch.setattr(_native, "gpus", lambda: [gpu])
    monkeypatch.setattr(_native, "CudaSession", Timed)
    monkeypatch.setattr(cuda, "nvml_counter", counter)
    cuda.main("cuda", 3, 32, batches=(2,), formats=(), out=tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["mbunet, binary", "mbunet, cost-aware", "mbunet, masked"]
    row = found["rows"][0]
    assert row["device_s"] == pytest.approx(1e-3 * len(unet.layers(3)))
    assert row["image_joules"] == pytest.approx(1 / 2)
    assert row["call_s"] > 0
    by_name = {layer["layer"]: layer for layer in found["layers"]}
    assert by_name["in.conv2"]["of peak"] == pytest.approx(8 * 2 * 2 * 9 * 3 * 3 * 32 * 32 / 1e-3 / 1e12)
    assert by_name["down1.pool"]["of peak"] is None
    assert "mbunet, cost-aware" in capsys.readouterr().out


def test_the_work_of_the_paper_s_network() -> None:
    """127.5 G multiplications and additions in the layers of bits at 512 x 512."""
    model = random_model(16, masked=())
    work = dict(zip((layer.name for layer in model.layers), roofline.operations(model, 512), strict=True))
    work["in.conv2"] /= 2  # always masked
    assert sum(work.values()) / 2 == pytest.approx(127.5e9 / 4**2, rel=0.005)


def test_the_cost_aware_network_masks_the_cheaper_half() -> None:
    assert set(cuda.masks(64, 512)["cost-aware"]) == {"CT1", "CT2", "CT3", "CT4", "Up3", "Down1"}
