"""What the supervisor leaves, and what it finds."""

from __future__ import annotations

import os
from pathlib import Path

from service.processes.supervisor import ABANDONED_S, counting_folder, listeners, locked
from service.settings import Settings


def test_folders_of_servers_that_were_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    abandoned, young, other = tmp_path / "mbunet-a", tmp_path / "mbunet-b", tmp_path / "other"
    for folder in (abandoned, young, other):
        folder.mkdir()
    for folder in (abandoned, other):
        os.utime(folder, (0, ABANDONED_S))
    with counting_folder(tmp_path) as name:
        assert {path.name for path in tmp_path.iterdir()} == {"mbunet-b", "other", Path(name).name}
        os.utime(name, (0, 0))
        with counting_folder(tmp_path):
            assert Path(name).exists()  # somebody has it
    assert not Path(name).exists()
    with locked(young):
        pass


def test_every_front_end_has_a_socket_on_the_one_port() -> None:
    sockets = listeners(Settings(port=0, workers="3"))
    assert len(sockets) == 3
    assert len({one.getsockname() for one in sockets}) == 1
    for one in sockets:
        one.close()
