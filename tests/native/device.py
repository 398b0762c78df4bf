"""`python -m tests.native.device look|cases`: the engine on the device named by DEVICE, for tests/gpu.sh.

"look" says what it is; "cases" runs small cases, each as a batch, one by one and again, and compares with the
reference: without pytest, so that little else runs under compute-sanitizer.
"""

from __future__ import annotations

import os
import sys

from engine.backends import registry
from engine.runtime import Engine
from tests.cases import CASES, same

SMALL = ("mixed", "five channels", "sixteen channels, 90 % zeros", "three classes", "one pixel", "batch of three")


def look(device: str) -> int:
    """Print the GPUs, and every layer's kernel of a shipped model."""
    for gpu in registry.gpus():
        print(f"{gpu.name}, compute capability {gpu.capability / 10}, {gpu.memory / 2**30:.1f} GiB, at {gpu.bus}")
    with Engine.load("nuclei-small", device=device) as engine:
        for row in engine.describe():
            print(f"{row['layer']:<14}{row['kernel']}: {row['why']}")
    return 0


def cases(device: str) -> int:
    """Returns how many cases differ from the reference."""
    wrong = 0
    for case in (case for case in CASES if case.name in SMALL):
        with Engine.load(case.model, device=device) as engine:
            twice = [[engine.logits(image) for image in case.images] for _ in range(2)]
            batched, single = engine.run(case.images)[0], [engine.run([image])[0][0] for image in case.images]
        right = all(same(logits, case.expected()) for logits in twice)
        right &= all((a == b).all() for a, b in zip(batched, single, strict=True))
        print(f"{case.name}: {'ok' if right else 'DIFFERS'}")
        wrong += not right
    return wrong


if __name__ == "__main__":
    sys.exit({"look": look, "cases": cases}[sys.argv[1]](os.environ["DEVICE"]))
