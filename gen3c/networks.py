"""Every network that is served, by name: its signature, and how it gets its weights.

Whoever exports one, serves one without an export, or compares the two, asks here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from gen3c.errors import InvalidInputError
from gen3c.generator.checkpoint import open_component
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.t5_folder import NETWORK_FOLDER
from gen3c.generator.text_program import TEXT_ENCODER, find_text_encoder, load_text_encoder, text_encoder_provenance
from gen3c.generator.vae import AnyVae, VideoDecoder, VideoEncoder
from gen3c.generator.weights import checkpoint_root, find_weights, load_dit, load_vae
from gen3c.geometry.vggt.model import VggtProgram
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt, load_vggt
from gen3c.presets import Preset
from gen3c.program import Signature
from gen3c.weight_files import HeldWeight, LazyTensor, Provenance, stored_weights

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
    # The tensors of its files by their names in the module, unread; None: it is small, or has no files.
    stored: Callable[[WeightSource], Mapping[str, LazyTensor] | None]
    is_there: Callable[[WeightSource], bool] = lambda _source: True  # whether the deployment has one

    def streamed(self, source: WeightSource, dtype: torch.dtype) -> "Streamed":
        """The network for whoever takes its weights one at a time. Raises InvalidInputError as `load` does."""
        stored = self.stored(source)
        if stored is None:
            module = self.load(source, torch.device("cpu"), dtype)
            held = {name: HeldWeight(tensor) for name, tensor in module.state_dict().items()}
            return Streamed(in_one_piece(module.to("meta")), held)
        module = self.load(source, torch.device("meta"), dtype)  # which looks through the files all the same
        return Streamed(in_one_piece(module), {name: stored[name] for name in module.state_dict()})


@dataclass(frozen=True)
class Streamed:
    """A network apart from its weights, which are read one by one."""

    module: nn.Module  # on the meta device, in the types that were asked for
    weights: Mapping[str, LazyTensor]  # of every name of its state dict, in the types of their files


def in_one_piece(module: nn.Module) -> nn.Module:
    """The same module, to be exported: VGGT takes all frames at once, as an export fixes the rounds of a loop."""
    if isinstance(module, VggtProgram):
        module.frames_at_once = None
    return module


def network(name: str) -> Network:
    """The network of that name; raises InvalidInputError naming the legal ones."""
    if name not in NETWORKS:
        raise InvalidInputError(f"program is {name!r}; legal: {', '.join(NETWORKS)}.", field="program")
    return NETWORKS[name]


def networks_of(source: WeightSource) -> dict[str, Network]:
    """Those that a deployment has: all but perhaps the text encoder."""
    return {name: network for name, network in NETWORKS.items() if network.is_there(source)}


def _load_dit(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    dit, _ = load_dit(source.preset, source.checkpoints, untrained_seed=UNTRAINED_SEED, device=str(device), dtype=dtype)
    return dit


def _load_encoder(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return VideoEncoder(_load_vae(source, device, dtype))


def _load_decoder(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return VideoDecoder(_load_vae(source, device, dtype))


def _load_vae(source: WeightSource, device: torch.device, dtype: torch.dtype) -> AnyVae:
    vae, _ = load_vae(source.preset, source.checkpoints, untrained_seed=UNTRAINED_SEED, device=str(device), dtype=dtype)
    return vae


def _load_vggt(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    found = find_vggt(source.vggt, source.checkpoints)
    return VggtProgram(load_vggt(found, untrained_seed=UNTRAINED_SEED, device=device, dtype=dtype))


def _dit_provenance(source: WeightSource) -> Provenance:
    return find_weights(source.preset, "transformer", source.checkpoints, untrained_seed=UNTRAINED_SEED)[1]


def _load_text(source: WeightSource, device: torch.device, dtype: torch.dtype) -> nn.Module:
    return load_text_encoder(source.preset, source.checkpoints, device=device, dtype=dtype)


def _text_provenance(source: WeightSource) -> Provenance:
    found = text_encoder_provenance(source.preset, source.checkpoints)
    if found is None:
        raise InvalidInputError(f"The checkpoints have no {NETWORK_FOLDER}/.", field="checkpoint")
    return found


def _vae_provenance(source: WeightSource) -> Provenance:
    return find_weights(source.preset, "vae", source.checkpoints, untrained_seed=UNTRAINED_SEED)[1]


def _vggt_provenance(source: WeightSource) -> Provenance:
    return find_vggt(source.vggt, source.checkpoints).provenance()


def _dit_stored(source: WeightSource) -> Mapping[str, LazyTensor] | None:
    root = checkpoint_root(source.preset, source.checkpoints)
    component = None if root is None else open_component(root, "transformer")
    return None if component is None else stored_weights(component.shards, "transformer.")


def _vae_stored(_source: WeightSource) -> None:
    """Some 0.2 GB, and its statistics are in no file of weights."""


def _vggt_stored(source: WeightSource) -> Mapping[str, LazyTensor] | None:
    path = find_vggt(source.vggt, source.checkpoints).path
    return None if path is None else stored_weights([path], "vggt.")


def _text_stored(_source: WeightSource) -> None:
    """Names in published files vary: transformers reads them."""


def _has_text(source: WeightSource) -> bool:
    return find_text_encoder(source.preset, source.checkpoints) is not None


NETWORKS: dict[str, Network] = {
    DIT.name: Network(DIT, _load_dit, _dit_provenance, _dit_stored),
    VIDEO_ENCODER.name: Network(VIDEO_ENCODER, _load_encoder, _vae_provenance, _vae_stored),
    VIDEO_DECODER.name: Network(VIDEO_DECODER, _load_decoder, _vae_provenance, _vae_stored),
    VGGT.name: Network(VGGT, _load_vggt, _vggt_provenance, _vggt_stored),
    TEXT_ENCODER.name: Network(TEXT_ENCODER, _load_text, _text_provenance, _text_stored, _has_text),
}
