"""`make sanitize`: every case under the address, undefined-behaviour and thread sanitizers.

`--portable` compiles and replays the portable kernels alone, which takes a fraction of the time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from engine.runtime import available_kernels
from tests.cases import CASES, Case, same
from tests.native.replay import build, replay

SANITIZERS = ("address,undefined", "thread")
REPLAYED = [case for case in CASES if case.name != "batch of mixed shapes"]  # a replayed case has one padded shape
REPLAYED.append(Case("images side by side, one left over", ((384, 384),) * 7))


def main() -> int:
    """Build, replay, compare; returns 1 where a bit differs, and fails where a sanitizer complains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portable", action="store_true", help="the portable kernels alone")
    portable = parser.parse_args().portable
    kernels = ["portable"] if portable else available_kernels()
    machine = "" if portable else "aarch64" if "neon" in kernels else "x86_64"
    wrong = 0
    for sanitizer in SANITIZERS:
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "replay"
            flags = ["-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
            build("g++", machine, program, [*flags, "-O1"] if portable else flags)
            for kernel in kernels:
                results = replay([str(program)], kernel, 3, REPLAYED)
                differ = [
                    case.name for case, got in zip(REPLAYED, results, strict=True) if not same(got, case.expected())
                ]
                print(f"{sanitizer}, {kernel}: {len(REPLAYED)} cases, {len(differ)} differ {differ}")
                wrong += len(differ)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
