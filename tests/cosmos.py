"""Preset tiny with the released networks' kind of tokenizer: the tests of Cosmos at a size that is quick."""

import dataclasses

from gen3c.presets import TINY, VaeConfig

COSMOS_VAE = VaeConfig(encoder_channels=(32, 32, 64, 64), decoder_channels=(32, 64, 64, 64))
TINY_COSMOS = dataclasses.replace(TINY, vae=COSMOS_VAE)
