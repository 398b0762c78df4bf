"""The native sources, as csrc/sources.cmake lists them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "tests/native"
_LISTS = re.findall(r"^set\((\w+)\s([^)]*)\)", (ROOT / "csrc/sources.cmake").read_text(), re.MULTILINE)
LISTS = {name: tuple(ROOT / "csrc" / source for source in names.split()) for name, names in _LISTS}
"""Absolute paths by list: "shared_sources", "cpu_sources", …"""


def sources(*lists: str) -> list[str]:
    """Paths of all sources of these lists, for a compiler."""
    return [str(path) for name in lists for path in LISTS[name]]
