"""What the native sessions of CPUs and GPUs share: how a plan is handed to them."""

from __future__ import annotations

from engine import _native, ops
from engine.backends.base import EngineError
from engine.layer import Layer
from engine.plan import Plan


def build(session: _native.Session | _native.CudaSession, plan: Plan) -> None:
    """Hand `plan` with its weights to a native session."""
    model = plan.model
    for layer in model.layers:
        _check_supported(layer)
    for tensor in plan.tensors:
        session.add_tensor(tensor.channels, tensor.stride)
    for step in plan.steps:
        layer, output, arrays = step.layer, step.output, model.arrays(step.layer)
        if output is None:
            session.add_head(step.inputs[0], arrays["weight"], arrays["bias"])
        elif layer.op == "pool":
            session.add_pool(step.inputs[0], output, layer.channels)
        else:
            theta = arrays["theta"][:, 0].copy()  # one plane has one threshold
            if layer.op == "stem":
                session.add_stem(output, arrays["weight"], theta)
            else:
                side, channels = layer.up * layer.kernel, model.input_channels(layer)
                signs = model.ternary(layer).reshape(layer.channels, side, side, sum(channels))
                session.add_convolution(layer.up == 2, step.inputs, channels, output, signs, theta)


def _check_supported(layer: Layer) -> None:
    one_bit = layer.planes == 1 and layer.encoding == "sign" and layer.segments == 1
    plain = layer.op != "gate" and not layer.residual and not layer.doublings
    shape = not ops.operation(layer).has_bits or (layer.kernel, layer.up) in ((3, 1), (1, 2))
    if not (one_bit and plain and shape):
        raise EngineError(f"layer {layer.name} is of a kind that only the reference runs")
