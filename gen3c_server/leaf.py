"""A leaf of the serving graph: one tensor program behind Triton's python backend. Imported inside the server only."""

import triton_python_backend_utils as pb_utils
from torch import Tensor, nn

from gen3c.program import LocalProgram, Program, Signature
from gen3c_server.gpu_memory import answering_on_cpu, releasing
from gen3c_server.settings import Settings
from gen3c_server.tensors import from_value, request_values
from gen3c_server.wire_errors import error_response


class LeafModel:
    """Base of a leaf's `TritonPythonModel`: subclasses say which program and how to build it."""

    signature: Signature
    keeps_memory = False  # of the GPU, between calls: only where the next one follows at once
    answers_on_cpu = False  # where the caller has no business on a GPU, and its answers are small

    def build(self, settings: Settings) -> nn.Module:
        """The module to serve, with its weights."""
        raise NotImplementedError

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 (Triton's interface)
        settings = Settings.from_environment()
        settings.apply_threads()
        program: Program = LocalProgram(self.build(settings), self.signature)
        if self.answers_on_cpu:
            program = answering_on_cpu(program)
        self._program = program if self.keeps_memory else releasing(program, settings.device)

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            inputs = {k: v for k, v in request_values(request).items() if isinstance(v, Tensor)}
            outputs = self._program(inputs)
            return pb_utils.InferenceResponse([from_value(name, tensor) for name, tensor in outputs.items()])
        except Exception as error:
            return error_response(error)
