"""Programs of several sources, compiled on all cores."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def build(command: Sequence[str], files: Sequence[Path | str], out: Path) -> None:
    """Compile every one of `files` by `command`, a compiler and its flags, to an object beside `out`; link them."""
    objects = [f"{out}-{number}.o" for number in range(len(files))]

    def compile_one(file: Path | str, to: str) -> None:
        subprocess.run([*command, "-c", "-o", to, str(file)], check=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, files, objects))
    subprocess.run([*command, "-o", str(out), *objects], check=True)
