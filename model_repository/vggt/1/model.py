"""VGGT: pictures of one scene in, a camera and depth for each out."""

from torch import nn

from gen3c.geometry.vggt.model import VggtProgram
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt, load_vggt
from gen3c_server.leaf import LeafModel
from gen3c_server.settings import UNTRAINED_SEED, Settings


class TritonPythonModel(LeafModel):
    signature = VGGT
    answers_on_cpu = True

    def build(self, settings: Settings) -> nn.Module:
        source = find_vggt(settings.vggt, settings.checkpoints)
        return VggtProgram(
            load_vggt(source, untrained_seed=UNTRAINED_SEED, device=settings.device, dtype=settings.dtype)
        )
