"""The `geometry` model: frames in, depth and cameras out, by one of several providers. Inside the server only."""

import logging
import time

import triton_python_backend_utils as pb_utils

from gen3c.geometry.types import Watch
from gen3c_server import geometry_wire
from gen3c_server.geometry_providers import GeometryProviders
from gen3c_server.geometry_wire import GeometryProgress
from gen3c_server.probe import PROBE_PROVIDER
from gen3c_server.serving import Serving
from gen3c_server.tensors import from_value, request_values
from gen3c_server.traces import Traces
from gen3c_server.wire_errors import error_response

_REPORT_EVERY_S = 0.25


class GeometryModel:
    """Base of the model's `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:
        logging.basicConfig(format="geometry %(levelname)s %(message)s")
        serving = Serving.of(args)
        self._settings = serving.settings
        self._settings.apply_threads()
        self._providers = GeometryProviders(serving.vggt(), self._settings.limits.pixels)
        self._traces = Traces(self._settings.otlp_endpoint, args["model_name"])

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        responses = []
        for request in requests:
            with self._traces.answering("geometry", request.parameters()):
                responses.append(self._answer(request))
        return responses

    def finalize(self) -> None:
        self._traces.close()

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            frames, options, file = geometry_wire.unpack_call(request_values(request))
            if options.provider == PROBE_PROVIDER:
                return _response({"INFO": [b"{}"]})
            geometry = self._providers.estimate(frames, options, file, self._watch(options.job))
            return _response(geometry_wire.pack_result(geometry))
        except Exception as error:
            return error_response(error)

    def _watch(self, job: str) -> Watch:
        if not job.isalnum():  # whoever can call this model may not name other files of the server
            return Watch()
        cancel, progress = self._settings.cancel_dir / job, self._settings.progress_dir / job
        last = 0.0

        def report(part: str, step: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= _REPORT_EVERY_S or step == total:
                last = now
                geometry_wire.write_progress(progress, GeometryProgress(part, step, total))

        return Watch(cancel.exists, report)


def _response(wire: geometry_wire.Wire) -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse([from_value(name, value) for name, value in wire.items()])
