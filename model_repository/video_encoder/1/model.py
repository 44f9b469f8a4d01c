"""The video tokenizer's encoder."""

from torch import nn

from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.generator.weights import load_vae
from gen3c_server.leaf import LeafModel
from gen3c_server.settings import Settings


class TritonPythonModel(LeafModel):
    signature = VIDEO_ENCODER

    def build(self, settings: Settings) -> nn.Module:
        vae, _ = settings.load(load_vae)
        return VideoEncoder(vae)
