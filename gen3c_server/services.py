"""The services of a job, as models of this server. Imported inside the server only."""

from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions, Contribution
from gen3c.fusion import Pool
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.scene import SourceView
from gen3c_server import bls, conditioner_wire, geometry_wire
from gen3c_server.errors import JobError


class ConditionerModel:
    """The model `conditioner` as a `gen3c.conditioning.Conditioner`."""

    def __call__(
        self,
        view: SourceView,
        cameras: Cameras,
        options: ConditionOptions,
        pool: Pool | None,
        keep: Tensor | None = None,
    ) -> Contribution:
        inputs = conditioner_wire.pack_call(view, cameras, options, pool, keep)
        return conditioner_wire.unpack_result(bls.call("conditioner", inputs, conditioner_wire.OUTPUTS))


class GeometryModel:
    """The model `geometry` as a `gen3c_server.pipeline.GeometryService`, for one job."""

    def __init__(self, cancel_token: str) -> None:
        self._cancel_token = cancel_token

    def __call__(self, frames: Frames, provider: str, file: bytes | None, watch: Watch) -> Geometry:
        # Its seed is fixed: the scene does not depend on the noise that the job asks for.
        options = geometry_wire.GeometryOptions(provider, cancel_token=self._cancel_token)
        inputs = geometry_wire.pack_call(frames, options, file)
        for response in bls.call_stream("geometry", inputs, geometry_wire.OUTPUTS):
            match geometry_wire.unpack_response(response):
                case geometry_wire.GeometryProgress(part, step, total):
                    watch.on_progress(f"geometry/{part}", step, total)
                case geometry:
                    watch.step("geometry", 1, 1)
                    return geometry
        raise JobError("INTERNAL", "The geometry model ended without an answer.")
