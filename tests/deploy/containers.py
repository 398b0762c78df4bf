"""Images and containers without a daemon and without a registry: debootstrap makes the base, buildah builds, crun runs.

Needs root and these three programs (Debian packages of the same names). What a machine needs to reach package indexes,
its certificates and its pip.conf, goes into the base.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.deploy import cross

ROOT = Path(__file__).parents[2]
TOOLS = ("debootstrap", "buildah", "crun")
BASE = "localhost/base"
SUITE = "bookworm"
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
FROM_THE_HOST = ("/etc/ssl/certs/ca-certificates.crt", "/usr/local/share/ca-certificates", "/etc/pip.conf")
PATIENCE = 60 if cross.WANTED == cross.NATIVE else 600  # seconds


def missing() -> str:
    """What keeps this machine from building and running images, or an empty text."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    return cross.missing(cross.WANTED) if os.geteuid() == 0 else "building on a base made here needs root"


@dataclass(frozen=True)
class Image:
    """A built image: its configuration as the OCI names it, its root file system, and what it adds to its base."""

    config: dict[str, Any]
    root: Path
    added_bytes: int


@dataclass(frozen=True)
class Container:
    """A running container that shares the host's network: `address` is where its service listens."""

    name: str
    user: str
    state: Path
    address: str
    process: subprocess.Popen[str]

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as its user."""
        inside = _crun(self.state, "exec", f"--user={self.user}", self.name, *command)
        return subprocess.run(inside, capture_output=True, text=True)

    def owner(self) -> int:
        """The user id of the container's first process, as the host's kernel tells it."""
        state = json.loads(_output(*_crun(self.state, "state", self.name)))
        return Path(f"/proc/{state['pid']}").stat().st_uid

    def terminate(self) -> None:
        """Send SIGTERM to the container's first process."""
        _output(*_crun(self.state, "kill", self.name, "TERM"))

    def wait(self) -> int:
        """The exit status of the first process, once it has ended."""
        return self.process.wait(PATIENCE)


class Store:
    """A storage of images in one folder, with a Debian base in it, all of the architecture that is wanted."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = folder / "debian"
        self._volumes: list[str] = []
        self.has_cuda = False
        if cross.WANTED != cross.NATIVE:
            cross.emulate()
            cuda = cross.cuda(folder / "cuda")
            self.has_cuda = bool(cuda)
            self._volumes = cross.compilers(folder / "compilers") + cuda
        _output("debootstrap", f"--arch={cross.WANTED}", "--variant=minbase", SUITE, str(self._base))
        for source in map(Path, FROM_THE_HOST):
            target = self._base / source.relative_to("/")
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            elif source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
        for emptied in ("var/cache/apt", "var/lib/apt/lists"):  # published bases have nothing there
            shutil.rmtree(self._base / emptied)
            (self._base / emptied).mkdir()
        container = self._buildah("from", "scratch")
        self._buildah("copy", "--quiet", container, str(self._base), "/")
        described = (f"--env=PATH={USUAL_PATH}", f"--arch={cross.WANTED}")  # as every published base has it
        self._buildah("config", *described, container)
        self._buildah("commit", "--quiet", "--rm", container, BASE)

    def build(self, dockerfile: str, target: str, *base_arguments: str) -> Image:
        """Build `target` of a Dockerfile with `base_arguments` set to the Debian base."""
        settings = [f"--build-arg={name}={BASE}" for name in base_arguments]
        settings.append(f"--build-arg=MBUNET_CUDA={'ON' if self.has_cuda else 'OFF'}")
        settings += [f"--volume={volume}" for volume in self._volumes]
        how = ("--isolation=chroot", "--format=docker", f"--arch={cross.WANTED}", f"--target={target}", *settings)
        self._buildah("build", *how, f"--file={ROOT / dockerfile}", f"--tag=localhost/{target}", str(ROOT))
        container = self._buildah("from", f"--arch={cross.WANTED}", f"localhost/{target}")
        root = Path(self._buildah("mount", container))
        config = json.loads(self._buildah("inspect", container))["Docker"]["config"]
        return Image(config, root, _bytes(root) - _bytes(self._base))

    def _buildah(self, *command: str) -> str:
        storage = (f"--root={self._folder}/storage", f"--runroot={self._folder}/run", "--storage-driver=vfs")
        return _output("buildah", *storage, *command)


@contextmanager
def running(image: Image, folder: Path) -> Iterator[Container]:
    """A container of `image` that is ready: its own user, no capabilities, a root file system that is read-only.

    Its sensors are those that a test has put into the folder `hwmon`.
    """
    state, name = folder / "state", "mbunet-test"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    (folder / "hwmon").mkdir(exist_ok=True)
    described = _specification(image, folder / "hwmon", [f"MBUNET_PORT={port}"])
    (folder / "config.json").write_text(json.dumps(described))
    command = _crun(state, "run", f"--bundle={folder}", name)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_until_ready(address, process)
            yield Container(name, image.config["User"], state, address, process)
        finally:
            if process.poll() is None:
                subprocess.run(_crun(state, "kill", name, "KILL"), capture_output=True)


def _specification(image: Image, hwmon: Path, environment: list[str]) -> dict[str, Any]:
    """The OCI runtime's config.json: as `docker run --read-only --cap-drop=ALL --network=host` would have it."""
    user, group = map(int, image.config["User"].split(":"))
    devices = ["nosuid", "strictatime", "mode=755", "size=65536k"]
    return {
        "ociVersion": "1.0.0",
        "root": {"path": str(image.root), "readonly": True},
        "process": {
            "user": {"uid": user, "gid": group},
            "args": image.config["Entrypoint"] + image.config["Cmd"],
            "env": image.config["Env"] + environment,
            "cwd": image.config["WorkingDir"],
            "noNewPrivileges": True,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": devices},
            {"destination": "/sys/class/hwmon", "source": str(hwmon), "options": ["bind", "ro"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]},
    }


def _crun(state: Path, *command: str) -> list[str]:
    """A command of crun that looks at no control groups: it would not start where the two versions are mixed."""
    hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"']
    return [*hidden, "crun", f"--root={state}", "--cgroup-manager=disabled", *command]


def _wait_until_ready(address: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            if httpx.get(f"{address}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(f"{address} is not ready after {PATIENCE} s")


def _bytes(root: Path) -> int:
    """Bytes of all files below `root`, hard links counted once."""
    sizes: dict[int, int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            status = (Path(folder) / name).lstat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def _output(*command: str) -> str:
    """The standard output of a command; where it fails, all that it said."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-5000:]}"
    return done.stdout.strip()
