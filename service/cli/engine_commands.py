"""Commands that look at an engine: what a model is and what would run it, whether that is right, how fast it is."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from service.cli import flags
from service.cli.terminal import table
from service.settings import Settings

if TYPE_CHECKING:
    from engine.model import Model


def add(commands: Any) -> None:
    """Add them to the parser's commands."""
    _info_flags(flags.command(commands, info))
    _bench_flags(flags.command(commands, bench))
    _selftest_flags(flags.command(commands, selftest))


def info(args: argparse.Namespace) -> int:
    """Print a model's layers, weights, share of zeros, classes and provenance, and what would run them."""
    from service.core.engine import load

    with load(args.model, flags.settings_of(args)) as engine:
        model, rows = engine.model, engine.describe()
    print(f"{model.name} ({model.family}), threshold {model.threshold:g}")
    print(f"classes: {', '.join(entry.name for entry in model.classes)}")
    print(f"preprocessing: {model.preprocessing}\n")
    print(table(_layer_rows(model)))
    print(f"\non {engine.device}:\n")
    print(table([{name: row[name] for name in ("layer", "kernel", "why")} for row in rows]))
    print(f"\nprovenance: {json.dumps(model.provenance, indent=2, sort_keys=True)}")
    return 0


def selftest(args: argparse.Namespace) -> int:
    """Compare every backend of this machine with the reference on models, or without any with the golden files."""
    from engine.selftest import run, run_model

    rows = [row for model in args.models for row in run_model(model, args.kernel)]
    rows = rows or run(args.kernel)
    print(table(rows))
    return 0 if all(row["ok"] for row in rows) else 1


def bench(args: argparse.Namespace) -> int:
    """Time every layer of a model, on this machine's CPU or by --device cuda on a GPU, beside the measured ceiling."""
    from engine.format import load
    from engine.runtime import resolve

    settings = flags.settings_of(args)
    if settings.device == "reference":
        raise ValueError("the reference is not made to be fast: bench takes --device cpu or cuda")
    model = load(resolve(flags.one_model(args)))
    (_bench_gpu if settings.device.startswith("cuda") else _bench_cpu)(model, settings, args)
    return 0


def _bench_gpu(model: Model, settings: Settings, args: argparse.Namespace) -> None:
    from engine import roofline
    from engine.backends import registry
    from engine.backends.cuda import CudaBackend
    from engine.plan import compile_plan

    device, backend = registry.choose(compile_plan(model), settings.device, settings.threads, settings.kernel)
    assert isinstance(backend, CudaBackend)
    times, peak = roofline.gpu_layer_times(model, backend, args.size, args.batch, args.runs), backend.session.peak()
    whole = backend.session.seconds(0, len(times), args.runs)
    print(f"{model.name}, {device}, {args.batch} x {args.size} x {args.size}, means of {args.runs} runs\n")
    print(table(roofline.gpu_report(times, peak)))
    print(f"the network: {1e6 * whole:.1f} us, {args.batch / whole:.0f} images/s")
    print(f"products of bits alone: {peak / 1e12:.0f} Top/s")


def _bench_cpu(model: Model, settings: Settings, args: argparse.Namespace) -> None:
    from engine import cores, roofline
    from engine.backends.cpu import CpuBackend
    from engine.plan import compile_plan

    threads = settings.threads or cores.available()
    kernel = CpuBackend(compile_plan(model), settings.kernel, threads).kernel
    print(f"{model.name}, kernel {kernel}, {threads} threads, {args.size} x {args.size}, medians of {args.runs} runs\n")
    ceilings = roofline.ceilings(kernel, threads) if args.peak else {}
    rows = roofline.layer_times(model, kernel, threads, args.size, args.runs)
    print(table(roofline.report(rows, ceilings.get("L1"))))
    for source, rate in ceilings.items():
        print(f"carry-save additions fed from {source}: {rate / 1e9:.0f} non-zero GMAC/s, {rate / 8e9:.0f} GB/s read")


def _info_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", help=flags.MODEL_HELP)
    flags.add_settings(command, *flags.ENGINE)


def _selftest_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="FILE", help=flags.MODEL_HELP + "; by default the golden files")
    text = "a kernel of the CPU engine, reference, or cuda:0; may be repeated; by default all that this machine has"
    command.add_argument("--kernel", action="append", help=text)


def _bench_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--peak", action="store_true", help="measure what the machine can do at best as well")
    command.add_argument("--size", type=flags.count, default=512, help="sides of the image in pixels (default: 512)")
    command.add_argument("--runs", type=flags.count, default=30, help="how often the image is run (default: 30)")
    command.add_argument("--batch", type=flags.count, default=1, help="images at a time, on a GPU (default: 1)")
    command.add_argument("--model", metavar="X", help=f"{flags.MODEL_HELP} (default: {Settings().models[0]})")
    flags.add_settings(command, *flags.ENGINE)


def _layer_rows(model: Model) -> list[dict[str, Any]]:
    rows = []
    for layer in model.layers:
        row: dict[str, Any] = {"layer": layer.name, "op": layer.op, "weights": layer.weights or "-"}
        row |= {"inputs": " ".join(layer.inputs), "channels": layer.channels, "non-zero": "", "zeros": ""}
        if layer.weights in ("binary", "masked"):
            signs = model.ternary(layer)
            nonzero = int((signs != 0).sum())
            row |= {"non-zero": nonzero, "zeros": f"{1 - nonzero / signs.size:.1%}"}
        rows.append(row)
    return rows
