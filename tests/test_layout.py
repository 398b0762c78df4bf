"""The project's layout: what stands at the top, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("service", "engine", "csrc", "deploy", "tests"),
    *("docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
    *("Dockerfile", "Makefile", "pyproject.toml"),
}
SERVICE_LAYERS = (  # from the top down: what stands in a line imports only from lines below it, and its own room
    {"service.cli"},
    {"service.processes"},
    {"service.server", "service.healthcheck"},
    {"service.app"},
    {"service.api"},
    {"service.core"},
    {"service.codec", "service.telemetry"},
    {"service.settings", "service.problems", "service.logs"},
)
SERVICE_SEES = {  # of the engine; the command line sees all of it
    *("engine.control_groups", "engine.cores", "engine.images", "engine.model", "engine.preprocess", "engine.runtime"),
}
ENGINE_MAY_IMPORT = {"engine", "numpy", "safetensors", *sys.stdlib_module_names}
CODECS = {"PIL", "simplejpeg", "tifffile", "imagecodecs"}
IMAGES_MAY_IMPORT = {"engine", "numpy", "scipy", *CODECS, *sys.stdlib_module_names}


@cache
def modules(package: str) -> dict[str, Path]:
    """Every module below the folder `package` by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names of all that the file imports at run time, anywhere in it; `from a import b` counts as a and a.b."""
    names = set()
    for node in _executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{path}: relative import"
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, but not what stands under `if TYPE_CHECKING`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _executed(child)


def top(names: frozenset[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def in_train(module: str) -> bool:
    return module == "engine.train" or module.startswith("engine.train.")


def in_images(module: str) -> bool:
    return module == "engine.images" or module.startswith("engine.images.")


def test_the_top_level_holds_only_what_the_design_names() -> None:
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - ignored <= TOP_LEVEL


def test_the_engine_imports_nothing_heavy() -> None:
    for module, path in modules("engine").items():
        if not in_train(module) and not in_images(module):
            assert top(imports(path)) <= ENGINE_MAY_IMPORT, module
            assert not any(in_train(name) or in_images(name) for name in imports(path)), module


def test_the_decoder_knows_nothing_else_of_the_engine() -> None:
    for module, path in modules("engine/images").items():
        assert top(imports(path)) <= IMAGES_MAY_IMPORT, module
        assert all(in_images(name) or name == "engine" for name in imports(path) if name.startswith("engine")), module


def test_the_engine_never_imports_the_service() -> None:
    for module, path in modules("engine").items():
        assert top(imports(path)).isdisjoint({"service", "tests"}), module


def room(module: str) -> str:
    """`service.core` of `service.core.batcher`."""
    return ".".join(module.split(".")[:2])


def test_imports_between_the_rooms_of_the_service_point_down() -> None:
    height = {name: -i for i, layer in enumerate(SERVICE_LAYERS) for name in layer}
    known = modules("service")
    assert {room(module) for module in known} == {"service", *height}
    for module, path in known.items():
        for name in _dependencies(imports(path), known):
            below = room(module) == room(name) or height[room(name)] < height[room(module)]
            assert below, f"{module} imports {name}"


def test_the_service_imports_of_the_project_only_the_engine() -> None:
    for module, path in modules("service").items():
        ours = {name for name in imports(path) if name.partition(".")[0] in ("engine", "tests", "deploy")}
        assert top(frozenset(ours)) <= {"engine"}, module
        if room(module) != "service.cli":
            assert _dependencies(frozenset(ours), modules("engine")) <= SERVICE_SEES, module


def test_only_training_imports_torch() -> None:
    for module, path in {**modules("engine"), **modules("service")}.items():
        assert in_train(module) or "torch" not in top(imports(path)), module


def test_the_data_of_training_needs_no_torch() -> None:
    for module, path in modules("engine/train/data").items():
        assert top(imports(path)) <= {*ENGINE_MAY_IMPORT, "PIL", "scipy"}, module
        assert all(name.startswith("engine.train.data") for name in imports(path) if in_train(name)), module


def test_only_experiments_import_experiments() -> None:
    for module, path in modules("engine").items():
        inside = module.startswith("engine.train.experiments")
        assert inside or not any(name.startswith("engine.train.experiments") for name in imports(path)), module


def test_only_one_module_imports_ray() -> None:
    importers = [m for m, path in {**modules("engine"), **modules("service")}.items() if "ray" in top(imports(path))]
    assert importers == ["service.cli.cluster"]


def test_no_import_cycles() -> None:
    known = {**modules("engine"), **modules("service")}
    graph = {module: _dependencies(imports(path), known) - {module} for module, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(error.args[1])}")


def _dependencies(names: frozenset[str], known: dict[str, Path]) -> set[str]:
    """The project's modules among `names`; the package of a submodule that is named with it does not count."""
    packages = {name.rpartition(".")[0] for name in names if name in known}
    return {name for name in names if name in known and name not in packages}


def test_python_headers_stand_in_one_file() -> None:
    include = re.compile(r'^\s*#\s*include\s*[<"](Python\.h|nanobind/|pybind11/)', re.MULTILINE)
    sources = [path for path in sorted((ROOT / "csrc").rglob("*")) if path.is_file()]
    found = [str(path.relative_to(ROOT)) for path in sources if include.search(path.read_text(encoding="utf-8"))]
    assert found == ["csrc/binding.cpp"]


@cache
def includes(path: Path) -> frozenset[Path]:
    """The project's files that the native source `path` includes, and what they include in turn."""
    named = re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    direct = {(path.parent / name).resolve() for name in named}
    return frozenset(direct).union(*map(includes, direct))


@pytest.mark.parametrize(("engine", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_the_native_engines_do_not_include_each_other(engine: str, other: str) -> None:
    """Nor does what both share include either of them; binding.cpp alone does."""
    csrc = ROOT / "csrc"
    shared = [path for path in csrc.iterdir() if path.suffix in (".cpp", ".hpp") and path.name != "binding.cpp"]
    sources = [path for path in (csrc / engine).rglob("*") if path.suffix in (".cpp", ".hpp", ".cu", ".inl")]
    assert shared
    assert sources
    for path in (*shared, *sources):
        found = {folder for source in includes(path) for folder in source.relative_to(csrc).parts[:-1]}
        assert other not in found, path
        assert path not in shared or not found, path


@pytest.mark.parametrize("module", ["service.app", "service.cli"])
def test_starting_the_server_imports_nothing_heavy(module: str) -> None:
    heavy = {"torch", "matplotlib", "ray", "scipy", "engine.train"}
    code = f"import sys, {module}; print(*{heavy!r}.intersection(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (result.returncode, result.stdout.strip(), result.stderr) == (0, "", "")
