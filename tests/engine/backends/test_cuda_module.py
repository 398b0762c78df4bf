"""What tests of a GPU ask of Python, without one: the whole native module on the fake runtime and emulated kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.native import cuda

TESTS = ("tests/engine/backends/test_gpu.py", "tests/engine/test_runtime.py")
NOT = ("at_the_same_time", "batch_of_64")  # the emulation has one thread, and takes a minute for these images


def test_a_gpu_s_tests_pass_in_emulation(tmp_path: Path) -> None:
    module = cuda.build_module(cuda.require("the native module on a GPU"), tmp_path)
    chosen = f"(gpu or cuda or auto) and not {' and not '.join(NOT)}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.native.emulated_gpu", *TESTS]
    environment = os.environ | {"MBUNET_EMULATED_GPU": str(module)}
    ran = subprocess.run([*command, "-k", chosen], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " skipped" not in ran.stdout, ran.stdout
