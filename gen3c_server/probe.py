"""One small inference of every model that a job needs: proof that the whole graph answers. Inside the server only."""

from collections.abc import Callable

import torch

from gen3c.conditioning import Cameras, ConditionOptions
from gen3c.fusion import Pool
from gen3c.generator.rollout import Programs
from gen3c.geometry.types import Frames
from gen3c.networks import NETWORKS
from gen3c.scene import SourceView
from gen3c_server import bls, geometry_wire
from gen3c_server.errors import JobError
from gen3c_server.serving import Serving

PROBE_PROVIDER = "probe"  # the geometry model answers it at once, with nothing


def probe_graph(serving: Serving, programs: Programs, *, with_geometry: bool, is_stopping: Callable[[], bool]) -> None:
    """Call every model of the server once with blank tensors.

    Raises the first error; JobError UNAVAILABLE, before the next call, once the server is stopping: it waits for us.
    """

    def go_on() -> None:
        if is_stopping():
            raise JobError("UNAVAILABLE", "The server is shutting down.", reason="shutdown")

    go_on()
    preset = serving.settings.preset
    height, width = preset.height, preset.width
    blank = torch.zeros(height, width)
    view = SourceView(torch.zeros(3, height, width), blank, blank, torch.eye(4), torch.eye(3))
    cameras = Cameras(
        torch.eye(4).expand(preset.chunk_frames, -1, -1), torch.eye(3).expand(preset.chunk_frames, -1, -1)
    )
    programs.conditioner(view, cameras, ConditionOptions(), Pool.empty(preset.latent_shape))
    for name in serving.leaves():
        go_on()
        sizes = serving.least_sizes(name)
        inputs = {
            spec.name: torch.ones(spec.sizes(sizes), dtype=spec.cpu_dtype) for spec in NETWORKS[name].signature.inputs
        }
        serving.leaf(name)(inputs)
    if not with_geometry:
        return
    go_on()
    frames = Frames(
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8), torch.tensor([[16, 16]], dtype=torch.int32), ("probe",)
    )
    call = geometry_wire.pack_call(frames, geometry_wire.GeometryOptions(PROBE_PROVIDER), None)
    bls.call("geometry", call, ["INFO"])
