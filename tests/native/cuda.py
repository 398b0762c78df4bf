"""What tests of the CUDA engine build: the kernels in emulation, the session on a fake runtime, the launcher."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.native import compiling, tools
from tests.native.sources import LISTS, NATIVE, sources

(KERNELS,) = LISTS["cuda_kernels"]
LAYER = sources("cuda_layer_sources")
"""What prepares steps for the kernels."""
FLAGS = (
    *("-std=c++20", "-O2", "-march=native", "-pthread", "-U_FORTIFY_SOURCE", f"-I{NATIVE}"),
    *("-Wall", "-Wextra", "-Werror"),
)


def require(what: str) -> Path:
    """The folder of CUDA's headers; without nvcc the test is skipped, or fails where MBUNET_REQUIRE_NVCC is set."""
    tools.require(what, "MBUNET_REQUIRE_NVCC", "CUDA's compiler", "nvcc")
    return toolkit() / "include"


def toolkit() -> Path:
    """The folder of nvcc's toolkit."""
    command = ["nvcc", "--dryrun", "-x", "cu", "-c", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    (top,) = (line.partition("TOP=")[2] for line in said.stderr.splitlines() if "TOP=" in line)
    return Path(top).resolve()


def build_emulation(out: Path, *files: Path | str, headers: Path | None = None) -> Path:
    """Compile host code, the kernels' own source in emulation among it, to `out`; `headers` are the toolkit's."""
    compiling.build(["g++", *FLAGS, *([f"-isystem{headers}"] if headers else [])], files, out)
    return out


def build_launcher(out: Path) -> Path:
    """Compile tests/native/cuda_launcher.cpp with the kernels by nvcc, for one architecture, to `out`."""
    files = [str(KERNELS), *LAYER, str(NATIVE / "cuda_launcher.cpp")]
    wraps = [f"-Xlinker=--wrap={name}" for name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cudaFuncSetAttribute")]
    subprocess.run(["nvcc", "-std=c++20", "-arch=sm_80", *wraps, "-o", str(out), *files], check=True)
    return out


def build_session(headers: Path, out: Path) -> Path:
    """Compile tests/native/cuda_session.cpp with the session, the fake runtime and the emulated kernels to `out`."""
    own = [NATIVE / f"{name}.cpp" for name in ("fake_cudart", "cuda_session", "emulated_launch")]
    return build_emulation(out, *sources("shared_sources", "cuda_sources"), *LAYER, *own, headers=headers)
