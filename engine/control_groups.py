"""The control groups of this process, by which containers have their limits: those of Linux, of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

OWN, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def limits(controller: str, first: tuple[str, ...], second: str, own: Path = OWN, root: Path = ROOT) -> list[list[int]]:
    """What limits this process's group and those above it, but for those without a limit.

    `first` are the files of `controller` in version 1, of one number each; `second` is that of version 2.
    """
    found = []
    for folder, names in _folders(controller, first, second, own, root):
        words = [word for name in names if (folder / name).exists() for word in (folder / name).read_text().split()]
        if words and all(word.isdecimal() for word in words):
            found.append([int(word) for word in words])
    return found


def _folders(
    controller: str, first: tuple[str, ...], second: str, own: Path, root: Path
) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Every group's folder, and the names of the files that tell its limit."""
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top, names = (root / controller, first) if controllers else (root, (second,))
        folder = top / path.lstrip("/")
        yield from ((place, names) for place in (folder, *folder.parents) if place.is_relative_to(top))
