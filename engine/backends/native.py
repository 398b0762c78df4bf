"""What the native sessions of CPUs and GPUs share: how a plan is handed to them."""

from __future__ import annotations

from engine import _native, ops
from engine.backends.base import EngineError
from engine.plan import Plan, Step

Session = _native.Session | _native.CudaSession


def build(session: Session, plan: Plan) -> None:
    """Hand `plan` with its weights to a native session; raises EngineError for an operation that has none."""
    for tensor, life in zip(plan.tensors, plan.lifetimes, strict=True):
        signed = tensor.encoding == "sign"
        session.add_tensor(tensor.channels, tensor.stride, tensor.planes, signed, life.first, life.last)
    for step in plan.steps:
        _add(session, plan, step)


def _add(session: Session, plan: Plan, step: Step) -> None:
    layer, output, arrays = step.layer, step.output, plan.model.arrays(step.layer)
    if output is None:
        session.add_head(step.inputs[0], arrays["weight"], arrays["bias"], layer.doublings)
    elif layer.op == "stem":
        session.add_stem(output, arrays["weight"], arrays["theta"])
    elif layer.op == "pool":
        session.add_pool(step.inputs[0], output)
    elif layer.op == "gate":
        read, gate = step.inputs
        session.add_gate(read, gate, output)
    elif layer.op == "conv":
        weights = (plan.model.ternary(layer), ops.exponents(layer, arrays), arrays["theta"])
        if step.residual is None:
            session.add_convolution(step.inputs, output, *weights)
        else:
            added = (step.residual, layer.residual_exponent, arrays["residual_signs"])
            session.add_residual_convolution(step.inputs, output, *weights, *added)
    else:
        raise EngineError(f"layer {layer.name} is of a kind that no native session runs")
