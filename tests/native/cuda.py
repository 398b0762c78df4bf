"""What tests of the CUDA engine build: the session on a fake runtime, and the kernels' machine code."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.native.sources import LISTS, ROOT, sources

NATIVE = ROOT / "tests/native"
(KERNELS,) = LISTS["cuda_kernels"]


def require(what: str) -> Path:
    """The folder of CUDA's headers; without nvcc the test is skipped, or fails where MBUNET_REQUIRE_NVCC is set."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        why = f"{what} is not tested without CUDA's compiler, nvcc"
        if os.environ.get("MBUNET_REQUIRE_NVCC"):
            pytest.fail(why)
        pytest.skip(why)
    said = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-c", "/dev/null"], capture_output=True, text=True, check=True)
    (top,) = (line.partition("TOP=")[2] for line in said.stderr.splitlines() if "TOP=" in line)
    return Path(top) / "include"


def build_launcher(out: Path) -> Path:
    """Compile tests/native/cuda_launcher.cpp with the kernels by nvcc, for one architecture, to `out`."""
    files = [str(KERNELS), str(KERNELS.with_name("layer.cpp")), str(NATIVE / "cuda_launcher.cpp")]
    wraps = [f"-Xlinker=--wrap={name}" for name in ("cudaLaunchKernel", "cudaFuncSetAttribute")]
    subprocess.run(["nvcc", "-std=c++20", "-arch=sm_80", *wraps, "-o", str(out), *files], check=True)
    return out


def build_session(headers: Path, out: Path) -> Path:
    """Compile tests/native/cuda_session.cpp with the session, the fake runtime and the emulated kernels to `out`."""
    flags = ["-std=c++20", "-O2", "-march=native", "-pthread", "-U_FORTIFY_SOURCE", "-Wall", "-Wextra", "-Werror"]
    flags += [f"-I{NATIVE}", f"-isystem{headers}"]
    own = [str(NATIVE / f"{name}.cpp") for name in ("fake_cudart", "cuda_session", "emulated_launch")]
    subprocess.run(["g++", *flags, "-o", str(out), *sources("shared_sources", "cuda_sources"), *own], check=True)
    return out
