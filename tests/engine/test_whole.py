"""Files whole or not at all, and folders that one process at a time writes into."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import format, whole
from engine.runtime import resolve
from tests.files import largest_file

OTHER = "import sys, pathlib; from engine import whole; whole.hold(pathlib.Path(sys.argv[1]))"


def held_by_others(folder: Path) -> bool:
    """Whether another process is refused."""
    done = subprocess.run([sys.executable, "-c", OTHER, str(folder)], capture_output=True, text=True, check=False)
    assert not done.returncode or f"BusyError: another run is writing into {folder}" in done.stderr
    return done.returncode != 0


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path, model = tmp_path / "model.safetensors", format.load(resolve("nuclei-small"))
    path.write_bytes(b"of before")
    with largest_file(1000):
        with pytest.raises(OSError, match="File too large"):
            whole.write(path, bytes(2000))
        with pytest.raises(OSError, match="File too large"):
            format.save(model, path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {path.name: b"of before"}
    whole.write(path, b"now")
    assert path.read_bytes() == b"now"
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with whole.written(path) as one:
        one.write(b"one")
        with whole.written(path) as other:
            whole.remove_abandoned(tmp_path)
            other.write(b"other")
        assert path.read_bytes() == b"other"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"one"}


def test_a_folder_is_held_from_other_processes_and_not_by_children(tmp_path: Path) -> None:
    killed = tmp_path / f"checkpoint.pt.{'0' * 32}.part"
    killed.write_bytes(b"half")
    held = whole.hold(tmp_path)
    assert not killed.exists()
    assert whole.hold(tmp_path) is held
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        os.read(read, 1)  # until its parent is done with it
        os._exit(0)
    os.close(read)
    assert held_by_others(tmp_path)
    del held
    gc.collect()
    assert not held_by_others(tmp_path)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
