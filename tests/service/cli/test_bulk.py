"""Many files: what is done already, what is left behind when a run is cut off, and who computes."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import format, whole
from engine.images import Selection
from engine.model import Preprocessing
from service.cli import bulk
from service.cli.bulk import Job, Outcome
from service.cli.cluster import Actor
from service.settings import Settings
from tests.models import random_model
from tests.pictures import photo, tiff_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path: Path) -> Job:
    path = tmp_path / "random.safetensors"
    format.save(random_model(width=4), path)
    return Job(str(path), Settings(threads=1), overlay=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    photo().save(path)
    return path


def test_outcomes_come_in_order_and_a_bad_file_is_a_failure_of_its_own(job: Job, image: Path) -> None:
    text = image.with_name("text.png")
    text.write_text("no image")
    good, bad, absent, again = bulk.here(job, [image, text, image.with_name("absent.png"), image])
    assert good == again
    with Image.open(io.BytesIO(good.mask)) as mask:
        assert mask.size == photo().size
    assert good.overlay.startswith(b"\x89PNG")
    assert not bad.mask
    assert "are no image" in bad.failure
    assert "No such file" in absent.failure


def test_what_a_model_names_is_taken_and_what_a_job_says_goes_before_it(job: Job, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 30), dtype=np.uint8)
    file = tmp_path / "two.tif"
    file.write_bytes(tiff_of(pixels, ome=True, metadata={"axes": "CYX"}))
    model = format.load(job.model)
    format.save(replace(model, preprocessing=Preprocessing(channel="1")), job.model)
    (named,) = bulk.here(job, [file])
    (second,) = bulk.here(replace(job, selection=Selection(channel=1)), [file])
    (first,) = bulk.here(replace(job, selection=Selection(channel=0)), [file])
    assert named == second != first


def test_a_cluster_s_actor_gives_the_same_outcome_as_a_row(job: Job, image: Path) -> None:
    (expected,) = bulk.here(job, [image])
    row = Actor(job)({"source": str(image)})
    assert Outcome(**row) == Outcome(str(image), expected.mask, expected.overlay)  # type: ignore[arg-type]


def test_a_mask_is_done_when_it_and_its_overlay_are_there(tmp_path: Path) -> None:
    target = tmp_path / "masks/a.png"
    assert not bulk.is_done(target, overlay=False)
    bulk.write(Outcome(tmp_path, b"mask"), target)
    assert bulk.is_done(target, overlay=False)
    assert not bulk.is_done(target, overlay=True)
    bulk.write(Outcome(tmp_path, b"mask", b"overlay"), target)
    assert bulk.is_done(target, overlay=True)
    assert {file.name: file.read_bytes() for file in target.parent.iterdir()} == {
        "a.png": b"mask",
        "a.overlay.png": b"overlay",
    }


def test_what_a_killed_run_has_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    program = """if True:
    import os, sys
    from pathlib import Path
    from service.cli import bulk

    def killed(_):
        print("written", flush=True)
        sys.stdin.read()

    os.fsync = killed
    bulk.write(bulk.Outcome(Path(), b"mask"), Path(sys.argv[1]))"""
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    own = tmp_path / "mine.part"
    own.touch()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline()
        whole.remove_abandoned(tmp_path)
        whole.remove_abandoned(tmp_path / "absent")
        assert len(list(tmp_path.iterdir())) == 2
        process.kill()
        process.wait()
    whole.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == [own]


def test_what_is_cut_off_while_writing_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.png"

    def power_fails(_: int) -> None:
        seen.update({file.name for file in tmp_path.iterdir()})
        raise OSError("no space left")

    seen = set[str]()
    monkeypatch.setattr("os.fsync", power_fails)
    with pytest.raises(OSError, match="no space"):
        bulk.write(Outcome(tmp_path, b"mask"), target)
    assert len(seen) == 1
    assert "a.png" not in seen  # what a power cut would leave has another name
    assert not list(tmp_path.iterdir())


def test_what_a_server_answers_is_not_all_kept_in_memory() -> None:
    """Of a thousand outcomes no more are made than a few for each thread before the first is taken."""
    made: list[int] = []
    lock = threading.Lock()

    def work(source: Path) -> Outcome:
        with lock:
            made.append(int(source.name))
        return Outcome(source)

    outcomes = bulk._in_order(work, [Path(str(i)) for i in range(1000)], 2)
    for i in range(1000):
        assert next(outcomes).source.name == str(i)
        assert max(made) <= i + 2 * bulk.AHEAD
    assert next(outcomes, None) is None
    assert sorted(made) == list(range(1000))
