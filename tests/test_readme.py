"""Every command of the README and of the documents is run or, on data of one's own, parsed; what they link to or list
exists."""

from __future__ import annotations

import argparse
import importlib.metadata
import itertools
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runtime import Engine
from service import cli, problems
from service.api.query import SegmentQuery
from service.app import create_app
from service.codec.encoders import ENCODERS
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.service.fakes import serving

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
API = ROOT / "docs/api.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / ".github/SECURITY.md", ROOT / "csrc/cpu/README.md"]
SHORT = {  # two steps a run
    "train": shlex.split("--samples 8 --batch 4 --width 4 --crop 32 --validate-every 1000"),
    "table": shlex.split("--samples 12 --batch 4 --width 4 --crop 32 --seeds 1"),
    "sweep": shlex.split("--samples 8 --batch 4 --width 4 --crop 32 --start-samples 8 --configurations 3"),
}
PROGRAMS = ("make", "curl", "mbunet")


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks of code in `language`."""
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return found


def commands(page: Path, *programs: str) -> list[list[str]]:
    """The page's calls of these programs, as words."""
    words = [shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines()]
    return [line for line in words if Path(line[0]).name in programs]


def pages_with(*programs: str) -> list[Path]:
    return [page for page in PAGES if commands(page, *programs)]


def anchors(page: Path) -> set[str]:
    """What a link may name behind `#`, made of headings as GitHub makes it."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_known_here(page: Path) -> None:
    assert sum(len(block.splitlines()) for block in blocks(page, "sh")) == len(commands(page, *PROGRAMS))


def test_there_are_commands() -> None:
    assert all(commands(README, program) for program in PROGRAMS)
    assert len(pages_with(*PROGRAMS)) > 3


@pytest.mark.parametrize("page", pages_with("make"), ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    for line in commands(page, "make"):
        subprocess.run([line[0], "--dry-run", *line[1:]], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_a_copy_of_the_sources_is_installed_anew(tmp_path: Path) -> None:
    """As a plain `pip install` leaves it: it would be served whatever becomes of the sources."""
    copied = tmp_path / "lib/python3/site-packages/service/app.py"
    copied.parent.mkdir(parents=True)
    (tmp_path / ".installed").touch()
    command = ["make", "--dry-run", "serve", f"RUNTIME={tmp_path}"]
    for is_copied in (False, True):
        if is_copied:
            copied.touch()
            os.utime(tmp_path / ".installed", (0, copied.stat().st_mtime - 1))
        shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert ("install -e ." in shown) == is_copied


def engines() -> list[Engine]:
    """What `make serve` serves."""
    return [Engine.load(name) for name in Settings().models]


@pytest.mark.parametrize("page", pages_with("curl"), ids=lambda page: page.name)
def test_curl_commands_are_answered(page: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the curl commands are not run: curl is not installed")
    for folder in ("tests", "service"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    with serving(create_app(engines(), Settings())) as client:
        address = f"{client.base_url.host}:{client.base_url.port}"
        for line in commands(page, "curl"):
            words = [word.replace("localhost:8080", address) for word in line]
            subprocess.run([*words, "--fail", "--silent", "--show-error"], cwd=tmp_path, check=True)
    assert (tmp_path / "mask.png").read_bytes().startswith(b"\x89PNG")


EXAMPLES = [(page, code) for page in PAGES for code in blocks(page, "python")]


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(EXAMPLES)])
def test_python_examples_run(page: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with serving(create_app(engines(), Settings())) as client:
        address = f"{client.base_url.host}:{client.base_url.port}"
        exec(compile(code.replace("localhost:8080", address), str(page), "exec"), {})


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(EXAMPLES)])
def test_python_examples_import_what_is_installed(page: Path, code: str) -> None:
    """By `make serve`, or by a command that the page names."""
    text, distributions = page.read_text(encoding="utf-8"), importlib.metadata.packages_distributions()
    needs = [need for need in importlib.metadata.requires("mbunet") or [] if "extra ==" not in need]
    installed = {match[0] for need in needs if (match := re.match(r"[\w-]+", need))}
    for module in set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - sys.stdlib_module_names:
        [name] = set(distributions[module])
        assert name in installed or f"pip install '{name}" in text, module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_say_which_mbunet_their_commands_are(page: Path) -> None:
    code = [line for language in ("sh", "console") for block in blocks(page, language) for line in block.splitlines()]
    is_bare = any(re.match(r"(\w+=\S* )*mbunet ", line) for line in code)
    assert not is_bare or re.search(r"`\.venv(-dev)?/bin/mbunet`", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", pages_with("mbunet"), ids=lambda page: page.name)
def test_mbunet_commands_succeed(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the page's order, in one folder: what one writes, the next may read."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "DATA").symlink_to(ROOT / "tests/data/nuclei")
    monkeypatch.chdir(tmp_path)
    for line in commands(page, "mbunet"):
        arguments = line[1:] + SHORT.get(line[1], [])
        if line[1] == "serve":  # is run in tests/service
            cli.parser().parse_args(arguments)
        else:
            assert cli.main(arguments) == 0, line
        if line[1] == "export":
            assert Path(arguments[2]).is_file(), line


def expanded(lines: list[str]) -> list[list[str]]:
    """The words of a shell's lines, with the variables that earlier ones set."""
    known: dict[str, str] = {}
    found = []
    for line in lines:
        words = shlex.split(string.Template(line).safe_substitute(known), comments=True)
        set_here = list(itertools.takewhile(re.compile(r"\w+=").match, words))
        if set_here == words:
            known |= {name: value for name, _, value in (word.partition("=") for word in words)}
        else:
            found.append(words[len(set_here) :])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_data_of_ones_own_are_understood(page: Path) -> None:
    """Not run: what they read is not here."""
    made: set[str] = set()
    for block in blocks(page, "console"):
        for words in expanded(block.replace("\\\n", " ").splitlines()):
            if words[0] == "mbunet":
                args = cli.parser().parse_args(words[1:])
                read = {word for word in words if re.fullmatch(r"runs/.+\.(pt|safetensors)", word)}
                assert read <= made, words
                made |= left_by(words[1], args)


