"""The session on a GPU without one: compiled against a fake CUDA runtime, it runs the emulated kernels."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from engine.layer import Layer
from tests.cases import CASES, RANDOM, Case, same
from tests.native import cuda
from tests.native.replay import encode, replay

# several images, several classes, sizes that must be padded, input channels that fill more than one word
NAMES = ("masked", "five channels", "three classes", "one pixel", "batch of three")
SOME = [case for case in CASES if case.name in NAMES]
# all operations, residuals, doublings of the logits, and pools of two planes in the convolution before them
GENERAL = [case for case in RANDOM if case.name in ("random 65", "random 182", "random 391")]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    headers = cuda.require("the session on a GPU")
    return cuda.build_session(headers, tmp_path_factory.mktemp("cuda") / "session")


@pytest.mark.parametrize("memory", ["staged", "shared"])
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_logits_equal_the_reference(program: Path, architecture: str, memory: str) -> None:
    """Twice, the second time by the recorded graph on poisoned memory; every image again by itself."""
    cases = SOME + GENERAL if architecture == "sm_80" else SOME[:2] + GENERAL[:1]
    results = replay([str(program), "replay"], architecture, ["staged", "shared"].index(memory), cases)
    for case, logits in zip(cases, results, strict=True):
        assert same(logits, case.expected()), case.name


@pytest.mark.parametrize(
    ("architecture", "bits", "bytes_"),
    [
        ("sm_75", "bmma m8n8k128 xor", "imma m8n8k16"),
        ("sm_80", "bmma m16n8k256 xor", "imma m16n8k32"),
        ("sm_90", "bmma m16n8k256 and", "imma m16n8k32"),
    ],
)
def test_every_step_says_what_runs_it(program: Path, architecture: str, bits: str, bytes_: str) -> None:
    case = next(case for case in CASES if case.name == "mixed")
    answer = subprocess.run(
        [program, "kernels"], input=encode(architecture, 0, [case]), stdout=subprocess.PIPE, check=True
    )
    names = {
        "stem": f"{bytes_}, two bytes to a weight",
        "pool": "within the layer before",
        "head": "integer sums and decision",
        "binary": f"{bits}, one plane",
        "masked": f"{bits}, two planes",
        "transposed": f"{bits}, two planes at once",
    }

    def kind(layer: Layer) -> str:
        if layer.op != "conv":
            return layer.op
        return "transposed" if layer.up > 1 else layer.weights

    expected = [names[kind(layer)] for layer in case.model.layers]
    assert answer.stdout.decode().splitlines() == expected


def test_general_steps_say_what_runs_them(program: Path) -> None:
    (case,) = (case for case in GENERAL if case.name == "random 182")
    answer = subprocess.run([program, "kernels"], input=encode("sm_90", 0, [case]), stdout=subprocess.PIPE, check=True)
    said = dict(zip((layer.name for layer in case.model.layers), answer.stdout.decode().splitlines(), strict=True))
    kinds = {layer.op: said[layer.name] for layer in case.model.layers if layer.op != "pool"}
    assert kinds["gate"] == "and of words"
    assert kinds["head"] == "integer sums, doublings and decision"
    for layer in case.model.layers:
        one = layer.segments == 1 and layer.planes == 1 and case.model.inputs(layer)[0].planes == 1
        usual = (layer.kernel, layer.up) in ((3, 1), (1, 2)) and not layer.residual
        if layer.op == "conv":
            assert said[layer.name].endswith(", in parts") == (not (one and usual)), layer


def test_a_batch_of_any_size(program: Path) -> None:
    subprocess.run([program, "many"], input=encode("sm_80", 0, []), check=True)


def test_what_several_threads_copy_is_there_once(program: Path) -> None:
    subprocess.run([program, "copies"], input=encode("sm_80", 0, []), check=True)


def test_host_memory_is_handed_out_and_taken_again(program: Path) -> None:
    subprocess.run([program, "memory"], input=encode("sm_80", 0, []), check=True)


def test_launches_of_two_sessions_may_interleave(tmp_path: Path) -> None:
    """The launcher itself, with CUDA's own launch replaced: a kernel's limit of shared memory is everyone's."""
    cuda.require("the launcher of the kernels")
    launcher = cuda.build_launcher(tmp_path / "launcher")
    assert subprocess.run([launcher], capture_output=True, text=True, check=False).stdout == "holds\n"


def test_errors_say_what_and_leave_the_session_sound(program: Path) -> None:
    case: Case = next(case for case in SOME if case.name == "batch of three")
    answer = subprocess.run([program, "errors"], input=encode("sm_80", 0, [case]), stdout=subprocess.PIPE, check=True)
    *lines, logits = answer.stdout.split(b"\n", 18)
    said = dict(line.decode().split(": ", 1) for line in lines)
    assert said == {
        "no driver": "there is no NVIDIA driver",
        "old driver": said["old driver"],
        "no GPU": "no CUDA-capable device is detected",
        "other architecture": "loading kernels on Fake GPU, compute capability 8.0: "
        "no kernel image is available for execution on the device",
        "little shared memory": said["little shared memory"],
        "no memory for weights": said["no memory for weights"],
        "no memory for activations": said["no memory for activations"],
        "a launch fails": "launching step 4: some CUDA error",
        "a launch fails in recording": "launching step 3: some CUDA error",
        "a copy fails": "copying images: some CUDA error",
        "a copy back fails": "copying results: some CUDA error",
        "afterwards": "nothing",
        "too many pixels": "an image of 8208 x 8192 pixels is too large",
        "too large a tensor": "an image of 8192 x 8192 pixels is too large",
        "no mapping": "mapping pinned memory: some CUDA error",
        "a mapping afterwards": "nothing",
    }
    assert said["old driver"].startswith("the NVIDIA driver is too old: it offers CUDA 12.2, this build needs ")
    assert said["little shared memory"].endswith("bytes of shared memory in a block, and Fake GPU offers 1000")
    for what in ("weights", "activations"):
        assert f"of GPU memory for {what}" in said[f"no memory for {what}"]
        assert said[f"no memory for {what}"].endswith("out of memory")
    assert logits == b"".join(array.tobytes() for array in case.expected())
