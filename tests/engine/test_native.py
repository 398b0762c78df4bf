"""The stub of the native module says what the module itself does: names, parameters, types, results."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import _native

STUB = Path(__file__).parents[2] / "engine" / "_native.pyi"
SPELLED = [  # as nanobind writes it, as the stub does
    (r"(?:numpy\.)?ndarray\[dtype=(\w+)[^\]]*\]", r"NDArray[np.\1]"),
    (r"collections\.abc\.|engine\._native\.", ""),
]


def in_stub(classes: dict[str, ast.ClassDef], body: list[ast.stmt], place: str = "") -> Iterator[tuple[str, str]]:
    """(name, signature) of every function; a property is one that takes nothing. Bases are taken in."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, "class"
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in classes:
                    yield from in_stub(classes, classes[base.id].body, f"{node.name}.")
            yield from in_stub(classes, node.body, f"{node.name}.")
        if isinstance(node, ast.FunctionDef):
            yield f"{place}{node.name}", f"({ast.unparse(node.args)}) -> {ast.unparse(node.returns or node)}"


def in_module(space: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """The same of what has been built."""
    for name, value in vars(space).items():
        value = getattr(value, "fget", value)
        if name == "__new__":  # of a class that a function makes; its __init__ tells the same
            continue
        if hasattr(value, "__nb_signature__"):
            signature, _, defaults = value.__nb_signature__[0]
            for number, default in enumerate(defaults or ()):
                signature = signature.replace(f" = \\{number}", f"={default!r}")
            for pattern, replacement in SPELLED:
                signature = re.sub(pattern, replacement, signature)
            yield f"{place}{name}", signature.removeprefix("def ").removeprefix(name)
        elif isinstance(value, type):
            yield name, "class"
            yield from in_module(value, f"{name}.")


def test_the_stub_is_what_has_been_built() -> None:
    tree = ast.parse(STUB.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    said, built = dict(in_stub(classes, tree.body)), dict(in_module(_native))
    assert len(built) > 30
    assert said == built
