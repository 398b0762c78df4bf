"""What the tests of model files have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import format
from tests.models import random_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A valid model file with odd channel counts (padding bits), binary and masked layers."""
    format.save(random_model(width=3, masked=("Down1", "CT2", "Up4")), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"
