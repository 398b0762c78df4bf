"""How fast this machine is at a run, tried before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.train.config import Config
from engine.train.data import layouts
from engine.train.recipe import speed


@pytest.mark.parametrize("changes", [{}, {"resize": 64, "keep_aspect": True}], ids=["as they are", "resized"])
def test_a_run_is_tried_however_it_prepares_its_images(data: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    sample = layouts.samples(data)[0]
    found = speed.measure(Config(str(data), str(tmp_path / "run"), width=2, crop=32, batch=2, **changes), sample)
    assert min(found.samples, found.pixels, found.compared, found.proven) > 0
    assert not (tmp_path / "run").exists()
