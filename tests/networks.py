"""`make test-networks`: random networks without end, every CPU kernel of this machine against the reference.

`python -m tests.networks --seeds 0 20000`; a seed that fails is printed and can be run alone.
"""

from __future__ import annotations

import argparse
import itertools
import sys

import numpy as np

from engine.backends import reference
from engine.backends.cpu import CpuBackend, available_kernels
from engine.plan import compile_plan
from tests.cases import Case, random_case, same


def differs(case: Case) -> list[str]:
    """Kernels that do not give the reference's logits and masks for `case`, with poisoned memory and threads."""
    expected, plan, wrong = case.expected(), compile_plan(case.model), []
    decided = [reference.decide(logits, 0) for logits in expected]
    for kernel, threads in itertools.product(available_kernels(), (1, 2)):
        backend = CpuBackend(plan, kernel, threads)
        for poison in (0x00, 0xFF):
            backend.session.poison(poison)
            masks, logits = backend.run(case.images, [0] * len(case.sizes), want_logits=True)
            right = all(np.array_equal(a, b) for a, b in zip(masks, decided, strict=True))
            if not (right and same(logits, expected)):
                wrong.append(f"{kernel}, {threads} threads, memory {poison:#x}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20_000), metavar=("FIRST", "END"))
    first, end = parser.parse_args().seeds
    failures = 0
    for seed in range(first, end):
        for line in differs(random_case(seed)):
            failures += 1
            print(f"seed {seed}: {line}", flush=True)
    print(f"seeds {first} to {end - 1} on {', '.join(available_kernels())}: {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
