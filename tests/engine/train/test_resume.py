"""Which settings may be written otherwise when a command is given again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.train import resume


@pytest.mark.parametrize(
    ("there", "here", "unlike"),
    [
        ({"data": "data", "out": "x"}, {"data": "./data/", "out": "y"}, []),
        ({"data": "data", "out": "x"}, {"data": "x/../data", "out": "x"}, []),
        ({"data": "data", "out": "x"}, {"data": "other", "out": "x"}, ["data"]),
        ({"init": "", "out": "x"}, {"init": ".", "out": "x"}, ["init"]),
        ({"out": "x"}, {"teacher": ".", "out": "x"}, ["teacher"]),
        ({"validation": 0.2, "out": "x"}, {"validation": "0.2", "out": "x"}, ["validation"]),
        (
            {"teacher": "a/x/full-precision/checkpoint.pt", "out": "a/x/bits"},
            {"teacher": "b/y/full-precision/checkpoint.pt", "out": "b/y/bits"},
            [],
        ),
        (
            {"teacher": "a/x/full-precision/checkpoint.pt", "out": "a/x/bits"},
            {"teacher": "a/x/full-precision/checkpoint.pt", "out": "b/y/bits"},
            [],
        ),
        ({"init": "a/x/one.pt", "out": "a/x/bits"}, {"init": "b/y/two.pt", "out": "b/y/bits"}, ["init"]),
        ({"group": "a/../b", "out": "x"}, {"group": "b", "out": "x"}, ["group"]),
    ],
)
def test_paths_are_compared_by_where_they_lead(
    there: dict[str, Any], here: dict[str, Any], unlike: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resume.differing(there, here, ["out"]) == unlike
