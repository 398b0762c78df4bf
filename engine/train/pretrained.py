"""Networks that a run begins from or learns from: other runs' checkpoints, and model files."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine import format, ops
from engine.model import Model
from engine.runtime import resolve
from engine.train import checkpoint, families, unfold
from engine.train.config import Config
from engine.train.data import dataset
from engine.train.network import Network
from engine.train.renamed import current

SHAPE = ("family", "width", "branches", "gates", "weight_bits")
"""Settings that decide on the shapes of a network's weights."""

PREPARED = ("contrast", "resize", "keep_aspect", "channel", "page")
"""Settings that decide on what of an image a network sees."""


class MismatchError(ValueError):
    """Another run's network that this run cannot use as it is asked to; the message says what would help."""


@dataclass(frozen=True)
class Pretrained:
    """A checkpoint: the state of its network, by the name of each tensor, of what run and how far, and its split."""

    path: str
    state: Mapping[str, Tensor]
    config: Config
    step: int
    progress: float
    parts: dataset.Parts | None

    def network(self) -> Network:
        """Its network, in evaluation mode."""
        network = Network(self.config.layers(), self.config.full_precision, self.config.ramp)
        try:
            network.load_state_dict(self.state)
        except RuntimeError as error:
            raise checkpoint.CheckpointError(f"the weights in {self.path} are not those of its network") from error
        network.set_zeros(self.config.zeros_at(self.progress), self.config.zeros_by)
        return network.eval()

    def seen(self, samples: Sequence[dataset.Sample], data: str) -> list[str]:
        """Names of those of `samples`, all in the folder `data`, that its training has seen.

        Earlier versions kept no split: of their runs on a folder of that name it is drawn again, by its seed.
        """
        if self.parts:
            return [sample.name for sample in self.parts.divide(samples)[0]]
        if Path(self.config.data).name != Path(data).name:
            return []
        return [sample.name for sample in dataset.split(samples, self.config.share, self.config.seed)[0]]


@dataclass(frozen=True)
class Shipped:
    """A model file, by its path or the name of a shipped model."""

    path: str
    model: Model

    @property
    def classes(self) -> tuple[str, ...]:
        """As a run's setting: none of a model with one class."""
        return tuple(info.name for info in self.model.classes) if len(self.model.classes) > 1 else ()

    def seen(self, samples: Sequence[dataset.Sample], data: str) -> list[str]:
        """As `Pretrained.seen`."""
        story = current(self.model.provenance)
        if parts := dataset.Parts.told(story.get("parts", {})):
            return [sample.name for sample in parts.divide(samples)[0]]
        split = story.get("split", {})
        if story.get("data") != Path(data).name or not {"validation", "seed"} <= split.keys():
            return []
        return [sample.name for sample in dataset.split(samples, split["validation"], split["seed"])[0]]


def load_any(name: str) -> Pretrained | Shipped:
    """The checkpoint or the model file at `name`, or the shipped model of that name."""
    return load(name) if name.endswith(".pt") else Shipped(name, format.load(file_of(name)))


def file_of(name: str) -> Path:
    """The file that `load_any` reads."""
    return Path(name) if name.endswith(".pt") else resolve(name)


def settings(init: str) -> dict[str, Any]:
    """Settings of a run that begins from `init` as long as nothing else is asked for: its shape, how images are
    prepared and, where it has bits, that it has them from the start."""
    found = load_any(init)
    if isinstance(found, Pretrained):
        names = (*SHAPE, "activation_bits", *PREPARED, "masked", "weights", "classes")
        taken = {name: getattr(found.config, name) for name in names}
        return taken | ({} if found.config.full_precision else _from_bits(found.config.zeros))
    model, story = found.model, found.model.provenance
    bits, how = model.layers[0].planes, model.preprocessing
    taken = {"family": model.family, "width": story.get("width", model.layers[0].channels)}
    taken |= {name: story[name] for name in families.OWN.get(model.family, ()) if name in story}
    taken |= {"masked": families.masked(model.family, model.layers)}
    taken |= {"activation_bits": 0 if bits == families.ACTIVATION_BITS[model.family] else bits}
    taken |= {"contrast": how.contrast, "resize": how.height, "keep_aspect": how.resize_mode == "aspect"}
    taken |= {"channel": how.channel, "page": how.page}
    return taken | {"classes": found.classes} | _from_bits(round(story.get("zeros", 0.0), 3))


def _from_bits(zeros: float) -> dict[str, Any]:
    return {"annealing": 0.0, "zeros": zeros, "zeros_from": zeros}


