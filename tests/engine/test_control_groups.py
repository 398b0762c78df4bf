"""Limits of a container, wherever they are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import control_groups


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/pod/me\n", {"pod/me/memory.max": "max", "pod/memory.max": "2147483648"}, [[2**31]]),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "1000"}, [[1000]]),
        ("0::/\n", {}, []),
    ],
    ids=["version 2", "version 1", "none"],
)
def test_the_limits_of_control_groups_are_found(
    tmp_path: Path, own: str, files: dict[str, str], expected: list[list[int]]
) -> None:
    (tmp_path / "cgroup").write_text(own)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    files_of = ("memory", ("memory.limit_in_bytes",), "memory.max")
    assert control_groups.limits(*files_of, tmp_path / "cgroup", tmp_path) == expected
