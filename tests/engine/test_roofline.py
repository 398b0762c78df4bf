"""The roofline counts what it says it counts; how fast is never tested."""

from __future__ import annotations

import pytest

from engine import roofline
from engine._native import peak
from engine.runtime import available_kernels
from tests.models import random_model


def test_products_are_those_of_the_paper() -> None:
    """127.5 GMAC at 512 x 512 without zeros; here 32 x 32 and a sixteenth of the channels, so a 2^16th."""
    rows = roofline.layer_times(random_model(width=4, masked=(), zeros=0.0), "portable", 1, size=32, runs=1)
    assert sum(row.products for row in rows) * 2**16 == pytest.approx(127.5e9, rel=1e-2)


def test_every_layer_has_its_time() -> None:
    model = random_model(width=4)
    rows = roofline.layer_times(model, "auto", 2, size=20, runs=3)
    assert [row.layer for row in rows] == [*(layer.name for layer in model.layers), "all else"]
    assert all(row.ms > 0 for row in rows)
    table = roofline.report(rows, ceiling=1e12)
    shares = {row["layer"]: float(row["time"].rstrip("%")) for row in table}
    assert shares["convolutions"] + shares["not convolutions"] == pytest.approx(100, abs=0.2)


@pytest.mark.parametrize("kernel", available_kernels())
def test_every_kernel_has_a_ceiling(kernel: str) -> None:
    assert peak(kernel, 1, 2**12) > 0
