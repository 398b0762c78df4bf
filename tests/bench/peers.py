"""OpenVINO and ONNX Runtime on the folded full-precision network, as one would deploy it: from uint8 pixels to a mask.

The network is written as ONNX straight from the torch weights; both read it. What takes long (calibration) is kept in
a folder of the system's temporary directory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.layer import IMAGE, Layer
from tests.bench.contenders import Call, Contender, folded, image, our_model

CACHE = Path(tempfile.gettempdir()) / "mbunet-bench"
CALIBRATION = 4  # images; their number decides how good a model is, not how fast
CALIBRATION_SIZE = 128


def openvino(contender: Contender) -> Call:
    """The CPU plugin tuned for latency. Masked INT8 models are compiled with its setting for sparse weights."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(prepared(contender))
    model.reshape([1, contender.size, contender.size, 3])
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": contender.threads}
    if contender.precision != "int8":  # there the rest of the network runs at what the plugin thinks best
        options["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[contender.precision]
    elif contender.zeros:
        options["CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"] = 0.5
    request = core.compile_model(model, "CPU", options).create_infer_request()
    pixels = image(contender.size)[None]
    return lambda: request.infer([pixels], share_inputs=True)[0][0]


def onnxruntime(contender: Contender) -> Call:
    """The CPU provider, all optimisations."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = contender.threads
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(prepared(contender)), options, providers=["CPUExecutionProvider"])
    pixels = image(contender.size)[None]
    return lambda: session.run(None, {IMAGE: pixels})[0][0]


def prepared(contender: Contender) -> Path:
    """The contender's model file, made where it is not there yet."""
    plain = f"{contender.family}-{contender.width}-{contender.zeros:g}.onnx"
    floating = _cached(plain, lambda path: write_onnx(contender, path))
    if contender.precision != "int8":
        return floating
    if contender.kind == "openvino":
        return _cached(f"{plain}.nncf-{version('nncf')}.xml", lambda path: _quantise_for_openvino(floating, path))
    return _cached(f"{plain}.ort-{version('onnxruntime')}.onnx", lambda path: _quantise_for_onnxruntime(floating, path))


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """The file of this name; `make` may write others beside it, which stay beside it."""
    found = CACHE / name / name
    if not found.is_file():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            made = Path(folder) / "made"
            made.mkdir()
            make(made / name)
            os.rename(made, found.parent)
    return found


def _calibration() -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(1)
    for _ in range(CALIBRATION):
        yield rng.integers(0, 256, (1, CALIBRATION_SIZE, CALIBRATION_SIZE, 3), dtype=np.uint8)


def _quantise_for_openvino(floating: Path, out: Path) -> None:
    """Post-training quantisation by NNCF, weights and activations."""
    import nncf
    import openvino as ov

    model = ov.Core().read_model(floating)
    ov.save_model(nncf.quantize(model, nncf.Dataset(list(_calibration())), subset_size=CALIBRATION), out)


def _quantise_for_onnxruntime(floating: Path, out: Path) -> None:
    """Static quantisation to QDQ form, weights per channel."""
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = _calibration()

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            pixels = next(self.images, None)
            return None if pixels is None else {IMAGE: pixels}

    quantization.quantize_static(floating, out, Reader(), quant_format=quantization.QuantFormat.QDQ, per_channel=True)


# -- the network as ONNX -------------------------------------------------------------------------------------------


def write_onnx(contender: Contender, path: Path) -> None:
    """uint8 image [1, h, w, 3] -> uint8 mask [1, h, w], sides multiples of 16.

    With zeros the weights that are zero in our masked network of that share are zero here too.
    """
    import onnx
    from onnx import helper, numpy_helper

    network = folded(contender)
    masks = _kept(contender.width, contender.zeros) if contender.zeros else {}
    shape = [1, "height", "width"]
    graph = Graph(IMAGE)
    for layer in network.layers:
        weight, bias = _weights(network, layer)
        graph.add(layer, None if weight is None else weight * masks.get(layer.name, np.float32(1)), bias)
        if layer.residual:
            graph.add_residual(layer, stage_of(network, layer).gain.numpy())
    nodes = [helper.make_node(op, inputs, [output], **options) for op, inputs, output, options in graph.finished()]
    made = helper.make_graph(
        nodes,
        contender.family,
        [helper.make_tensor_value_info(IMAGE, onnx.TensorProto.UINT8, [*shape, 3])],
        [helper.make_tensor_value_info("mask", onnx.TensorProto.UINT8, shape)],
        [numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


Node = tuple[str, list[str], str, dict[str, Any]]  # operator, inputs, output, attributes


class Graph:
    """ONNX nodes of a layer list; a layer's output has the layer's name."""

    def __init__(self, pixels: str) -> None:
        self.constants: dict[str, NDArray[Any]] = {
            "1/255": np.array(1 / 255, np.float32),
            "0": np.zeros((), np.float32),
        }
        self.nodes: list[Node] = [
            ("Cast", [pixels], "float", {"to": 1}),
            ("Transpose", ["float"], "planes", {"perm": [0, 3, 1, 2]}),
            ("Mul", ["planes", "1/255"], "scaled", {}),
        ]
        self._names = {pixels: "scaled"}

    def add(self, layer: Layer, weight: NDArray[np.float32] | None, bias: NDArray[np.float32] | None) -> None:
        name, inputs = layer.name, [self._names.get(name, name) for name in layer.inputs]
        if layer.op == "pool":
            self.nodes.append(("MaxPool", inputs, name, {"kernel_shape": [2, 2], "strides": [2, 2]}))
            return
        if layer.op == "gate":
            self.constants["1.0"] = np.ones((), np.float32)
            self.nodes += [
                ("Min", [inputs[1], "1.0"], f"{name}.open", {}),
                ("Mul", [inputs[0], f"{name}.open"], name, {}),
            ]
            return
        assert weight is not None
        assert bias is not None
        if len(inputs) > 1:
            self.nodes.append(("Concat", inputs, f"{name}.input", {"axis": 1}))
            inputs = [f"{name}.input"]
        self.constants |= {f"{name}.weight": weight, f"{name}.bias": bias}
        options: dict[str, Any] = {"kernel_shape": list(weight.shape[2:])}
        transposed = layer.up > 1 and layer.kernel == 1
        if transposed:
            options["strides"] = [2, 2]
        elif layer.op != "head":
            options["pads"] = [1, 1, 1, 1]
        self.nodes.append(
            ("ConvTranspose" if transposed else "Conv", [*inputs, f"{name}.weight", f"{name}.bias"], name, options)
        )
        if layer.up > 1 and not transposed:
            self._then("DepthToSpace", name, [], {"blocksize": layer.up, "mode": "CRD"})
        if layer.op != "head" and not layer.residual:
            self._then("Relu", name)
        for _ in range(layer.doublings):
            self.constants["twice"] = np.array([1, 1, 2, 2], np.float32)
            linear = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            self._then("Resize", name, ["", "twice"], linear)

    def add_residual(self, layer: Layer, gain: NDArray[np.float32]) -> None:
        """Add gain [channels, 1, 1] times the residual to what `add` has made of `layer`, and end it with its ReLU."""
        name, residual = layer.name, self._names.get(layer.residual, layer.residual)
        self.constants[f"{name}.gain"] = gain
        self.nodes.append(("Mul", [residual, f"{name}.gain"], f"{name}.residual", {}))
        self._then("Add", name, [f"{name}.residual"])
        self._then("Relu", name)

    def _then(self, op: str, name: str, more: Sequence[str] = (), options: dict[str, Any] | None = None) -> None:
        """Another node behind what layer `name` gives so far."""
        before = self._names.get(name, name)
        self._names[name] = f"{before}.{op}"
        self.nodes.append((op, [before, *more], self._names[name], options or {}))

    def finished(self) -> list[Node]:
        """All nodes, with the decision behind the last."""
        self.constants["1"] = np.ones(1, np.int64)
        return [
            *self.nodes,
            ("Squeeze", [self.nodes[-1][2], "1"], "logits", {}),
            ("GreaterOrEqual", ["logits", "0"], "foreground", {}),
            ("Cast", ["foreground"], "mask", {"to": 2}),
        ]


def _weights(network: Any, layer: Layer) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """As torch and ONNX both order them."""
    if not layer.weights:
        return None, None
    stage = stage_of(network, layer)
    return stage.weight.detach().numpy(), stage.bias.detach().numpy()


def stage_of(network: Any, layer: Layer) -> Any:
    """The torch module of a layer."""
    from engine.train.network import key

    return network.stages[key(layer)]


def _kept(width: int, zeros: float) -> dict[str, NDArray[np.float32]]:
    """By layer: 0 where our masked network's weights are zero, else 1, in ONNX's order."""
    model = our_model(Contender("", "ours", width, zeros=zeros))
    return {
        layer.name: (model.ternary(layer) != 0)[0]
        .transpose((5, 0, 1, 2, 3, 4) if layer.up > 1 else (0, 5, 1, 2, 3, 4))
        .reshape(*((-1, layer.channels) if layer.up > 1 else (layer.channels, -1)), *2 * (layer.up * layer.kernel,))
        .astype(np.float32)
        for layer in model.layers
        if layer.weights == "masked"
    }
