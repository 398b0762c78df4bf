"""index.csv: by the name of each image what the split holds an equal share of, what stays together, its part, and which
index of its mask names no class."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.images import SUFFIXES
from engine.train.data.dataset import PARTS, Fault

NAME = "name"
TOLD = "modality", "unit", "part", "void"
"""Its other columns, in the order of an Entry's fields."""

MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}  # byte order marks, as by Excel
SHOWN = 3  # names that a fault lists


@dataclass(frozen=True)
class Entry:
    """What the index says of an image: its stratum, split group (a patient, a slide), part and void index, or ""."""

    stratum: str = ""
    split_group: str = ""
    part: str = ""
    void: str = ""


def read(path: Path, names: Collection[str]) -> tuple[dict[str, Entry], list[Fault]]:
    """({name: entry}, faults) of an index of the images `names`; of none where it is absent.

    Commas, semicolons and tabs separate; the encoding is that of its byte order mark, or UTF-8, or Windows'.
    """
    if not path.is_file():
        return {}, []
    lines = _text(path).splitlines()
    head = lines[0] if lines else ""
    try:
        table = list(csv.DictReader(lines, delimiter=max(",;\t", key=head.count)))
    except csv.Error as error:
        return {}, [Fault(path, f"is passed over: {error}", stops=False)]
    rows = [{(key or "").strip().lower(): value for key, value in row.items()} for row in table]
    if not rows or NAME not in rows[0]:
        return {}, [_unnamed(path, rows)]
    told = [(_name(row[NAME]), Entry(*(_cell(row.get(head)) for head in TOLD))) for row in rows]
    entries = dict(told)
    twice = sorted({name for name, entry in told if entry != entries[name]})
    strange = sorted(entries.keys() - set(names))
    shown = ", ".join(strange[:SHOWN]) + (" and so on" if len(strange) > SHOWN else "")
    faults = [Fault(path, f"says different things of {name} in two lines") for name in twice]
    faults += [Fault(path, f"names {len(strange)} images that are not there: {shown}", stops=False)] * bool(strange)
    parts = {entry.part for entry in entries.values()} - {"", *PARTS}
    faults += [Fault(path, f"has no part {part!r}: {', '.join(PARTS)}") for part in sorted(parts)]
    voids = {entry.void for entry in entries.values()} - {"", *map(str, range(256))}
    faults += [Fault(path, f"has no void index {void!r}: 0 to 255") for void in sorted(voids)]
    return entries, faults


def _unnamed(path: Path, rows: Sequence[Mapping[str, object]]) -> Fault:
    """What is wrong with an index without names: all, where it says something of samples; else it is of another use."""
    own = [head for head in TOLD if rows and head in rows[0]]
    if own:
        return Fault(path, f"has the column {own[0]}, but no column {NAME} that says of which image")
    return Fault(path, f"is passed over: it has no column {NAME}", stops=False)


def _text(path: Path) -> str:
    data = path.read_bytes()
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _name(cell: object) -> str:
    """A name as files have it: without a suffix of images."""
    name = unicodedata.normalize("NFC", _cell(cell))
    return Path(name).stem if Path(name).suffix.lower() in SUFFIXES else name


def _cell(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
