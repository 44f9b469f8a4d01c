"""The `geometry` model: frames in, depth and cameras out, by one of several providers. Inside the server only."""

import logging
import time

import triton_python_backend_utils as pb_utils

from gen3c.errors import InvalidInputError
from gen3c.geometry import files, sfm
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c_server import geometry_wire
from gen3c_server.geometry_wire import GeometryOptions, GeometryProgress
from gen3c_server.probe import PROBE_PROVIDER
from gen3c_server.settings import Settings
from gen3c_server.tensors import from_value, request_values
from gen3c_server.wire_errors import error_response

_REPORT_EVERY_S = 0.25


class GeometryModel:
    """Base of the model's `TritonPythonModel`."""

    def initialize(self, args: dict[str, str]) -> None:  # noqa: ARG002 (Triton's interface)
        logging.basicConfig(format="geometry %(levelname)s %(message)s")
        self._settings = Settings.from_environment()
        self._settings.apply_threads()

    def execute(self, requests: list["pb_utils.InferenceRequest"]) -> list["pb_utils.InferenceResponse"]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: "pb_utils.InferenceRequest") -> "pb_utils.InferenceResponse":
        try:
            frames, options, file = geometry_wire.unpack_call(request_values(request))
            if options.provider == PROBE_PROVIDER:
                return _response({"INFO": [b"{}"]})
            watch, max_pixels = self._watch(options.job), self._settings.limits.pixels
            return _response(geometry_wire.pack_result(_estimate(frames, options, file, watch, max_pixels)))
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


def _estimate(frames: Frames, options: GeometryOptions, file: bytes | None, watch: Watch, max_pixels: int) -> Geometry:
    match options.provider:
        case "sfm":
            return sfm.estimate(frames, watch, seed=options.seed)
        case "file" if file is not None:
            return files.read_geometry(file, frames, max_pixels=max_pixels)
        case _:
            legal = "'sfm', or 'file' with GEOMETRY"
            raise InvalidInputError(f"provider is {options.provider!r}; legal: {legal}.", "spec.geometry.provider")


def _response(wire: geometry_wire.Wire) -> "pb_utils.InferenceResponse":
    return pb_utils.InferenceResponse([from_value(name, value) for name, value in wire.items()])
