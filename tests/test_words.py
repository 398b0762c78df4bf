"""Words that are no longer used, in names: of modules, classes, functions, variables, flags, settings, metrics.

To retire a word, add it to RETIRED under the folder in whose names it must not occur any more (or under "interface":
flags, settings, metric names, their labels), with the word that stands there now. A word in small letters is a part of
a name, in any case and in the plural too ("wish" is found in `bad_wishes` and `WishList`); one with a capital letter is
a whole name ("Work" is not found in `Worker`). Prose is free: comments, docstrings, and texts with a space in them.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from service import cli
from service.settings import Settings
from service.telemetry.energy import Monitor
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[1]

SERVICE = {
    "wish": "SegmentParams",
    "Work": "SegmentParams",
    "Item": "QueueEntry",
    "Reply": "InferenceResult",
    "Answer": "SegmentResponse",
    "Bounds": "QueueLimits",
    "envelope": "access_log",
    "guard": "auth",
    "Newest": "LatestFrame",
    "departed": "cancelled",
    "Direct": "RawRoute",
    "studies": "train_commands",
    "inspection": "engine_commands",
}
TRAIN = {
    "crops": "samples",
    "soften": "annealing",
    "hardness": "annealing",
    "norms": "batch-norm re-estimation",
    "Integers": "QuantizedParams",
    "Pair": "Sample",
    "Scores": "Metrics",
    "colour": "color",
    "quantise": "quantize",
    "recognise": "recognize",
    "summarise": "summarize",
}
NATIVE = {
    "Bound": "ShapePlan",
    "Placement": "MemoryPlan",
    "Places": "DeviceLayout",
    "slot": "tensor",
    "signs": "ternary_weights",
    "upconv": "transposed_conv",
    "Spot": "VectorSegment",
    "Runs": "StridedRanges",
    "flip": "bit_xor",
    "everywhere": "broadcast_bit",
    "spread": "broadcast",
    "V": "Vec",
    "H": "HalfVec",
    "Form": "BitOp",
    "limits": "accumulator_start",
    "late": "thresholds",
    "Walk": "KSchedule",
    "unit": "chunk",
    "patch": "shared_tile",
    "ring": "stages",
    "Frame": "ImageParams",
    "Exchange": "Staging",
    "absent": "stub",
    "unstage": "copy_out",
}
RETIRED = {
    "csrc": NATIVE,
    "service": {**SERVICE, "patience": "retry_deadline"},
    "tests/service": SERVICE,
    "engine/train": TRAIN,
    "tests/engine/train": TRAIN,
    "interface": {
        **{"patience": "retry-deadline", "departed": "cancelled"},
        **{"crops": "samples", "repeat": "run-seed", "soften": "annealing", "floating": "full-precision"},
        **{"without": "ablate", "share": "validation"},
    },
}


def retired(name: str, words: dict[str, str]) -> list[str]:
    """What is wrong with a name: "Reply is now InferenceResult"."""
    parts = [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    forms = {name, *parts, *(part.removesuffix("s") for part in parts), *(part.removesuffix("es") for part in parts)}
    return [f"{name}: {word} is now {new}" for word, new in words.items() if word in forms]


def python_names(path: Path) -> Iterator[str]:
    """The module's name and all that it names; texts count where they are one word, as keys and labels are."""
    yield path.stem
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "asname"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield from value.split(".")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value


def cpp_names(path: Path) -> Iterator[str]:
    """The file's name and all identifiers outside comments and texts."""
    yield path.stem
    text = re.sub(r'//[^\n]*|/\*.*?\*/|"(\\.|[^"\\])*"', " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from re.findall(r"[A-Za-z_]\w*", text)


OLD_NAMES = (  # what earlier versions wrote is read
    *("engine/train/renamed.py", "tests/engine/train/test_renamed.py"),
    "tests/engine/train/test_pretrained.py",
)
READERS = {".py": python_names, ".cpp": cpp_names, ".hpp": cpp_names, ".inl": cpp_names, ".cu": cpp_names}


def flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every flag of every command that is shown: those of before, which only say what they are called now, are not."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from flags(command)
        elif action.help != argparse.SUPPRESS:
            yield from action.option_strings


class Meter:
    """One of every kind of series."""

    source = device = "x"
    total: tuple[str, ...] = ("x",)
    interval_s = 1.0

    def read(self, now: float) -> dict[str, float]:
        return {"x": now}


def interface() -> Iterator[str]:
    """Flags, settings, metric names and their labels."""
    yield from flags(cli.parser())
    yield from (field.name for field in fields(Settings))
    metrics = Metrics()
    monitor = Monitor(Meter(), lambda: 0, lambda: False)
    monitor.sample()
    metrics.show_energy(monitor, lambda: 0)
    for family in (*metrics.registry.collect(), *metrics.gauges.collect()):
        yield family.name
        yield from (label for sample in family.samples for label in sample.labels)
    for collector in vars(metrics).values():
        yield from getattr(collector, "_labelnames", ())


def names(where: str) -> Iterator[tuple[str, str]]:
    """(place, name) of everything that has one there."""
    if where == "interface":
        yield from (("interface", name) for name in interface())
        return
    for path in sorted((ROOT / where).rglob("*")):
        place = path.relative_to(ROOT).as_posix()
        if path.suffix in READERS and place not in OLD_NAMES:
            yield from ((place, name) for name in READERS[path.suffix](path))


@pytest.mark.parametrize("where", RETIRED)
def test_no_retired_word_is_in_a_name(where: str) -> None:
    seen = {(place, name) for place, name in names(where)}
    assert len(seen) > 50
    found = sorted(f"{place}: {wrong}" for place, name in seen for wrong in retired(name, RETIRED[where]))
    assert not found, "\n".join(found)


def test_words_are_found_as_parts_and_as_wholes() -> None:
    words = {"wish": "params", "Work": "params"}
    for name in ("wish", "bad_wishes", "WishList", "--a-wish", "WISH_S", "HTTPWish", "Work"):
        assert retired(name, words), name
    for name in ("wishful", "Worker", "work", "swish"):
        assert not retired(name, words), name


def test_names_in_code_are_seen_and_prose_is_not(tmp_path: Path) -> None:
    python = tmp_path / "envelope.py"
    lines = ('"""A wish."""', "import a.guard as b", 'def f(patience=1): x.departed = {"studies": "a wish"}  # wish')
    python.write_text("\n".join(lines))
    assert {"envelope", "guard", "patience", "departed", "studies"} <= set(python_names(python))
    assert not any("wish" in name for name in python_names(python))
    native = tmp_path / "spots.hpp"
    native.write_text('// wish\nint flip(Spot spot); /* wish\n */ const char* text = "wish";\n')
    assert {"spots", "flip", "Spot", "spot"} <= set(cpp_names(native))
    assert "wish" not in set(cpp_names(native))


def test_the_interface_is_seen() -> None:
    found = set(interface())
    assert {"--model", "--masked", "drain_ms", "mbunet_requests", "outcome", "mbunet_idle_watts", "boundary"} <= found
    assert "--patience" not in found
