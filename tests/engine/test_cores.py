"""Cores that a container's share of time leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine import cores


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {}, 64),
        ("0::/", {"cpu.max": "max 100000"}, 64),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/a", {"a/cpu.max": "10000000 100000"}, 64),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, 64),
        ("5:cpuset:/a\n6:memory:/a", {"cpu/a/cpu.cfs_quota_us": "100000"}, 64),
    ],
)
def test_a_control_group_s_share_bounds_the_cores(
    own: str, files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    (tmp_path / "own").write_text(own + "\n")
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text + "\n")
    assert cores.available(tmp_path / "own", tmp_path / "groups") == expected


def test_without_control_groups_it_is_what_a_process_may_run_on(tmp_path: Path) -> None:
    assert cores.available(tmp_path / "none") == len(os.sched_getaffinity(0))
