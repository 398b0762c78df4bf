"""Compilers and emulators that not every machine has."""

from __future__ import annotations

import os
import shutil

import pytest


def require(what: str, variable: str, package: str, *tools: str) -> None:
    """Without one of `tools`, which `package` has, the test of `what` is skipped, or fails where `variable` is set."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if not missing:
        return
    why = f"{what}: not tested without {' and '.join(missing)} ({package})"
    if os.environ.get(variable):
        pytest.fail(why)
    pytest.skip(why)
