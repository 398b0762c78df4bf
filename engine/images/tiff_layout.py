"""Which page of a TIFF file shows which channel of which plane: as OME, ImageJ or tifffile's own notes say."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

MAX_TEXT = 4 * 2**20  # bytes of a description that is looked into
PLANES = 2**17  # of all pages and channels
IMAGEJ_ORDER = "CZT"  # the first changes fastest


@dataclass(frozen=True)
class Layout:
    """`where[page][channel]` is the number of a directory, or None for one that is not in this file.

    `shared` means that all of them are stored behind each other in the first directory (large ImageJ stacks).
    """

    where: Sequence[Sequence[int | None]]
    shared: bool = False

    @property
    def first(self) -> int:
        """The directory of the first plane that is in this file."""
        return 0 if self.shared else next((n for row in self.where for n in row if n is not None), 0)

    @property
    def pages(self) -> int:
        return len(self.where)

    @property
    def channels(self) -> int:
        return len(self.where[0])


def plain(directories: int) -> Layout:
    """Every directory is a page."""
    return Layout([[i] for i in range(directories)])


def read(description: str, directories: int) -> Layout:
    """The layout that the first page's description tells; the plain one where it tells none, or nonsense."""
    if len(description) > MAX_TEXT:
        return plain(directories)
    try:
        if description.startswith("ImageJ="):
            return _imagej(description, directories)
        if description.startswith("{") and '"shape"' in description:
            return _shaped(description, directories)
        if description.rstrip().endswith("OME>"):
            return _ome(description, directories)
    except (ValueError, KeyError, TypeError, ElementTree.ParseError, RecursionError):
        pass
    return plain(directories)


def _imagej(description: str, directories: int) -> Layout:
    found = dict(re.findall(r"^(images|channels|slices|frames)=(\d{1,9})\s*$", description, re.MULTILINE))
    counts = {axis: int(found.get(name, 1)) for axis, name in zip("CZT", ("channels", "slices", "frames"), strict=True)}
    total = math.prod(counts.values())
    if int(found.get("images", total)) != total:
        return plain(directories)
    if directories == 1 and total > 1:
        return Layout(_grid(counts, IMAGEJ_ORDER, total), shared=True)
    return Layout(_grid(counts, IMAGEJ_ORDER, directories))


def _shaped(description: str, directories: int) -> Layout:
    """The notes of tifffile: a shape and its axes, the last of which change fastest."""
    notes = json.loads(description)
    shape, axes = notes["shape"], notes["axes"]
    leading = [(axis, size) for axis, size in zip(axes, shape, strict=True) if axis not in "YXS"]
    counts = {axis: int(size) for axis, size in leading}
    order = "".join(axis for axis, _ in reversed(leading))
    return Layout(_grid(counts, order, directories))


def _ome(description: str, directories: int) -> Layout:
    """The first image of OME-XML. Planes without TiffData follow each other in the order of dimensions."""
    root = ElementTree.fromstring(description)
    pixels = next((element for element in root.iter() if _name(element) == "Pixels"), None)
    if pixels is None:
        raise ValueError("OME-XML without an image")
    samples = next((int(e.get("SamplesPerPixel", "1")) for e in pixels if _name(e) == "Channel"), 1)
    counts = {axis: int(pixels.attrib[f"Size{axis}"]) for axis in "CZT"}
    counts["C"] = max(1, counts["C"] // samples)
    order = "".join(axis for axis in pixels.attrib["DimensionOrder"] if axis in "CZT")
    grid = _grid(counts, order, None)
    pieces = [element for element in pixels if _name(element) == "TiffData"]
    if not any("IFD" in piece.attrib or len(piece) for piece in pieces):
        return Layout(_grid(counts, order, directories))
    placed: dict[int, int | None] = {}
    steps = {axis: math.prod(counts[before] for before in order[:i]) for i, axis in enumerate(order)}
    own = root.get("UUID")
    named = 0
    for piece in pieces:
        first = sum(int(piece.get(f"First{axis}", "0")) * steps[axis] for axis in order)
        directory = int(piece.get("IFD", "0"))
        count = int(piece.get("PlaneCount", "1" if "IFD" in piece.attrib else str(directories)))
        other = next((e.text for e in piece if _name(e) == "UUID"), own)
        named += min(count, directories)
        if named > PLANES:
            raise ValueError("planes are placed again and again")
        for k in range(min(count, directories)):
            there = own is None or other == own
            placed[first + k] = directory + k if there and directory + k < directories else None
    return Layout([[placed.get(plane) if plane is not None else None for plane in row] for row in grid])


def _grid(counts: dict[str, int], order: str, directories: int | None) -> list[list[int | None]]:
    """[page][channel] of plane numbers, where planes run through `order`; raises ValueError for too many."""
    if min(counts.values(), default=1) < 1 or sorted(order) != sorted(counts):
        raise ValueError("no such dimensions")
    total = 1
    for count in counts.values():
        total = min(total * min(count, PLANES + 1), PLANES + 1)
    if total > PLANES or (directories is not None and total != directories):
        raise ValueError("the planes are not those of the file")
    channels = counts.get("C", 1)
    channel_step = math.prod(counts[axis] for axis in order[: order.index("C")]) if "C" in counts else total
    rows: list[list[int | None]] = []
    for first in range(total):
        if first // channel_step % channels == 0 or "C" not in counts:
            rows.append([first + c * channel_step for c in range(channels)])
    return rows


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
