"""The resident low-bit engine: models whose activations are one or two bits, the same bits on every backend.

    from engine import Engine

    with Engine.load("nuclei-small") as engine:
        masks, timings = engine.run([image])  # uint8 [h, w, 3] in, uint8 [h, w] out

What stands here is imported when it is first asked for: the parts of the package do not need one another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.backends.base import EngineError
    from engine.format import load, save
    from engine.model import ClassInfo, Model, ModelFileError, Preprocessing
    from engine.runtime import Engine, Timings
else:
    _HOMES = {
        "engine.backends.base": ("EngineError",),
        "engine.format": ("load", "save"),
        "engine.model": ("ClassInfo", "Model", "ModelFileError", "Preprocessing"),
        "engine.runtime": ("Engine", "Timings"),
    }

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(home), name)
        raise AttributeError(f"module 'engine' has no attribute {name!r}")


__all__ = [
    "ClassInfo",
    "Engine",
    "EngineError",
    "Model",
    "ModelFileError",
    "Preprocessing",
    "Timings",
    "load",
    "save",
]
