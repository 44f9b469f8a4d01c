"""A leaf of the serving graph: one tensor program behind Triton's python backend. Imported inside the server only."""

import triton_python_backend_utils as pb_utils
from torch import Tensor

from gen3c.generator.signatures import ONE_VALUE_A_CALL
from gen3c.networks import network
from gen3c.program import Program, Signature
from gen3c_server.batching import Answer, answer_all
from gen3c_server.gpu_memory import answering_on_cpu, releasing
from gen3c_server.serving import Serving
from gen3c_server.tensors import from_value, request_values
from gen3c_server.wire_errors import error_response

KEEP_MEMORY = ("dit",)  # of the GPU, between calls: the next one follows at once
ANSWER_ON_CPU = ("vggt", "text_encoder")  # whose callers have no business on a GPU, and whose answers are small


class LeafModel:
    """Base of a leaf's `TritonPythonModel`. The model's name says which program it is."""

    def initialize(self, args: dict[str, str]) -> None:
        serving = Serving.of(args)
        serving.settings.apply_threads()
        name = args["model_name"]
        self._signature, program = self.open(serving, name)
        if name in ANSWER_ON_CPU:
            program = answering_on_cpu(program)
        self._program = program if name in KEEP_MEMORY else releasing(program, serving.settings.device)

    def open(self, serving: Serving, name: str) -> tuple[Signature, Program]:
        """What the model runs."""
        return network(name).signature, serving.local(name)

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        """More than one request comes only with dynamic batching (gen3c_server.deployment)."""
        one_value = ONE_VALUE_A_CALL.get(self._signature.name, ())
        answers = answer_all(self._program, self._signature, [_inputs(request) for request in requests], one_value)
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
