"""Calls from one model of the server to another. Imported inside the server only."""

from collections.abc import Mapping, Sequence

import torch
import triton_python_backend_utils as pb_utils
from torch import Tensor

from gen3c.exported.manifest import Artifact
from gen3c.program import Signature
from gen3c_server.errors import JobError
from gen3c_server.tensors import from_value, response_values
from gen3c_server.traces import calling

Values = dict[str, Tensor | list[bytes]]


def call(model: str, inputs: Mapping[str, Tensor | Sequence[bytes]], outputs: Sequence[str]) -> Values:
    """One inference of another model; its error comes back as a JobError."""
    with calling(model) as parameters:
        return _checked(model, _request(model, inputs, outputs, parameters).exec())


class LeafProgram:
    """A leaf model as a `gen3c.program.Program`; `artifact` tells what it is called with, if it was built."""

    def __init__(self, signature: Signature, artifact: Artifact | None = None) -> None:
        self._name = signature.name
        inputs, outputs = (artifact.inputs, artifact.outputs) if artifact is not None else ([], [])
        self._dtypes = {tensor.name: getattr(torch, tensor.dtype) for tensor in inputs}
        self._wire = {tensor.name: tensor.wire for tensor in inputs}
        self._outputs = {tensor.wire: tensor.name for tensor in outputs} or {s.name: s.name for s in signature.outputs}

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One inference. Raises JobError if the leaf fails."""
        sent = {
            self._wire.get(name, name): tensor.to(self._dtypes.get(name, tensor.dtype))
            for name, tensor in inputs.items()
        }
        values = call(self._name, sent, list(self._outputs))
        return {self._outputs[wire]: value for wire, value in values.items() if isinstance(value, Tensor)}


def _request(
    model: str,
    inputs: Mapping[str, Tensor | Sequence[bytes]],
    outputs: Sequence[str],
    parameters: dict[str, str],
) -> "pb_utils.InferenceRequest":
    return pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[from_value(name, value) for name, value in inputs.items()],
        parameters=parameters,
    )


def _checked(model: str, response: "pb_utils.InferenceResponse") -> Values:
    if response.has_error():
        message = response.error().message()
        if "is not healthy" in message or "is not ready" in message:
            raise JobError("UNAVAILABLE", f"The model {model!r} of the server has died; try again once it restarted.")
        if "Exceeds maximum queue size" in message or "Request timeout expired" in message:
            raise JobError("UNAVAILABLE", f"The model {model!r} of the server has too many calls; try again later.")
        raise JobError.from_wire(message)
    return response_values(response)
