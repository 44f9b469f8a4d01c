"""A leaf of the serving graph: one tensor program behind Triton's python backend. Imported inside the server only."""

from dataclasses import replace

import triton_python_backend_utils as pb_utils
from torch import Tensor, nn

from gen3c.generator.signatures import ONE_VALUE_A_CALL
from gen3c.program import LocalProgram, Program, Signature
from gen3c_server.batching import Answer, answer_all
from gen3c_server.deployment import instance_device
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

    def initialize(self, args: dict[str, str]) -> None:
        settings = Settings.from_environment()
        settings = replace(settings, device=instance_device(args, settings.device))
        settings.apply_threads()
        program: Program = LocalProgram(self.build(settings), self.signature)
        if self.answers_on_cpu:
            program = answering_on_cpu(program)
        self._program = program if self.keeps_memory else releasing(program, settings.device)

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        """More than one request comes only with dynamic batching (gen3c_server.deployment)."""
        one_value = ONE_VALUE_A_CALL.get(self.signature.name, ())
        answers = answer_all(self._program, self.signature, [_inputs(request) for request in requests], one_value)
        return [_response(answer) for answer in answers]


def _inputs(request: "pb_utils.InferenceRequest") -> dict[str, Tensor] | Exception:
    try:
        return {name: value for name, value in request_values(request).items() if isinstance(value, Tensor)}
    except Exception as error:
        return error


def _response(answer: Answer) -> "pb_utils.InferenceResponse":
    try:
        if isinstance(answer, Exception):
            raise answer
        return pb_utils.InferenceResponse([from_value(name, tensor) for name, tensor in answer.items()])
    except Exception as error:
        return error_response(error)
