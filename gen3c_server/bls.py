"""Calls from one model of the server to another. Imported inside the server only."""

from collections.abc import Mapping, Sequence

import triton_python_backend_utils as pb_utils
from torch import Tensor

from gen3c.program import Signature
from gen3c_server.errors import JobError
from gen3c_server.tensors import from_value, response_values

Values = dict[str, Tensor | list[bytes]]


def call(model: str, inputs: Mapping[str, Tensor | Sequence[bytes]], outputs: Sequence[str]) -> Values:
    """One inference of another model; its error comes back as a JobError."""
    return _checked(model, _request(model, inputs, outputs).exec())


class LeafProgram:
    """A leaf model as a `gen3c.program.Program`."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One inference. Raises JobError if the leaf fails."""
        values = call(self._signature.name, inputs, [spec.name for spec in self._signature.outputs])
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _request(
    model: str, inputs: Mapping[str, Tensor | Sequence[bytes]], outputs: Sequence[str]
) -> "pb_utils.InferenceRequest":
    return pb_utils.InferenceRequest(
        model_name=model,
        requested_output_names=list(outputs),
        inputs=[from_value(name, value) for name, value in inputs.items()],
    )


def _checked(model: str, response: "pb_utils.InferenceResponse") -> Values:
    if response.has_error():
        message = response.error().message()
        if "is not healthy" in message or "is not ready" in message:
            raise JobError("UNAVAILABLE", f"The model {model!r} of the server has died; the server must be restarted.")
        raise JobError.from_wire(message)
    return response_values(response)
