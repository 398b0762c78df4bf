"""Every command of the README is run, and every file that it shows exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.runtime import Engine
from service import cli
from service.app import create_app
from service.settings import Settings
from tests.service.fakes import serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHORT = {  # two steps a run
    "train": shlex.split("--samples 8 --batch 4 --width 4 --crop 32 --validate-every 1000"),
    "table": shlex.split("--samples 12 --batch 4 --width 4 --crop 32 --seeds 1"),
    "sweep": shlex.split("--samples 8 --batch 4 --width 4 --crop 32 --start-samples 8 --configurations 3"),
}


def chosen(*programs: str) -> list[list[str]]:
    """The README's calls of these programs, as words."""
    words = [shlex.split(line) for line in COMMANDS]
    return [line for line in words if Path(line[0]).name in programs]


def test_every_command_is_known_here() -> None:
    assert len(COMMANDS) == len(chosen("make", "curl", "mbunet"))
    assert len(COMMANDS) > 10


@pytest.mark.parametrize("line", chosen("make"), ids=" ".join)
def test_make_targets_exist(line: list[str]) -> None:
    subprocess.run([line[0], "--dry-run", *line[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_curl_commands_are_answered(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the README's curl commands are not run: curl is not installed")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    engine = Engine.load(Settings().model)
    with serving(create_app(engine, Settings())) as client:
        address = f"{client.base_url.host}:{client.base_url.port}"
        for line in chosen("curl"):
            words = [word.replace("localhost:8080", address) for word in line]
            subprocess.run([*words, "--fail", "--silent", "--show-error"], cwd=tmp_path, check=True)
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("code", PYTHON, ids=[str(i) for i in range(len(PYTHON))])
def test_python_examples_run(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with serving(create_app(Engine.load(Settings().model), Settings())) as client:
        address = f"{client.base_url.host}:{client.base_url.port}"
        exec(compile(code.replace("localhost:8080", address), "README.md", "exec"), {})


def test_mbunet_commands_succeed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the README's order, in one folder: what one writes, the next may read."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "DATA").symlink_to(ROOT / "tests/data/nuclei")
    monkeypatch.chdir(tmp_path)
    for line in chosen("mbunet"):
        arguments = line[1:] + SHORT.get(line[1], [])
        if line[1] == "serve":  # is run in tests/service
            cli.parser().parse_args(arguments)
        else:
            assert cli.main(arguments) == 0, line
    assert (tmp_path / "mine.safetensors").is_file()


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
