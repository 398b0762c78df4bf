"""The model file: placeholder until the reader lands."""

from __future__ import annotations

from dataclasses import dataclass

IMAGE = "image"


@dataclass(frozen=True)
class Layer:
    name: str
    op: str
    inputs: tuple[str, ...]
    channels: int
    weights: str = ""
    block: str = ""
    planes: int = 1
    encoding: str = "sign"
