"""The video tokenizer's decoder."""

from torch import nn

from gen3c.generator.signatures import VIDEO_DECODER
from gen3c.generator.vae import VideoDecoder
from gen3c.generator.weights import load_vae
from gen3c_server.leaf import LeafModel
from gen3c_server.settings import Settings


class TritonPythonModel(LeafModel):
    signature = VIDEO_DECODER

    def build(self, settings: Settings) -> nn.Module:
        vae, _ = settings.load(load_vae)
        return VideoDecoder(vae)
