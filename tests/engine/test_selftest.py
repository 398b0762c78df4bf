"""Golden files: what torch computed at export comes out of every backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import selftest
from engine.runtime import MODELS, EngineError

KERNELS = selftest.available()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("golden", sorted(selftest.GOLDEN.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_backend_replays(golden: Path, kernel: str) -> None:
    row = selftest.replay(golden, kernel)
    assert row["wrong"] == 0
    assert row["ok"]
    assert row["logits"] > 10_000


def test_every_shipped_model_has_its_golden_file() -> None:
    models = {path.name for path in MODELS.glob("*.safetensors")}
    assert models == {path.name for path in selftest.GOLDEN.glob("*.safetensors")}
    assert models


def test_a_wrong_logit_is_counted(tmp_path: Path) -> None:
    golden = sorted(selftest.GOLDEN.glob("*.safetensors"))[0]
    pairs = selftest.read_golden(golden)
    pairs[0][1][3, 4, 0] += 1
    selftest.write_golden(tmp_path / golden.name, pairs)
    row = selftest.replay(tmp_path / golden.name, "auto")
    assert (row["wrong"], row["ok"]) == (1, False)


def test_no_golden_files_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "GOLDEN", tmp_path)
    with pytest.raises(EngineError, match="no golden files"):
        selftest.run()
