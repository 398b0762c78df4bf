"""The command line, with real model files of random weights."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
from PIL import Image

from engine import _native, format, roofline
from engine.backends import registry
from engine.runtime import Engine
from service import cli
from service.cli.terminal import progress, table
from service.healthcheck import is_ready
from service.server import described, greeting, listen
from service.settings import Settings
from tests.bench.test_cuda import Timed
from tests.models import random_model
from tests.pictures import file_of, photo, tiff_of
from tests.service.fakes import PATIENCE, FakeEngine

ROOT = Path(__file__).parents[3]
NUCLEI = str(ROOT / "tests" / "data" / "nuclei")
SERVER_CPU_S = 2.0  # of a server that starts, answers one image and ends


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    format.save(random_model(width=4), path)
    return path


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in os.environ:
        if key.startswith("MBUNET_"):
            monkeypatch.delenv(key)


def folder_of_images(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        photo().save(path / name)
    return path


def mask_in(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.mode == "1"
        return np.asarray(image.convert("L"))


# -- segment -------------------------------------------------------------------------------------------------------


def test_segment_writes_the_engines_masks(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_images(tmp_path / "in", "a.png", "b.bmp")
    out = tmp_path / "out"
    assert cli.main(["segment", str(images), "-o", str(out), "--model", str(model), "--overlay"]) == 0
    assert {file.name for file in out.iterdir()} == {"a.png", "a.overlay.png", "b.png", "b.overlay.png"}
    with Engine.load(str(model)) as engine:
        (mask,), _ = engine.run([np.asarray(photo())])
    np.testing.assert_array_equal(mask_in(out / "a.png"), mask * 255)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2/2 images" in captured.err


def test_segment_writes_one_file_where_one_is_named(model: Path, tmp_path: Path) -> None:
    source = folder_of_images(tmp_path / "in", "a.png") / "a.png"
    assert cli.main(["segment", str(source), "-o", str(tmp_path / "mask.png"), "--model", str(model)]) == 0
    assert mask_in(tmp_path / "mask.png").shape == (13, 21)


def test_segment_goes_on_after_a_bad_file_and_says_so(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "b.png")
    (images / "a.png").write_bytes(b"no image")
    assert cli.main(["segment", str(images), "-o", str(tmp_path / "out"), "--model", str(model)]) == 1
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["b.png"]
    assert f"mbunet: {images / 'a.png'}: these 8 bytes are no image" in capsys.readouterr().err


def test_segment_never_writes_over_an_image(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = folder_of_images(tmp_path / "in", "a.png")
    assert cli.main(["segment", str(images), "-o", str(images), "--model", str(model)]) == 1
    assert f"its mask would be written over {images / 'a.png'} itself" in capsys.readouterr().err
    twins = folder_of_images(tmp_path / "twins", "a.png", "a.bmp")
    assert cli.main(["segment", str(twins), "-o", str(tmp_path / "out"), "--model", str(model)]) == 1
    said = f"would be written over the mask of {twins / 'a.bmp'}; rename one, or segment them separately"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "names", "said"),
    [
        ("m.jpg", ["a.png"], "masks are written as PNG, to a folder or to one .png file"),
        ("m.TIF", ["a.png", "b.png"], "masks are written as PNG"),
        ("m.png", ["a.png", "b.png"], "one file for the masks of 2 images; name a folder"),
        ("there", ["a.png"], "masks are written as PNG"),
    ],
)
def test_segment_makes_no_folder_that_is_called_as_a_file(
    out: str, names: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").touch()
    images = folder_of_images(tmp_path / "in", *names)
    assert cli.main(["segment", str(images), "-o", str(tmp_path / out)]) == 1
    assert f"mbunet: {tmp_path / out}: {said}" in capsys.readouterr().err
    assert not (tmp_path / out).is_dir()


def test_folders_in_a_folder_of_images_are_passed_over_in_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "a.png")
    for name in ("deep", "deeper", ".hidden"):
        folder_of_images(images / name, "b.png")
    command = ["segment", str(images), "-o", str(images / "masks"), "--model", str(model)]
    said = f"mbunet: {images}: folders in it are passed over (deep, deeper); name them too for theirs"
    for _ in range(2):  # the second time masks lie there too
        assert cli.main(command) == 0
        assert capsys.readouterr().err.count("passed over") == 1
    assert cli.main([*command[:2], str(images / "deep"), *command[2:]]) == 0
    err = capsys.readouterr().err
    assert said.replace("deep, ", "") in err
    assert (images / "masks" / "b.png").exists()


def test_segment_never_writes_an_overlay_over_a_mask(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "a.png", "a.overlay.png")
    command = ["segment", str(images), "-o", str(tmp_path / "out"), "--model", str(model)]
    assert cli.main([*command, "--overlay"]) == 1
    assert f"would be written over the mask of {images / 'a.overlay.png'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(command) == 0
    beside = folder_of_images(tmp_path / "beside", "b.png")
    folder_of_images(tmp_path / "out2", "b.overlay.png")
    sources = [str(beside), str(tmp_path / "out2" / "b.overlay.png")]
    assert cli.main(["segment", *sources, "-o", str(tmp_path / "out2"), "--model", str(model), "--overlay"]) == 1
    assert "b.overlay.png itself" in capsys.readouterr().err


def test_segment_never_takes_an_earlier_run_s_mask_for_an_overlay(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "a.png", "a.overlay.png")

    def segment(name: str, *flags: str) -> int:
        command = ["segment", str(images / name), "-o", str(out), "--model", str(model), "--overwrite"]
        return cli.main([*command, *flags])

    for first, then, what in (("a.overlay.png", "a.png", "overlay"), ("a.png", "a.overlay.png", "mask")):
        out = tmp_path / what
        out.mkdir()
        assert segment(first, "--overlay") == 0
        before = (out / "a.overlay.png").read_bytes()
        assert segment(then, "--overlay") == 1
        assert f"its {what} would be written over {out / 'a.overlay.png'}" in capsys.readouterr().err
        assert (out / "a.overlay.png").read_bytes() == before
        assert segment(first, "--overlay") == 0


def test_segment_writes_a_table_of_the_objects_of_all_images(
    model: Path, client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, table = folder_of_images(tmp_path / "in", "a.png", "b.bmp"), tmp_path / "objects.csv"
    command = ["segment", str(images), "--table", str(table), "--url", str(client.base_url)]
    assert cli.main(command) == 0
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["image"] for row in rows] == [str(images / "a.png"), str(images / "b.bmp")]
    box = {"x": "0", "y": "0", "width": "10", "height": "13", "area": "130"}
    assert rows[0] | box == rows[0]
    assert (rows[0]["class"], rows[0]["centroid_x"], rows[0]["score"]) == ("class 0", "5.0", "0.7311")
    assert not list(tmp_path.glob("*.part"))
    assert "no objects" not in capsys.readouterr().err
    assert cli.main([*command, "--min-area", "131", "--split", "distance"]) == 0
    assert len(table.read_text().splitlines()) == 1
    assert f"mbunet: {images / 'a.png'}: no objects\n" in capsys.readouterr().err
    assert cli.main(["segment", str(images), "--table", str(table), "--model", str(model), "--threshold", "0"]) == 0
    assert [row["area"] for row in csv.DictReader(table.read_text().splitlines())] == [str(21 * 13)] * 2


def test_a_table_takes_files_whose_names_are_no_text(model: Path, tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "in", "a.png")
    name = os.fsencode(images) + b"/10\xb5m.png"
    os.rename(images / "a.png", name)
    table = tmp_path / "t.csv"
    assert cli.main(["segment", str(images), "--table", str(table), "--model", str(model), "--threshold", "0"]) == 0
    assert table.read_bytes().splitlines()[1].startswith(name + b",1,")


def test_a_table_leaves_masks_that_are_there_and_covers_their_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = folder_of_images(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"by hand")
    command = ["segment", str(images), "-o", str(out), "--model", str(model), "--threshold", "0"]
    assert cli.main([*command, "--table", str(tmp_path / "t.csv")]) == 0
    assert (out / "a.png").read_bytes() == b"by hand"
    assert (out / "b.png").exists()
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "-o FOLDER for masks, --table FILE.csv for objects"),
        (["--table", "t.csv", "--overlay"], "--overlay needs -o"),
        (["-o", "out", "--split", "distance"], "they need --table"),
        (["-o", "out", "--url", "http://localhost:1", "--threads", "1"], "--threads: of this machine's engine"),
        (["-o", "out", "--url", "http://localhost:1", "--model", "runs/m.safetensors"], "one of the server's models"),
        (["-o", "out", "--url", "http://localhost:1", "--model", "best.pt"], "one of the server's models"),
        (["-o", "out", "--parallel", "2", "--retry-deadline", "1"], "--parallel, --retry-deadline: of asking a server"),
    ],
)
def test_flags_of_segment_that_go_nowhere_are_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["segment", str(folder_of_images(tmp_path / "in", "a.png")), *flags]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--ray"]])
def test_a_threshold_that_a_model_has_no_use_for_is_refused_as_a_server_does(
    where: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", Mock())
    several, out = tmp_path / "several.safetensors", tmp_path / "out"
    format.save(random_model(width=2, classes=3), several)
    images = folder_of_images(tmp_path / "in", "a.png")
    command = ["segment", str(images), "-o", str(out), "--model", str(several), *where]
    assert cli.main([*command, "--threshold", "0.4"]) == 1
    assert "mbunet: model random has several classes and takes no threshold\n" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("flags", [["--threshold", "0.4"], ["--thresholds"]])
def test_eval_refuses_thresholds_of_several_classes_before_it_scores(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = tmp_path / "several.safetensors"
    format.save(random_model(width=2, classes=3), several)
    assert cli.main(["eval", str(several), NUCLEI, "--threads", "1", *flags]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mbunet: model random has several classes and ")


@pytest.mark.parametrize("command", [["segment", "IN", "-o", "OUT"], ["bench"]])
def test_a_command_of_one_model_takes_one(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of_images(tmp_path / "IN", "a.png")
    of_this_machine = ["--threads", "1", *(["--size", "16", "--runs", "1"] if command == ["bench"] else [])]
    command = [*command, *of_this_machine, "--model"]
    assert cli.main([*command, "nuclei-small,road-damage"]) == 1
    assert "--model nuclei-small,road-damage: one model is taken here, not several" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()
    format.save(random_model(width=2), tmp_path / "a,b.safetensors")
    assert cli.main([*command, "a,b.safetensors"]) == 0
    with pytest.raises(SystemExit):
        cli.main([command[0], "--help"])
    assert "by commas" not in capsys.readouterr().out


def test_info_names_the_whole_model_that_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "nuclei-small,road-damage"]) == 1
    assert "no model 'nuclei-small,road-damage'" in capsys.readouterr().err


def test_segment_passes_over_what_macs_leave_behind(model: Path, tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "in", "a.png")
    (images / "._a.png").write_bytes(b"Mac OS X")
    (images / "folder.png").mkdir()
    assert cli.main(["segment", str(images), "-o", str(tmp_path / "out"), "--model", str(model)]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.png"]


@pytest.mark.parametrize("by_url", [False, True])
def test_segment_takes_the_channel_and_page_that_are_chosen(
    by_url: bool, client: httpx.Client, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = np.zeros((2, 2, 13, 21), np.uint8)
    stack[1, 1] = np.asarray(photo())[:, :, 0]
    images = tmp_path / "in"
    images.mkdir()
    (images / "a.tif").write_bytes(tiff_of(stack, imagej=True, metadata={"axes": "ZCYX"}))
    (images / "b.png").write_bytes(file_of(Image.fromarray(stack[1, 1])))
    where = ["--url", str(client.base_url)] if by_url else ["--model", str(model)]
    command = ["segment", "-o", str(tmp_path / "out"), *where]
    assert cli.main([*command, str(images / "a.tif"), "--channel", "1", "--page", "1"]) == 0
    assert f"mbunet: {images / 'a.tif'}: channel=1/2, page=1/2 was taken\n" in capsys.readouterr().err
    assert cli.main([*command, str(images / "b.png")]) == 0
    assert "taken" not in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "out" / "b.png").read_bytes()
    assert cli.main([*command, str(images / "a.tif"), "--channel", "2", "--overwrite"]) == 1


def test_segment_goes_on_past_a_file_that_a_server_refuses_for_its_size(
    client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "a.png", "c.png")
    for name, size in (("b.png", 300_000), ("d.png", 3_000_000)):  # the server takes 200,000 bytes
        (images / name).write_bytes(bytes(size))
    out = tmp_path / "out"
    assert cli.main(["segment", str(images), "-o", str(out), "--url", str(client.base_url)]) == 1
    assert {file.name for file in out.iterdir()} == {"a.png", "c.png"}
    captured = capsys.readouterr().err
    for name in ("b.png", "d.png"):
        assert f"mbunet: {images / name}: The body has too many bytes" in captured
    assert "mbunet: 2 of 4 images segmented, 2 failed\n" in captured


@pytest.mark.parametrize(
    ("arguments", "unbuffered"), [(["info", "nuclei-small"], ""), (["info", "nuclei-small"], "1"), (["--help"], "")]
)
def test_output_that_nobody_reads_ends_a_command_in_silence(arguments: list[str], unbuffered: str) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as unread:
        command = [sys.executable, "-m", "service.cli", *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=unread, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_another_broken_pipe_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("engine.selftest.run", Mock(side_effect=BrokenPipeError("of a worker")))
    assert cli.main(["selftest"]) == 1
    assert capsys.readouterr().err == "mbunet: of a worker\n"


@pytest.mark.parametrize("answers", [False, True])
def test_an_interrupt_ends_segment_at_once(answers: bool, tmp_path: Path) -> None:
    """A server that is away, and one that takes the request and then says nothing."""
    images = folder_of_images(tmp_path / "in", "a.png", "b.png")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        if not answers:
            silent.close()
        command = [sys.executable, "-m", "service.cli", "segment", str(images), "-o", str(tmp_path / "out")]
        with subprocess.Popen(
            [*command, "--url", url],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            # a shell's background job, which these tests may be, ignores the signal, and so would its children
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            assert process.stderr
            if answers:
                silent.accept()[0].recv(1)
            else:
                assert "trying again" in process.stderr.readline()
            started = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
            assert time.monotonic() - started < 1
            assert "0 of 2 images segmented, 0 failed, 2 were not tried" in process.stderr.read()


def test_segment_asks_a_server_with_the_same_result(
    client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = folder_of_images(tmp_path / "in", "a.png", "b.bmp")
    (images / "c.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert cli.main(["segment", str(images), "-o", str(out), "--url", str(client.base_url), "--overlay"]) == 1
    assert {file.name for file in out.iterdir()} == {"a.png", "a.overlay.png", "b.png", "b.overlay.png"}
    np.testing.assert_array_equal(mask_in(out / "a.png") == 255, np.asarray(photo())[:, :, 0] == 255)
    captured = capsys.readouterr().err
    assert f"mbunet: {images / 'c.png'}: The body is not a readable image: these 8 bytes are no image" in captured
    assert "3/3 images" in captured


def test_segment_asks_a_server_for_the_model_that_is_named(
    client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder_of_images(tmp_path / "in", "a.png") / "a.png"
    command = ["segment", str(image), "-o", str(tmp_path / "out"), "--url", str(client.base_url), "--model"]
    name = client.get("/models").json()[0]["name"]
    assert cli.main([*command, "other"]) == 1
    assert "there is no model of this name; there is fake" in capsys.readouterr().err
    assert cli.main([*command, name]) == 0


def test_segment_says_so_when_no_server_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = folder_of_images(tmp_path / "in", "a.png") / "a.png"
    with listen(Settings(port=0)) as silent:
        port = silent.getsockname()[1]
    for url, message in ((f"http://127.0.0.1:{port}", "no answer from"), ("localhost", "is no address of a server")):
        arguments = ["segment", str(image), "-o", str(tmp_path / "out"), "--url", url, "--retry-deadline", "0.3"]
        assert cli.main(arguments) == 1
        assert message in capsys.readouterr().err


def test_a_renamed_flag_says_what_it_is_called_now(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["segment", "IN", "-o", "OUT", "--patience", "3"])
    assert caught.value.code == 2
    assert "--patience is now called --retry-deadline" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["segment", "--help"])
    assert "--patience" not in capsys.readouterr().out


def test_segment_goes_on_where_it_stopped(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = folder_of_images(tmp_path / "in", "a.png", "b.bmp", "c.png"), tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"done before")
    (out / "c.png.1234.part").write_bytes(b"cut off")
    command = ["segment", str(images), "-o", str(out), "--model", str(model)]
    assert cli.main(command) == 0
    captured = capsys.readouterr().err
    assert "1 of 3 masks are there already" in captured
    assert "2/2 images" in captured
    assert (out / "b.png").read_bytes() == b"done before"
    assert mask_in(out / "c.png").shape == (13, 21)
    assert cli.main([*command, "--overwrite"]) == 0
    assert (out / "b.png").read_bytes() == (out / "c.png").read_bytes()
    assert cli.main([*command, "--model", "missing"]) == 0  # nothing to do: no engine is loaded
    assert "3 of 3" in capsys.readouterr().err


def test_without_ray_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    images = folder_of_images(tmp_path / "in", "a.png")
    assert cli.main(["segment", "--ray", str(images), "-o", str(tmp_path / "out")]) == 1
    assert "pip install -e '.[ray]'" in capsys.readouterr().err


# -- errors in one line ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["segment", "missing.png", "-o", "out"], 1, "missing.png: no such file or folder"),
        (["bench", "--device", "reference"], 1, "bench takes --device cpu or cuda"),
        (
            ["train", NUCLEI, "-o", "out", "--bits-only", "--device", "gpu"],
            1,
            "no device 'gpu' to train on",
        ),
        (["table", NUCLEI, "-o", "out", "--devices", "gpu"], 1, "no device 'gpu' to train on"),
        (["info", "missing"], 1, "no model 'missing'"),
        (["eval", "nuclei-small", "missing"], 1, "no such folder: missing"),
        (["data", "check", "missing"], 1, "no such folder: missing"),
        (["data", "check", NUCLEI, "--validation", "missing"], 1, "no such folder: missing"),
        (["train", "missing", "-o", "out"], 1, "no such folder: missing"),
        (["table", "missing", "-o", "out"], 1, "no such folder: missing"),
        (["table", NUCLEI, "-o", "out", "--test", "missing"], 1, "no such folder: missing"),
        (["sweep", "missing", "-o", "out"], 1, "no such folder: missing"),
        (["serve", "--port", "http"], 2, "port must be a whole number"),
        (["serve", "--port", "0", "--model", "missing"], 1, "no model 'missing'"),
        (["serve", "--tls-key", "key.pem"], 2, "tls_key needs a tls_certificate"),
        (["serve", "--tls-certificate", "missing.pem"], 1, "missing.pem"),
        (["serve", "--host", "256.0.0.1"], 1, "cannot listen on 256.0.0.1:8080"),
    ],
)
def test_user_errors_are_one_line(
    arguments: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert cli.main(arguments) == status
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mbunet: ")
    assert message in line


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nothing"], ["serve", "--nothing"], ["segment", "-o", "out"]),
        *(["bench", "--size", "0"], ["bench", "--runs", "0"], ["bench", "--size", "x"]),
        ["sweep", "data", "-o", "out", "--configurations", "many"],
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: mbunet" in capsys.readouterr().err


def test_the_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"mbunet {metadata.version('mbunet')}\n"


def test_a_taken_port_names_the_address() -> None:
    with listen(Settings(port=0)) as taken, pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1"):
        listen(Settings(port=taken.getsockname()[1]))


@pytest.mark.parametrize("package", ["torch", "matplotlib", "tqdm"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "data", "-o", "out"],
        ["export", "a.pt", "b.safetensors"],
        ["table", "data", "-o", "out"],
        ["sweep", "data", "-o", "out"],
        ["eval", "a.pt", NUCLEI],
    ],
)
def test_without_what_training_needs_its_installation_is_named(
    arguments: list[str], package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert cli.main(arguments) == 1
    name = {"torch": "PyTorch"}.get(package, package)
    assert f"needs {name}: make trainer, or pip install -e '.[train]'" in capsys.readouterr().err


def test_without_matplotlib_pictures_are_refused_before_anything_is_scored(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    command = ["eval", str(model), NUCLEI, "--threads", "1"]
    assert cli.main([*command, "--pictures", str(tmp_path / "worst")]) == 1
    captured = capsys.readouterr()
    assert captured.err == "mbunet: --pictures needs matplotlib: make trainer, or pip install -e '.[train]'\n"
    assert cli.main(command) == 0


# -- info, eval, train ---------------------------------------------------------------------------------------------


def test_info_prints_layers_zeros_and_provenance(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(model)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"down1\.conv1 +conv +masked +down1\.pool +8 +\d+ +\d+\.\d%", out)
    assert '"seed": 0' in out
    assert "class 0" in out


def test_eval_prints_scores(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("images", "masks"):
        folder_of_images(tmp_path / kind, "a.png", "b.png")
    for name in ("a.png", "b.png"):
        Image.new("L", photo().size, 255).save(tmp_path / "masks" / name)
    scores = tmp_path / "scores.csv"
    assert cli.main(["eval", str(model), str(tmp_path), "--otsu", "--csv", str(scores)]) == 0
    assert re.search(r"all +2 +[01]\.\d{4}", capsys.readouterr().out)
    assert len(scores.read_text().splitlines()) == 3


def test_training_flags_are_fields_of_its_configuration() -> None:
    config = pytest.importorskip("engine.train.config", reason="needs PyTorch")
    strategy = {"cost_model", "w_op", "w_param", "sweep_csv", "within"}  # say which blocks `masked` are
    names = {field.name for field in dataclasses.fields(config.Config)} | strategy
    given = cli.parser().parse_args(["train", "DATA", "-o", "OUT", "--width", "4", "--masked", "Up1", "CT1"])
    assert set(vars(given)) <= names | {"run", "bits_only"}  # which of the commands it is


# -- serve ---------------------------------------------------------------------------------------------------------


@contextmanager
def served(model: Path | str, forbidden: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """(process, its address, its start) of `mbunet serve`; importing torch there leaves a file at `forbidden`."""
    forbidden.parent.joinpath("torch.py").write_text(f"open({str(forbidden)!r}, 'w').close()")
    environment = os.environ | {"PYTHONPATH": f"{forbidden.parent}{os.pathsep}{ROOT}"}
    command = [
        sys.executable,
        "-m",
        "service.cli",
        "serve",
        "--port",
        "0",
        "--model",
        str(model),
        "--threads",
        "1",
        *more,
    ]
    started = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            address = re.search(r"https?://[\d.:]+", process.stdout.readline())
            assert address
            yield process, address[0], started
        finally:
            process.kill()


def seconds_until_ready(address: str, started: float) -> float:
    while httpx.get(f"{address}/readyz", timeout=PATIENCE).status_code != 200:
        assert time.monotonic() - started < PATIENCE
    return time.monotonic() - started


def cpu_seconds() -> float:
    """Of all processes that this one has started and seen end: how busy the machine is does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_serve_starts_in_little_time_without_torch_and_drains_on_sigterm(model: Path, tmp_path: Path) -> None:
    before = cpu_seconds()
    with served(model, tmp_path / "torch was imported") as (process, address, started):
        seconds_until_ready(address, started)
        answer = httpx.post(f"{address}/segment", content=file_of(photo()), headers={"Content-Type": "image/png"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == photo().size
    assert cpu_seconds() - before < SERVER_CPU_S
    assert not (tmp_path / "torch was imported").exists()


def test_sigterm_answers_what_is_under_way(model: Path, tmp_path: Path) -> None:
    body = file_of(photo())
    with served(model, tmp_path / "torch") as (process, address, started):
        seconds_until_ready(address, started)
        host, _, port = address.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as raw:
            head = "POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            head += f"Content-Length: {len(body)}\r\n"
            raw.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())
            assert raw.recv(1000).startswith(b"HTTP/1.1 100 ")  # the request is being handled
            process.send_signal(signal.SIGTERM)
            raw.sendall(body)
            assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert process.wait(PATIENCE) == 0


def test_serve_takes_several_models_and_a_certificate(model: Path, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate, second = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "second.safetensors"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=localhost"
    subprocess.run(made.split(), check=True, capture_output=True)
    format.save(dataclasses.replace(random_model(width=2), name="second"), second)
    more = ["--tls-key", str(key), "--tls-certificate", str(certificate)]
    with served(f"{model},{second}", tmp_path / "torch", *more) as (_, address, _):
        assert address.startswith("https://")
        with httpx.Client(base_url=address, verify=False, timeout=PATIENCE) as client:
            while client.get("/readyz").status_code != 200:
                pass
            assert is_ready({"MBUNET_PORT": f"{client.base_url.port}", "MBUNET_TLS_CERTIFICATE": str(certificate)})
            assert [entry["name"] for entry in client.get("/models").json()] == ["random", "second"]
            assert client.post("/segment?model=second", content=file_of(photo())).status_code == 200


def test_the_greeting_can_be_copied() -> None:
    with listen(Settings(port=0)) as listener:
        port = listener.getsockname()[1]
        text = greeting(described([FakeEngine()]), listener)
    assert f"--data-binary @IMAGE http://127.0.0.1:{port}/segment -o mask.png" in text
    assert text.count("curl") == 2


def test_the_greeting_names_all_models_in_order() -> None:
    second = FakeEngine(model=dataclasses.replace(FakeEngine().model, name="second"), device="cuda:0", kernel="wgmma")
    assert described([FakeEngine(), second]) == "fake on fake (fake), second on cuda:0 (wgmma)"


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with listen(Settings(port=0)) as listener, socket.create_connection(listener.getsockname(), PATIENCE):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# -- terminal --------------------------------------------------------------------------------------------------------


def test_progress_passes_everything_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(["a", "b"], "image")) == ["a", "b"]
    assert re.fullmatch(r"#{30} 2/2 images, [\d.]+/s\n", capsys.readouterr().err)


def test_tables_are_as_wide_as_they_must_be() -> None:
    assert table([{"a": 1, "long": "x"}, {"a": "wide", "long": ""}]) == "a     long\n1     x\nwide"


# -- bench ---------------------------------------------------------------------------------------------------------


def test_bench_lists_every_layer_and_the_ceiling(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "SOURCES", {"L1": 2**14})
    assert cli.main(["bench", "--model", str(model), "--size", "32", "--runs", "2", "--threads", "1", "--peak"]) == 0
    printed = capsys.readouterr().out
    for layer in format.load(model).layers:
        assert re.search(rf"^{layer.name} ", printed, re.MULTILINE)
    assert re.search(r"^convolutions .*%$", printed, re.MULTILINE)
    assert re.search(r"additions fed from L1: \d+ non-zero GMAC/s", printed)


def test_bench_on_a_gpu(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "gpus", lambda: ["a GPU"])
    monkeypatch.setattr(_native, "CudaSession", Timed)  # a millisecond for every layer, a peak of 1 Top/s
    arguments = ["bench", "--model", str(model), "--size", "32", "--batch", "4", "--device", "cuda"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    layers = format.load(model).layers
    for i, layer in enumerate(layers):
        assert re.search(rf"^{layer.name} +1000\.0 .*kernel {i}$", printed, re.MULTILINE)
    bits = 9 * layers[0].channels * layers[1].channels * 32 * 32
    share = 4 * 2 * 2 * bits / 1e-3 / 1e12  # four images, two planes, a product and a sum
    assert re.search(rf"^{layers[1].name} .* {share:.0%} ", printed, re.MULTILINE)
    assert f"the network: {1000 * len(layers)}.0 us, {4000 / len(layers):.0f} images/s" in printed


def test_bench_without_a_gpu_says_why(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if registry.gpus():
        pytest.skip("this machine has a GPU")
    assert cli.main(["bench", "--model", str(model), "--device", "cuda"]) == 1
    assert "cuda:0: " in capsys.readouterr().err


def test_files_that_will_have_no_folder_are_refused_before_the_work(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "run", Mock(side_effect=AssertionError))
    photos = Path(__file__).parents[2] / "data" / "nuclei"
    lost = str(tmp_path / "nowhere" / "a")
    for command in (
        ["segment", str(photos / "images"), "--model", str(model), "--table", lost],
        ["eval", str(model), str(photos), "--part", "all", "--csv", lost],
        ["eval", str(model), str(photos), "--part", "all", "--card", lost],
    ):
        assert cli.main(command) == 1
        assert "there is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("error", [MemoryError, RuntimeError("DefaultCPUAllocator: not enough memory: 9 bytes")])
def test_want_of_memory_is_said_in_one_line(
    error: Exception, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("engine.train.trainer.Trainer.__init__", Mock(side_effect=error))
    photos = Path(__file__).parents[2] / "data" / "nuclei"
    command = ["train", str(photos), "-o", str(tmp_path / "run"), "--bits-only", "--samples", "8", "--class-name", "x"]
    assert cli.main(command) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("mbunet: there is no memory for this: choose smaller")


def test_names_that_are_no_text_can_be_told(tmp_path: Path) -> None:
    for part in ("images", "masks"):
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        Path(os.fsdecode(os.fsencode(folder) + b"/\xe9.png")).write_bytes(b"no image")
    command = [sys.executable, "-m", "service.cli", "data", "check", str(tmp_path / "data")]
    told = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"})
    assert rb"\udce9.png" in told.stdout
    assert b"Traceback" not in told.stderr
