"""What the native sessions of CPUs and GPUs share: how a plan is handed to them."""

from __future__ import annotations

from engine import _native
from engine.model import Model
from engine.plan import Plan

EXPLAINED = {
    "pixels3x3": "int16 fixed point, exact in int32",
    "pool2x2": "OR of four bits",
    "head1x1": "int16 fixed point, exact in int32",
}
"""Why a layer runs on the kernel that it runs on, by operation, where every native backend has the same reason."""


def build(session: _native.Session | _native.CudaSession, model: Model, plan: Plan) -> None:
    """Hand `plan` with its weights to a native session."""
    for slot in plan.slots:
        session.add_tensor(slot.channels, slot.stride)
    for step in plan.steps:
        layer, inputs, output = step.layer, step.inputs, step.output
        if output is None:
            session.add_head(inputs[0], model.tensors[f"{layer.name}.weight"], model.tensors[f"{layer.name}.bias"])
        elif layer.op == "pool2x2":
            session.add_pool(inputs[0], output, layer.channels)
        else:
            theta = model.tensors[f"{layer.name}.theta"][:, 0].copy()  # one plane has one threshold
            if layer.op == "pixels3x3":
                session.add_stem(output, model.tensors[f"{layer.name}.weight"], theta)
            else:
                upsamples = layer.op == "upconv2x2"
                session.add_convolution(upsamples, inputs, step.input_channels, output, model.signs(layer), theta)
