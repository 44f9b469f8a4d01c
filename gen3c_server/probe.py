"""One small inference of every model that a job needs: proof that the whole graph answers. Inside the server only."""

import torch

from gen3c.conditioning import Cameras, ConditionOptions
from gen3c.fusion import Pool
from gen3c.generator.rollout import Programs
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.geometry.types import Frames
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_1B, Preset
from gen3c.scene import SourceView
from gen3c_server import bls, geometry_wire

PROBE_PROVIDER = "probe"  # the geometry model answers it at once, with nothing


def probe_graph(preset: Preset, programs: Programs, *, with_geometry: bool) -> None:
    """Call every model of the server once with blank tensors; raises the first error."""
    height, width = preset.height, preset.width
    blank = torch.zeros(height, width)
    view = SourceView(torch.zeros(3, height, width), blank, blank, torch.eye(4), torch.eye(3))
    cameras = Cameras(
        torch.eye(4).expand(preset.chunk_frames, -1, -1), torch.eye(3).expand(preset.chunk_frames, -1, -1)
    )
    programs.conditioner(view, cameras, ConditionOptions(), Pool.empty(preset.latent_shape))
    sizes = symbols(preset)
    latent = programs.dit({spec.name: torch.ones(spec.sizes(sizes)) for spec in DIT.inputs})["OUT"]
    bls.LeafProgram(VIDEO_DECODER)({"LATENT": latent})
    bls.LeafProgram(VIDEO_ENCODER)({"VIDEO": torch.zeros(1, 3, 1, height, width)})
    bls.LeafProgram(VGGT)({"IMAGES": torch.zeros(1, 2 * VGGT_1B.patch, 2 * VGGT_1B.patch, 3, dtype=torch.uint8)})
    if not with_geometry:
        return
    frames = Frames(
        torch.zeros(1, 16, 16, 3, dtype=torch.uint8), torch.tensor([[16, 16]], dtype=torch.int32), ("probe",)
    )
    call = geometry_wire.pack_call(frames, geometry_wire.GeometryOptions(PROBE_PROVIDER), None)
    bls.call("geometry", call, ["INFO"])
