"""What tests of a GPU ask of Python, without one: the whole native module on the fake runtime and emulated kernels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import modules
from tests.native import cuda

TESTS = ("tests/engine/backends/test_gpu.py", "tests/engine/test_runtime.py")
NOT = ("at_the_same_time", "batch_of_64")  # the emulation has one thread, and takes a minute for these images


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cuda.build_module(cuda.require("the native module on a GPU"), tmp_path_factory.mktemp("module"))


def test_a_gpu_s_tests_pass_in_emulation(module: Path) -> None:
    chosen = f"(gpu or cuda or auto) and not {' and not '.join(NOT)}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.native.emulated_gpu", *TESTS]
    environment = os.environ | {"MBUNET_EMULATED_GPU": str(module)}
    ran = subprocess.run([*command, "-k", chosen], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " skipped" not in ran.stdout, ran.stdout


def test_modules_are_compared_in_turns(module: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = [modules.Module(module, 0, 2, 16, 1) for _ in range(2)]
    found = modules.turns(two, "masked", 1, rounds=2, layers=True)
    assert [len(own) for own in found] == [2, 2]
    found[1][1]["masks"] += 1
    modules.print_cell("masked", 1, two, found)
    for one in two:
        one.close()
    lines = capsys.readouterr().out.splitlines()
    assert ["MASKS DIFFER" in line for line in lines[:2]] == [False, True]
    assert [line.split()[0] for line in lines[2:]] == list(found[0][0]["layers"])
    assert lines[2].split()[0] == "in.conv1"
