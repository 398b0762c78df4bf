"""Changed model files, a few of every kind; `make test-mutations` makes thousands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import mutations


@pytest.mark.parametrize("family", mutations.FAMILIES)
def test_a_changed_file_is_refused_or_works(family: str, tmp_path: Path) -> None:
    data, path = mutations.file_of(family, tmp_path), tmp_path / "changed.safetensors"
    found = []
    for seed in range(40):
        mutations.mutate(data, seed, path)
        found.append(mutations.works(path))
    assert 0 < sum(found) < len(found)
