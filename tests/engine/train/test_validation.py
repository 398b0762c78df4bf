"""What a network in training is looked at by: our kernels where they can, with the masks that torch gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.runtime import Engine
from engine.train import families, validation
from engine.train.config import Config
from engine.train.network_engine import NetworkEngine
from engine.train.trainer import Trainer

HOW: dict[str, dict[str, Any]] = {
    "one bit": {},
    "two bits, resized": {"activation_bits": 2, "resize": 32, "keep_aspect": True},
    "classes": {"classes": ("ground", "disc")},
    **{family: {"family": family} for family in families.ACTIVATION_BITS},
}


@pytest.mark.parametrize("how", HOW)
def test_bits_are_looked_at_by_kernels_before_they_have_settled_too(how: str, data: Path, tmp_path: Path) -> None:
    config = Config(str(data), str(tmp_path), width=3, samples=12, batch=2, crop=32, device="cpu", **HOW[how])
    run = Trainer(config, quiet=True)
    for pixels, labels in run.batches.now(range(3)):
        run._train(pixels, labels, 0.4)
    run.network.set_zeros(0.5)
    with validation.engine_of(run.network, config) as engine:
        by_torch = NetworkEngine(run.network, config)
        assert isinstance(engine, Engine)
        assert engine.device == "cpu"
        for sample in run.validation:
            image, _ = sample.load(len(config.classes))
            np.testing.assert_array_equal(engine.run([image])[0][0], by_torch.run([image])[0][0])
    assert validation.validate(run.network, run.validation, config).images == len(run.validation)


@pytest.mark.parametrize("changes", [{"full_precision": True}, {"weights": ("int8",)}], ids=["full precision", "int8"])
def test_what_no_kernel_runs_is_looked_at_by_torch(changes: dict[str, Any], data: Path, tmp_path: Path) -> None:
    config = Config(str(data), str(tmp_path), width=3, samples=2, batch=2, crop=32, device="cpu", **changes)
    run = Trainer(config, quiet=True)
    engine = validation.engine_of(run.network, config)
    assert isinstance(engine, NetworkEngine)
    assert not run.network.training
    assert validation.validate(run.network, run.validation, config).images == len(run.validation)
