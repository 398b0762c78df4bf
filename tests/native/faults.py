"""`make test-faults`: a fixed list of faults, planted one at a time; the random networks must notice every one.

Each is one wrong expression in a copy of the sources, compiled and replayed: csrc/cpu with the portable kernel,
on tests.cases.RANDOM, those of csrc/cuda in emulation, on what the tests of the CUDA kernels replay. A fault that gives
the reference's bits on every case would show that something in the engine is not tested.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cases import RANDOM, Case, same
from tests.engine.backends.test_cuda_kernels import GENERAL
from tests.native.cuda import LAYER
from tests.native.replay import PORTABLE, replay
from tests.native.sources import NATIVE, ROOT, sources


@dataclass(frozen=True)
class Fault:
    """`right`, which stands in csrc/`file`, replaced by `wrong` where it stands first."""

    file: str
    right: str
    wrong: str

    def plant(self, csrc: Path) -> None:
        """Change the copy of the sources in `csrc`."""
        path = csrc / self.file
        text = path.read_text()
        if self.right not in text:
            raise SystemExit(f"csrc/{self.file} has changed: there is no '{self.right}', which a fault was to replace")
        path.write_text(text.replace(self.right, self.wrong, 1))


CPU = (
    # lists of taps: planes, exponents, segments, signs
    Fault("cpu/sparse_lists.cpp", "some.size()) * highest()", "some.size())"),
    Fault("cpu/sparse_lists.cpp", "inputs.negative.size()) * highest()", "inputs.negative.size())"),
    Fault("cpu/sparse_lists.cpp", "(filling(inputs)) * highest()", "(filling(inputs))"),
    Fault("cpu/sparse_lists.cpp", "segment * step_.channels + channel(entry)", "channel(entry)"),
    Fault("cpu/sparse_lists.cpp", "static_cast<size_t>(segment) * static_cast<size_t>(count())", "size_t{0}"),
    Fault("cpu/sparse_lists.cpp", "sum.inputs[exponent].add(weight > 0, tap)", "sum.inputs[exponent].add(true, tap)"),
    Fault("cpu/sparse_lists.cpp", "sum.inputs[exponent + 1]", "sum.inputs[exponent]"),
    Fault("cpu/sparse_lists.cpp", "(factor > 0) != sum.negated", "factor > 0"),
    Fault("cpu/sparse_lists.cpp", "sum.inputs[residual.exponent]", "sum.inputs[0]"),
    Fault("cpu/sparse_lists.cpp", "(factor) * highest() << residual.exponent", "(factor) * highest()"),
    Fault("cpu/sparse_lists.cpp", "theta + counted", "theta"),
    Fault("cpu/sparse_lists.cpp", "theta + zeros", "theta"),
    Fault("cpu/sparse_lists.cpp", "least[1] - least[2]", "least[1] - least[0]"),
    Fault("cpu/sparse_lists.cpp", "(sum.negated ? 1 - own : own)", "(sum.negated ? -own : own)"),
    Fault("cpu/sparse_lists.cpp", "entry % parts_ / conv_.up", "entry % conv_.up"),
    Fault("cpu/sparse_lists.cpp", "plus - minus) : theta;", "plus) : theta;"),
    Fault("cpu/shape_plan.cpp", "channel * tensor.planes)", "channel)"),
    Fault("cpu/shape_plan.cpp", "own.size * static_cast<size_t>(tensor.planes)", "own.size"),
    Fault("cpu/sparse_lists.cpp", "channel(entry) * addresses_.out_planes", "channel(entry)"),
    # counters
    Fault("cpu/kernels/sliced.inl", "static_cast<uint64_t>(start) >> exponent >> level", "start >> level"),
    Fault("cpu/kernels/sliced.inl", "broadcast_bit<W>(start >> exponent & 1)", "broadcast_bit<W>(false)"),
    Fault("cpu/kernels/sliced.inl", "behind(most, below)", "most"),
    Fault("cpu/kernels/sliced.inl", "add_bit<From + 2>(add<false>", "add_bit<From + 1>(add<false>"),
    Fault("cpu/kernels/sliced.inl", "channel.to_upper), static_cast", "channel.to_lower), static_cast"),
    Fault("cpu/kernels/sliced.inl", "bit_xor(lower, negated)", "lower"),
    Fault(
        "cpu/kernels/sliced.inl",
        "W carry = broadcast_bit<W>(true);\n#pragma",
        "W carry = broadcast_bit<W>(false);\n#pragma",
    ),
    Fault(
        "cpu/kernels/sliced.inl",
        "c < channel_end; ++c)\n            weighted_at",
        "c < channel_end - 1; ++c)\n            weighted_at",
    ),
    # the other steps
    Fault("cpu/kernels/scalar_stem.inl", "channel * args.levels + level", "channel * args.levels"),
    Fault("cpu/execute.cpp", "reached[0][i] ^ reached[1][i] ^ reached[2][i]", "reached[0][i] ^ reached[2][i]"),
    Fault("cpu/execute.cpp", "plane / planes % gates", "0 * gates"),
    Fault("cpu/execute.cpp", "in[b] & by[b]", "in[b]"),
    Fault(
        "cpu/execute.cpp",
        "(channel * planes + plane) * from.size,\n                            plan_.group_bytes, fine",
        "(channel * planes) * from.size,\n                            plan_.group_bytes, fine",
    ),
    Fault("cpu/layout.hpp", "(a.less & (a.most | ~b.most))", "(a.less & a.most)"),
    Fault("cpu/raster.cpp", "rows.less >> 1", "rows.less"),
    Fault("cpu/doubling.cpp", "std::min(x + 1, width - 1)", "std::min(x, width - 1)"),
    Fault("cpu/doubling.cpp", "3 * own[i] + neighbor[i]", "3 * own[i] + own[i]"),
    Fault("cpu/packed_weights.cpp", "(c * planes + plane) * channels", "c * planes * channels"),
    Fault("cpu/execute_head.cpp", "tile.x / scale", "tile.x"),
    Fault("memory_plan.cpp", "first <= other.last", "first < other.last"),
)

CUDA = (
    Fault("cuda/general_conv.hpp", "sums.value(i / 2, i % 2, 0, k) << shifts[k]", "sums.value(i / 2, i % 2, 0, k)"),
    Fault("cuda/general_conv.hpp", ": 0) << plane", ": 0)"),
    Fault("cuda/general_conv.hpp", "up * y + tap / 2, up * x + tap % 2", "up * y + tap % 2, up * x + tap / 2"),
    Fault("cuda/general_conv.hpp", "args.input_planes * args.output_words, word)", "args.output_words, word)"),
    Fault("cuda/levels.hpp", "(a.high | ~b.high)", "(a.high)"),
    Fault("cuda/levels.hpp", "select(second, third, first)", "select(second, first, third)"),
    Fault("cuda/gate.hpp", "args.is_one_channel ? 0 : word", "word"),
    Fault("cuda/gate.hpp", "0 - (bits & 1)", "bits"),
    Fault("cuda/doubling.hpp", "if (axis.center == last)", "if (axis.center > last)"),
    Fault("cuda/doubling.hpp", "before + 3 * own + 3 * behind", "before + 3 * own + behind"),
    Fault(
        "cuda/conv_weights.cpp",
        "products_ : products_ - positive + negative",
        "products_ : products_ + positive - negative",
    ),
    Fault("cuda/conv_weights.cpp", "layer_.input_is_signed ? positive - negative : 0", "positive - negative"),
    Fault("cuda/conv_weights.cpp", "positive + negative : negative", "positive + negative : positive"),
    Fault("cuda/conv_weights.cpp", "+ plane + doubling()", "+ doubling()"),
    Fault("cuda/conv_weights.cpp", "needed += worth(channel) / 2", "needed -= worth(channel) / 2"),
    Fault("cuda/k_schedule.cpp", "segment};\n        for", "0};\n        for"),
    Fault("cuda/layer.cpp", "channel * levels + level", "channel * levels"),
    Fault("cuda/dispatch.hpp", "words * layer.input_planes;", "words;"),
    Fault("cuda/stem.hpp", "(word + w) * 3 + level", "(word + w) * 3"),
    Fault("cuda/stem.hpp", "y < params.height ? y", "y < args.height ? y"),
    Fault("cuda/up_conv.hpp", "(2 * y + lower) * args.extent.width + x - lower", "2 * y * args.extent.width + x"),
    Fault("cuda/head.hpp", "c && logit <= largest", "c && logit < largest"),
    Fault("cuda/pool.hpp", "plane * args.words + word", "word"),
)


class Program:
    """Copies of the sources in `folder`, compiled one by one, and the program linked of them."""

    def __init__(self, folder: Path, files: Sequence[str], flags: Sequence[str]) -> None:
        self.folder, self.flags = folder, flags
        shutil.copytree(ROOT / "csrc", folder / "csrc")
        shutil.copytree(NATIVE, folder / "tests/native")
        self.objects = {folder / Path(file).relative_to(ROOT): folder / f"{i}.o" for i, file in enumerate(files)}
        self.compile(list(self.objects))

    def compile(self, files: Sequence[Path]) -> None:
        """Compile `files` anew and link."""
        command = ["g++", "-std=c++20", "-O1", *self.flags, f"-I{self.folder / 'tests/native'}"]
        for file in files:
            subprocess.run([*command, "-c", "-o", str(self.objects[file]), str(file)], check=True)
        objects = map(str, self.objects.values())
        subprocess.run(["g++", "-pthread", "-o", str(self.folder / "replay"), *objects], check=True)

    def notices(self, fault: Fault, runs: Sequence[tuple[str, Sequence[Case]]]) -> str:
        """The first case of `runs` (kernel, cases) whose bits `fault` changes, or nothing."""
        file = self.folder / "csrc" / fault.file
        right = file.read_bytes()
        fault.plant(self.folder / "csrc")
        depends = [file] if file in self.objects else self.including(file)
        try:
            self.compile(depends)
            return next((found for kernel, cases in runs if (found := self.first_wrong(kernel, cases))), "")
        finally:
            file.write_bytes(right)
            self.compile(depends)

    def including(self, header: Path) -> list[Path]:
        """Sources that may include `header`."""
        folders = {header.parent, header.parent.parent, self.folder / "tests/native"}
        return [file for file in self.objects if file.parent in folders]

    def first_wrong(self, kernel: str, cases: Sequence[Case]) -> str:
        """Name of the first case that `kernel` gets wrong, or that ends it."""
        for case in cases:
            try:
                right = same(replay([str(self.folder / "replay")], kernel, 2, [case])[0], case.expected())
            except (subprocess.CalledProcessError, AssertionError):
                right = False
            if not right:
                return f"{case.name} on {kernel}"
        return ""


def main() -> int:
    """Plant them all; returns 1 where one is not noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("cpu", "cuda"), help="the faults of one engine")
    only = parser.parse_args().only
    cpu = sources("shared_sources", "cpu_sources")
    cuda = [*sources("shared_sources"), *LAYER, str(NATIVE / "emulated_launch.cpp"), str(NATIVE / "cuda_replay.cpp")]
    engines = {
        "cpu": ([*cpu, str(NATIVE / "replay.cpp")], [PORTABLE], CPU, [("portable", RANDOM)]),
        "cuda": (cuda, ["-march=native", "-U_FORTIFY_SOURCE"], CUDA, [(name, GENERAL) for name in ("sm_80", "sm_90")]),
    }
    missed = 0
    for name, (files, flags, faults, runs) in engines.items():
        if only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                program = Program(Path(folder) / "tree", files, flags)
                if wrong := next((found for run in runs if (found := program.first_wrong(*run))), ""):
                    raise SystemExit(f"without any fault, {wrong} is not what the reference gives")
                for fault in faults:
                    found = program.notices(fault, runs)
                    missed += not found
                    print(f"{'noticed' if found else 'MISSED '}  {fault.file}: {fault.wrong!r}  {found}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