def left_by(command: str, args: argparse.Namespace) -> set[str]:
    """Files that others begin from."""
    if command != "train":
        return set()
    alone = {"bits_only", "full_precision"} & {name for name, value in vars(args).items() if value}
    runs = ("",) if alone else ("full-precision/", "bits/")
    left = {f"{run}{name}" for run in runs for name in ("checkpoint.pt", "best.pt")}
    return {f"{args.out}/{name}" for name in left | (set() if alone else {"model.safetensors"})}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_within_sentences_have_only_flags_that_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    [choices] = [action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)]
    for command, rest in re.findall(r"`mbunet ([a-z]+)([^`]*)`", text):
        flags = set(re.findall(r"(?<!\S)--[\w-]+", rest))
        assert flags <= set(choices[command]._option_string_actions), f"mbunet {command}{rest}"


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_document_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", README.read_text(encoding="utf-8")))
    assert {str(page.relative_to(ROOT)) for page in PAGES if page != README} <= linked


def test_the_api_lists_every_problem() -> None:
    """In the words of a server's own /docs."""
    listed = re.findall(r"^\| (\d{3}) \| `([a-z-]+)` \| (.+) \|$", API.read_text(encoding="utf-8"), re.MULTILINE)
    told = [(str(problem.status), problem.reason(), problem.when) for problem in problems.tree()]
    assert sorted(listed) == sorted(told)


def test_the_api_lists_every_parameter() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \|.+\|.+\|$", API.read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"\w+", " ".join(rows)) == list(SegmentQuery.model_fields)


def test_the_api_names_every_format() -> None:
    text = API.read_text(encoding="utf-8")
    assert [name for name in ENCODERS if f"`{name}`" not in text] == []


def test_the_api_names_every_metric() -> None:
    text = API.read_text(encoding="utf-8")
    names = [family.name for family in Metrics().registry.collect() if family.name.startswith("mbunet_")]
    assert [name for name in names if f"`{name}" not in text] == []