def load(path: str) -> Pretrained:
    """The checkpoint at `path`; raises CheckpointError and OSError."""
    state = checkpoint.read(path)
    config, step = checkpoint.config_of(state), state["step"]
    return Pretrained(path, state["network"], config, step, state.get("progress", step / config.steps), parts_of(state))


def parts_of(state: Mapping[str, Any]) -> dataset.Parts | None:
    """The split in a checkpoint's state; None in those of earlier versions."""
    kept = state.get("parts")
    return dataset.Parts(frozenset(kept["training"]), frozenset(kept["validation"])) if kept else None


def begin(network: Network, found: Pretrained | Shipped, config: Config, batches: Iterable[Tensor]) -> list[str]:
    """Give `network`, which `config` describes, the weights of `found`; returns what must be said of that.

    On the pixels of `batches` the batch norm of a model file is estimated, which it does not hold.

    Quantizers and bits may differ, and classes too: the head then begins anew. Raises MismatchError.
    """
    if isinstance(found, Shipped):
        if config.full_precision:
            raise MismatchError(f"{found.path} holds bits; a network in full precision cannot begin from them")
        same_classes = found.classes == config.classes
        unfold.begin(network, found.model, batches, config.seed + config.run_seed, same_classes)
        return [] if same_classes else [_new_head(found.path)]
    own, taken = network.state_dict(), dict(found.state)
    other_classes = found.config.classes != config.classes
    if other_classes:
        taken |= {name: tensor for name, tensor in own.items() if name.startswith(f"stages.{network.layers[-1].name}.")}
    if _shapes(taken) != _shapes(own):
        raise MismatchError(_other_shape(found, config))
    network.warm_start(taken)
    return [_new_head(found.path)] if other_classes else []


def teacher(found: Pretrained, config: Config) -> Network:
    """The network of `found`, for the run `config` to learn from; raises MismatchError where it could not."""
    theirs = found.config
    if not theirs.full_precision:
        raise MismatchError(f"{found.path} is a network of bits; a teacher is trained with --full-precision")
    if theirs.classes != config.classes:
        raise MismatchError(
            f"{found.path} knows {_named(theirs.classes)}, this run {_named(config.classes)}: a teacher has the same"
        )
    if theirs.preprocessing != config.preprocessing:
        differing = [name for name in PREPARED if getattr(theirs, name) != getattr(config, name)]
        flags = " ".join(_flag(name, getattr(theirs, name)) for name in differing)
        raise MismatchError(f"{found.path} has learned from images that were prepared otherwise; give {flags}")
    stride = ops.stride(theirs.layers())
    if config.crop % stride:
        raise MismatchError(f"{found.path} takes crops whose side is a multiple of {stride}, not {config.crop}")
    return found.network()


def flattered(
    found: Pretrained | Shipped, validation: Sequence[str], everything: Sequence[dataset.Sample], data: str
) -> str:
    """A warning where `found` was trained on some of the samples `validation` of a run; "" where it was not."""
    seen = sorted(set(found.seen(everything, data)) & set(validation))
    if not seen:
        return ""
    return (
        f"{found.path} was trained on {len(seen)} of the {len(validation)} validation images ({seen[0]}"
        f"{', …' if len(seen) > 1 else ''}), so their scores will flatter; {_split(found)}"
    )


def _split(found: Pretrained | Shipped) -> str:
    if isinstance(found, Shipped):
        split = current(found.model.provenance).get("split", {})
        told = {name: split.get(name) for name in ("seed", "validation")}
    else:
        own = found.config
        told = {"seed": own.seed, "validation": own.validation} | ({"group": own.group} if own.group else {})
    return "its split is " + " ".join(_flag(name, value) for name, value in told.items())


def _new_head(path: str) -> str:
    return f"the classes are not those of {path}: the head begins anew"


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors but the scales of weights, which follow from these."""
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(".scale")}


def _other_shape(found: Pretrained, config: Config) -> str:
    differing = [name for name in SHAPE if getattr(found.config, name) != getattr(config, name)]
    theirs = " ".join(_flag(name, getattr(found.config, name)) for name in differing)
    ours = " ".join(_flag(name, getattr(config, name)) for name in differing)
    if not differing:
        return f"{found.path}: its weights have other shapes than those of this run"
    return (
        f"{found.path} has {theirs}, this run {ours}, so its weights do not fit: give {theirs}, or learn from it "
        "as a --teacher, which may be any in full precision"
    )


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"no {flag}"
    return f"{flag} {shlex.quote(str(value))}"


def _named(classes: Sequence[str]) -> str:
    return f"the classes {', '.join(classes)}" if classes else "one class"
