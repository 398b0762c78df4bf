"""`make test-mutations`: model files of every family, changed at random: an error that is named, or a model that works.

`python -m tests.mutations --seeds 0 1000`: so many changes of each family's file. Where a changed file loads, every CPU
kernel must give the reference's bits for it. A seed that fails is printed and can be run alone; one that ends the
process is the one after the last that `--verbose` printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from engine import format
from engine.backends import reference
from engine.backends.base import EngineError
from engine.backends.cpu import CpuBackend, available_kernels
from engine.model import Model, ModelFileError
from engine.networks import bfcn, multibranch, unet
from engine.plan import compile_plan
from tests.cases import same
from tests.engine.model_files import Description, Tensors, read
from tests.models import random_model

FAMILIES = {
    "MBU-Net": unet.layers(3),
    "MBU-Net W1A2": unet.layers(3, masked=("Down1", "Up4"), activation_bits=2),
    "BFCN W1A2": bfcn.layers(3, classes=3),
    "BFCN W2A2": bfcn.layers(3, weight_bits=2),
    "multi-branch": multibranch.layers(3),
}
Rng = np.random.Generator


def mutate(data: bytes, seed: int, path: Path) -> None:
    """Write the file `data`, changed in the way that `seed` says, to `path`."""
    rng = np.random.default_rng(seed)
    path.write_bytes(data)
    if seed % 4 == 0:
        path.write_bytes(_bytes(data, rng))
        return
    description, tensors = read(path)
    for _ in range(rng.integers(1, 3)):
        if seed % 4 == 1:
            _tensors(tensors, rng)
        else:
            _description(description, rng)
    save_file(tensors, path, metadata={"mbunet": json.dumps(description)})


def works(path: Path) -> bool:
    """Whether the file at `path` is refused (False) or loads, and then gives the reference's bits (True)."""
    try:
        model = format.load(path)
        plan = compile_plan(model)
        backends = [CpuBackend(plan, kernel, 2) for kernel in available_kernels()]
    except (ModelFileError, EngineError):
        return False
    image = np.random.default_rng(0).integers(0, 256, (model.stride, model.stride + 16, 3), np.uint8)
    expected = reference.run(model, image).logits
    for backend in backends:
        masks, logits = backend.run([image], [0], want_logits=True)
        assert same(logits, [expected])
        assert np.array_equal(masks[0], reference.decide(expected, 0))
    return True


def _bytes(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    kind = rng.integers(4)
    if kind == 0:
        return data[: rng.integers(len(data))]
    if kind == 1:
        return data + rng.bytes(int(rng.integers(1, 100)))
    within = min(len(data), 4096) if kind == 2 else len(data)  # half of the time in the header
    for at in rng.integers(within, size=rng.integers(1, 9)):
        changed[at] = rng.integers(256)
    return bytes(changed)


def _tensors(tensors: Tensors, rng: Rng) -> None:
    name = str(rng.choice(sorted(tensors)))
    array = tensors[name]
    kind = rng.integers(7)
    if kind == 0:
        del tensors[name]
    elif kind == 1:
        tensors[f"{name}{rng.integers(3)}"] = array
    elif kind == 2:
        tensors[name] = array[..., : array.shape[-1] - 1] if array.ndim else array
    elif kind == 3:
        tensors[name] = array.astype(rng.choice(["int8", "uint8", "int16", "int32", "int64", "float32"]))
    elif kind == 4:
        tensors[name] = np.ascontiguousarray(array.T)
    elif array.size:  # values, ends of the type's range among them
        flat = array.reshape(-1).copy()
        ends = np.iinfo(array.dtype) if array.dtype.kind in "iu" else np.finfo(array.dtype)
        some = [ends.min, ends.max, 0, 1, int(rng.integers(0, 100))]
        flat[rng.integers(flat.size, size=3)] = np.array(some, object)[rng.integers(len(some), size=3)]
        tensors[name] = flat.reshape(array.shape)


def _description(description: Description, rng: Rng) -> None:
    """Change, remove, double or exchange one value anywhere in the description."""
    places: list[tuple[Any, Any]] = []

    def visit(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                visit(value[key])

    visit(description)
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(5)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif kind == 2:
        other, at = places[rng.integers(len(places))]
        holder[key] = json.loads(json.dumps(other[at])) if at in other or isinstance(other, list) else None
    else:
        holder[key] = _other(holder[key], rng)


def _other(value: Any, rng: Rng) -> Any:
    if isinstance(value, bool) or value is None or isinstance(value, (dict, list)):
        return [None, True, 0, "x", [], {}][rng.integers(6)]
    if isinstance(value, (int, float)):
        return [value + 1, value - 1, -value, 2 * value, 0, 1, 2, 3, 2**31, 2**63, 1e30, str(value)][rng.integers(12)]
    words = ["sign", "unsigned", "conv", "pool", "gate", "stem", "head", "masked", "binary", "image", "", value + "x"]
    return words[rng.integers(len(words))]


def file_of(family: str, folder: Path) -> bytes:
    """The file of a small random model of `family`."""
    path = folder / "model.safetensors"
    model: Model = random_model(layers=FAMILIES[family], zeros=0.6, seed=1)
    format.save(model, path)
    return path.read_bytes()


def main() -> int:
    """Change and load them; returns 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 2000), metavar=("FIRST", "END"))
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "changed.safetensors"
        for family in FAMILIES:
            data, counts = file_of(family, Path(folder)), Counter[str]()
            for seed in range(*options.seeds):
                if options.verbose:
                    print(f"{family}, seed {seed}", flush=True)
                mutate(data, seed, path)
                try:
                    counts["works" if works(path) else "refused"] += 1
                except Exception as error:  # whatever it is, it is what is looked for
                    failures += 1
                    print(f"{family}, seed {seed}: {type(error).__name__}: {error}", flush=True)
            print(f"{family}: {counts['refused']} refused, {counts['works']} work", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
