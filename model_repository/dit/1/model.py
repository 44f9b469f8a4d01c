"""The diffusion transformer: one evaluation."""

from torch import nn

from gen3c.generator.signatures import DIT
from gen3c.generator.weights import load_dit
from gen3c_server.leaf import LeafModel
from gen3c_server.settings import Settings


class TritonPythonModel(LeafModel):
    signature = DIT
    keeps_memory = True

    def build(self, settings: Settings) -> nn.Module:
        dit, _ = settings.load(load_dit)
        return dit
