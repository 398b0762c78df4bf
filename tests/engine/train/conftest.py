"""A folder of images and masks small enough to learn from in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.train import threads

torch.set_num_threads(1)  # the networks are tiny


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of floats depend on how many share them."""
    monkeypatch.setattr(threads, "choose", lambda: 1)


SIZES = ((40, 48), (33, 37), (64, 40))  # (h, w)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images of bright discs on a dark, noisy ground with their masks, in three sizes and two groups."""
    folder = tmp_path / "discs"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["name,modality"]
    for k in range(12):
        height, width = SIZES[k % len(SIZES)]
        y, x = np.ogrid[:height, :width]
        disc = (y - rng.integers(8, height - 8)) ** 2 + (x - rng.integers(8, width - 8)) ** 2 < rng.integers(25, 120)
        image = np.where(disc, 180, 50)[..., None] + rng.integers(-20, 21, (height, width, 3))
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"disc{k:02}.png")
        Image.fromarray(disc).save(folder / "masks" / f"disc{k:02}.png")
        lines.append(f"disc{k:02},{'even' if k % 2 == 0 else 'odd'}")
    (folder / "index.csv").write_text("\n".join(lines) + "\n")
    return folder
