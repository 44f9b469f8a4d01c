"""The diffusion transformer: one evaluation."""

from torch import nn

from gen3c.generator.signatures import DIT
from gen3c.generator.weights import load_dit
from gen3c_server.leaf import LeafModel
from gen3c_server.settings import UNTRAINED_SEED, Settings


class TritonPythonModel(LeafModel):
    signature = DIT

    def build(self, settings: Settings) -> nn.Module:
        dit, _ = load_dit(settings.preset, settings.checkpoints, untrained_seed=UNTRAINED_SEED)
        return dit
