"""The `conditioner` model: one view of one chunk, rendered, encoded and folded. Imported inside the server only."""

import logging

import triton_python_backend_utils as pb_utils

from gen3c.conditioning import ViewConditioner
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c_server import conditioner_wire
from gen3c_server.gpu_memory import release
from gen3c_server.serving import Serving
from gen3c_server.tensors import from_value, request_values
from gen3c_server.traces import Traces
from gen3c_server.wire_errors import error_response


class ConditionerModel:
    """Base of the model's `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(format="conditioner %(levelname)s %(message)s")
        serving = Serving.of(args)
        serving.settings.apply_threads()
        self._device = serving.settings.device
        self._conditioner = ViewConditioner(serving.near(VIDEO_ENCODER.name), self._device)
        self._traces = Traces(serving.settings.otlp_endpoint, args["model_name"])

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        responses = []
        for request in requests:
            with self._traces.answering("conditioner", request.parameters()):
                responses.append(self._answer(request))
        release(self._device)
        return responses

    def finalize(self) -> None:
        self._traces.close()

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            result = self._conditioner(*conditioner_wire.unpack_call(request_values(request)))
            wire = conditioner_wire.pack_result(result)
            return pb_utils.InferenceResponse([from_value(name, value) for name, value in wire.items()])
        except Exception as error:
            return error_response(error)
