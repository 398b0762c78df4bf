"""Model files changed behind the back of `format.save`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

Description = dict[str, Any]
Tensors = dict[str, NDArray[Any]]


def read(path: Path) -> tuple[Description, Tensors]:
    """The description and the tensors of the file at `path`."""
    with safe_open(path, framework="numpy") as file:
        description = json.loads(file.metadata()["mbunet"])
    return description, {name: array.copy() for name, array in load_file(path).items()}


def rewrite(path: Path, edit: Callable[[Description, Tensors], object]) -> None:
    """Change the file at `path` and save it again as it is."""
    description, tensors = read(path)
    edit(description, tensors)
    save_file(tensors, path, metadata={"mbunet": json.dumps(description)})


def layer(description: Description, name: str) -> Description:
    return next(item for item in description["layers"] if item["name"] == name)
