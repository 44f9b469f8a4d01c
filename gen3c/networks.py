"""Every network that is served, by name: its signature, and how it gets its weights.

Whoever exports one, serves one without an export, or compares the two, asks here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gen3c.errors import InvalidInputError
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.vae import VideoDecoder, VideoEncoder
from gen3c.generator.weights import find_weights, load_dit, load_vae
from gen3c.geometry.vggt.model import VggtProgram
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt, load_vggt
from gen3c.presets import Preset
from gen3c.program import Signature
from gen3c.weight_files import Provenance

UNTRAINED_SEED = 0  # of the random weights that stand in until a checkpoint is there


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of a deployment are."""

    preset: Preset
    checkpoints: Path | None = None  # a checkpoint directory; None: the package's, or untrained
    vggt: Path | None = None  # VGGT's file or its folder; None: that of the checkpoints, the package's, or untrained


@dataclass(frozen=True)
class Network:
    """One network."""

    signature: Signature
    load: Callable[[WeightSource, torch.device, torch.dtype], nn.Module]  # takes the inputs in the signature's order
    provenance: Callable[[WeightSource], Provenance]  # of what `load` would read, without placing it anywhere


def network(name: str) -> Network:
    """The network of that name; raises InvalidInputError naming the legal ones."""
    if name not in NETWORKS:
        raise InvalidInputError(f"program is {name!r}; legal: {', '.join(NETWORKS)}.", field="program")
    return NETWORKS[name]


def _load_dit(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return load_dit(source.preset, source.checkpoints, untrained_seed=UNTRAINED_SEED, device=str(device), dtype=dtype)[
        0
    ]


def _load_encoder(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return VideoEncoder(_load_vae(source, device, dtype))


def _load_decoder(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return VideoDecoder(_load_vae(source, device, dtype))


def _load_vae(source: WeightSource, device: torch.device, dtype: torch.dtype):  # type: ignore[no-untyped-def]
    return load_vae(source.preset, source.checkpoints, untrained_seed=UNTRAINED_SEED, device=str(device), dtype=dtype)[
        0
    ]


def _load_vggt(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    found = find_vggt(source.vggt, source.checkpoints)
    return VggtProgram(load_vggt(found, untrained_seed=UNTRAINED_SEED, device=device, dtype=dtype))


def _dit_provenance(source: WeightSource) -> Provenance:
    return find_weights(source.preset, "transformer", source.checkpoints, untrained_seed=UNTRAINED_SEED)[1]


def _vae_provenance(source: WeightSource) -> Provenance:
    return find_weights(source.preset, "vae", source.checkpoints, untrained_seed=UNTRAINED_SEED)[1]


def _vggt_provenance(source: WeightSource) -> Provenance:
    return find_vggt(source.vggt, source.checkpoints).provenance()


NETWORKS: dict[str, Network] = {
    DIT.name: Network(DIT, _load_dit, _dit_provenance),
    VIDEO_ENCODER.name: Network(VIDEO_ENCODER, _load_encoder, _vae_provenance),
    VIDEO_DECODER.name: Network(VIDEO_DECODER, _load_decoder, _vae_provenance),
    VGGT.name: Network(VGGT, _load_vggt, _vggt_provenance),
}
