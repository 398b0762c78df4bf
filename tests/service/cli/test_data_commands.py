"""Looking at a data folder before one trains on it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from service import cli

NUCLEI = Path(__file__).parents[2] / "data" / "nuclei"


def test_a_sound_folder_is_called_that(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(NUCLEI)]) == 0
    out = capsys.readouterr().out
    assert "images and masks, 4 samples" in out
    assert "sizes (w x h): 256 x 256, 320 x 256" in out
    assert re.search(r"foreground: 26\.\d+% of all pixels, in 4 of 4 samples", out)
    assert "nothing is wrong" in out
    assert out.endswith(f"next: mbunet train {NUCLEI} -o runs/nuclei\n")


def test_the_next_command_has_what_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(NUCLEI), "--seed", "3", "--group", "^(.)"]) == 0
    out = capsys.readouterr().out
    assert out.endswith(f"next: mbunet train {NUCLEI} -o runs/nuclei --seed 3 --group '^(.)'\n")


def test_the_next_command_is_quoted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(NUCLEI, tmp_path / "My Data")
    assert cli.main(["data", "check", str(folder)]) == 0
    assert capsys.readouterr().out.endswith(f"next: mbunet train '{folder}' -o 'runs/My Data'\n")


def test_every_problem_is_named_and_the_status_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(NUCLEI, tmp_path / "nuclei")
    masks = sorted((folder / "masks").iterdir())
    masks[0].unlink()
    masks[1].write_bytes(b"no image")
    assert cli.main(["data", "check", str(folder)]) == 1
    out = capsys.readouterr().out
    assert re.search(f"images/{masks[0].stem}.png  +has no mask", out)
    assert re.search(f"masks/{masks[1].name}  +these 8 bytes are no image", out)
    assert "2 faults in 2 files" in out


def test_a_folder_of_no_known_layout_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", "check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"mbunet: {tmp_path}: needs the folders images/ and masks/")
