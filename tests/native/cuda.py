"""What tests of the CUDA engine build: the kernels in emulation, the session on a fake runtime, the launcher."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import nanobind

from tests.native import compiling, tools
from tests.native.replay import PORTABLE
from tests.native.sources import LISTS, NATIVE, sources

(KERNELS,) = LISTS["cuda_kernels"]
LAYER = sources("cuda_layer_sources")
"""What prepares steps for the kernels."""
RUNTIME = [NATIVE / f"{name}.cpp" for name in ("fake_cudart", "emulated_launch")]
"""The fake CUDA runtime, which launches the emulated kernels."""
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
    own = [*RUNTIME, NATIVE / "cuda_session.cpp"]
    return build_emulation(out, *sources("shared_sources", "cuda_sources"), *LAYER, *own, headers=headers)


def build_module(headers: Path, folder: Path) -> Path:
    """Compile the module for Python, with the fake runtime and the portable CPU kernels, into `folder`."""
    include = Path(nanobind.include_dir())
    places = [include, include.parent / "ext/robin_map/include", sysconfig.get_paths()["include"], headers]
    flags = ["-fPIC", "-shared", "-fvisibility=hidden", PORTABLE, *(f"-isystem{place}" for place in places)]
    own = sources("module_sources", "shared_sources", "cpu_sources", "cuda_sources")
    files: list[Path | str] = [*own, *LAYER, *RUNTIME, Path(nanobind.source_dir()) / "nb_combined.cpp"]
    module = folder / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiling.build(["g++", *FLAGS, "-O1", *flags], files, module)
    return module
