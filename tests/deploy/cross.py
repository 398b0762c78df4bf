"""Images of arm64 on another machine: an emulator runs their programs, and compilers of this machine build for them.

Debian: qemu-user-static g++-aarch64-linux-gnu. A compiler in emulation would take an hour for what takes minutes.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.native.cuda import toolkit

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NATIVE = ARCHITECTURES.get(platform.machine(), platform.machine())
WANTED = os.environ.get("ARCH") or NATIVE
BINFMT = Path("/proc/sys/fs/binfmt_misc")
EMULATOR = Path("/usr/lib/binfmt.d/qemu-aarch64.conf")  # a line for the kernel, which keeps the program open
COMPILERS = {"aarch64-linux-gnu-g++": ("c++", "g++"), "aarch64-linux-gnu-gcc": ("cc", "gcc")}
"""By the names that CPython's own settings have for them, and by the short ones."""

WRAPPER = """#!/bin/sh
GCC_EXEC_PREFIX=/usr/lib/gcc-cross/ exec /usr/local/bin/{} -fno-use-linker-plugin "$@"
"""
"""A compiler looks for its parts beside itself. The linker is the image's own: it loads no plugin of this machine."""

THIS_MACHINES = ("/usr/lib64:/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/gcc-cross", "/usr/aarch64-linux-gnu")


def missing(architecture: str) -> str:
    """What keeps this machine from images of `architecture`, or an empty text."""
    if architecture == NATIVE:
        return ""
    if (NATIVE, architecture) != ("amd64", "arm64"):
        return f"images of {architecture} are not made on {NATIVE}"
    absent = [name for name in COMPILERS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else "" if EMULATOR.exists() else "no qemu-user-static"


def emulate() -> None:
    """Have the kernel run programs of arm64 by the emulator, also where that is not to be seen."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], check=True)
    if not (BINFMT / "qemu-aarch64").exists():
        (BINFMT / "register").write_text(EMULATOR.read_text())


def cuda(folder: Path) -> list[str]:
    """Volumes with which a build finds this machine's nvcc, and the runtime of arm64 from the Python package index.

    None where this machine has no nvcc. It builds for the machine that the compiler of C++ builds for. `folder` is new.
    """
    if shutil.which("nvcc") is None:
        return []
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    release = re.findall(r"release (\d+\.\d+)", said)[0]
    index = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={folder}"]
    subprocess.run([*index, "--platform=manylinux2014_aarch64", f"nvidia-cuda-runtime=={release}.*"], check=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "targets/sbsa-linux"
    with zipfile.ZipFile(wheel) as content:
        for name in content.namelist():
            if "/lib/" in name:
                (target / "lib").mkdir(parents=True, exist_ok=True)
                (target / "lib" / Path(name).name).write_bytes(content.read(name))
    (shared,) = (target / "lib").glob("libcudart.so.*")
    (target / "lib/libcudart.so").symlink_to(shared.name)  # which CMake looks for, to link the static one
    (target / "include").symlink_to("../../include")
    (target / "lib64").symlink_to("lib")
    return [f"{toolkit()}:/usr/local/cuda:ro", f"{folder / 'targets'}:/usr/local/cuda/targets:ro"]


def compilers(folder: Path) -> list[str]:
    """Volumes, as buildah takes them, with which a build finds this machine's compilers first. `folder` is new."""
    folder.mkdir()
    for compiler, names in COMPILERS.items():
        # from where no cache of compilations stands in its place
        program = shutil.copy(Path("/usr/bin", compiler), folder / f"native-{compiler}")
        (folder / compiler).write_text(WRAPPER.format(Path(program).name))
        (folder / compiler).chmod(0o755)
        for name in names:
            (folder / name).symlink_to(compiler)
    places = [place if ":" in place else f"{place}:{place}" for place in THIS_MACHINES]
    return [f"{place}:ro" for place in (*places, f"{folder}:/usr/local/bin")]
