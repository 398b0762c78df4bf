"""What the package offers: its names, each with a docstring, and nothing imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import engine


@pytest.mark.parametrize("name", engine.__all__)
def test_every_name_is_there_and_says_what_it_is(name: str) -> None:
    assert getattr(engine, name).__doc__.strip()


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'nothing'"):
        engine.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys, engine; print(*{'numpy', 'safetensors', 'engine.runtime', 'engine._native'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
