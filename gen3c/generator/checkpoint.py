"""The checkpoint directory: which files it holds, and what its manifest says of them.

    manifest.json
    transformer/config.json
    transformer/diffusion_pytorch_model.safetensors, or shards -00001-of-0000n and ....safetensors.index.json
    vae/config.json
    vae/diffusion_pytorch_model.safetensors

Each component is laid out as diffusers' `from_pretrained` reads it, also the light autoencoder
(gen3c/generator/light_vae.py), which diffusers does not have. The statistics of the latents (16 channels x latent
frames of a chunk) are numbers in the VAE's config.json, `latents_mean` and `latents_std`, flat and channel by channel:
diffusers' pipelines read them there, while tensors of those names would be unexpected keys to `AutoencoderKLCosmos`. A
float32 written as the shortest decimal that names it as a double comes back bit for bit.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.signatures import CACHE_CHANNELS, LATENT_CHANNELS
from gen3c.presets import DitConfig, LightVaeConfig, VaeConfig

ComponentName = Literal["transformer", "vae"]

MANIFEST = "manifest.json"
CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
STATISTICS = ("latents_mean", "latents_std")
_LONGEST_SHOWN = 200  # characters of a wrong entry in a message


class Source(BaseModel):
    """A file that a checkpoint was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str  # without folders
    md5: str
    size: int  # bytes
    published: bool | None  # whether the md5 is the published one; None: none is known


class Output(BaseModel):
    """A file of the checkpoint."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str  # relative to the manifest
    sha256: str
    size: int  # bytes
    tensors: int  # how many it holds


class Manifest(BaseModel):
    """What manifest.json holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    preset: str
    sources: list[Source]
    outputs: list[Output]
    packages: dict[str, str]  # versions of those that wrote it


@dataclass(frozen=True)
class Component:
    """The files of one network."""

    folder: Path
    config: dict[str, Any]  # config.json
    shards: tuple[Path, ...]  # one or more safetensors files
    weight_map: dict[str, str] | None  # of the index: the shard of each key; None without an index

    @property
    def files(self) -> list[Path]:
        """All of them, config.json first."""
        index = [] if self.weight_map is None else [self.folder / INDEX]
        return [self.folder / CONFIG, *index, *self.shards]


def open_component(directory: Path, name: ComponentName) -> Component | None:
    """Find the files of a network; None without such a folder. Raises InvalidInputError if one is absent or unfit."""
    folder = directory / name
    if not folder.is_dir():
        return None
    config = _read_object(folder / CONFIG)
    if (folder / WEIGHTS).is_file():
        return Component(folder, config, (folder / WEIGHTS,), None)
    if not (folder / INDEX).is_file():
        raise InvalidInputError(f"{folder} holds neither {WEIGHTS} nor {INDEX}.", field="checkpoint")
    weight_map = _read_object(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise InvalidInputError(f"{folder / INDEX} has no weight_map from keys to files.", field="checkpoint")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or Path(shard).suffix != ".safetensors" or not (folder / shard).is_file():
            raise InvalidInputError(
                f"{folder / INDEX} names {shard!r}; legal are safetensors files that lie there.",
                field="checkpoint",
            )
    return Component(folder, config, tuple(folder / shard for shard in shards), weight_map)


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of a checkpoint directory, None without one. Raises InvalidInputError if it is not one."""
    path = directory / MANIFEST
    if not path.is_file():
        return None
    try:
        return Manifest.model_validate(_read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidInputError(f"{path} is not a manifest: {place}: {first['msg']}.", field="checkpoint") from None


def transformer_config(config: DitConfig) -> dict[str, Any]:
    """The arguments of diffusers' `CosmosTransformer3DModel`, for config.json."""
    return {
        # With concat_padding_mask diffusers adds the 82nd channel by itself.
        "in_channels": LATENT_CHANNELS + 1 + CACHE_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.layers,
        "mlp_ratio": 4.0,
        "text_embed_dim": config.text_dim,
        "adaln_lora_dim": config.adaln_lora_dim,
        "max_size": list(config.max_size),
        "patch_size": [1, 2, 2],
        "rope_scale": [2.0, 1.0, 1.0],
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable",
    }


def vae_config(config: VaeConfig | LightVaeConfig) -> dict[str, Any]:
    """What builds the network, without the statistics, for config.json: of Cosmos diffusers' arguments."""
    if isinstance(config, LightVaeConfig):
        sizes = {name: list(pair) for name, pair in asdict(config).items()}
        return {"_class_name": "LightVae", "latent_channels": LATENT_CHANNELS, **sizes}
    return {
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": LATENT_CHANNELS,
        "encoder_block_out_channels": list(config.encoder_channels),
        "decode_block_out_channels": list(config.decoder_channels),
        "num_layers": config.layers_per_block,
        "patch_size": 4,
        "patch_type": "haar",
    }


def statistics_config(mean: Tensor, std: Tensor) -> dict[str, list[float]]:  # mean, std: [16,t] float32
    """The statistics, for the VAE's config.json."""
    return dict(zip(STATISTICS, (mean.flatten().tolist(), std.flatten().tolist()), strict=True))


def config_problems(config: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """A sentence for every entry of a config.json that differs from the preset's."""
    return [
        f"{CONFIG}: {key} is {_shown(config.get(key))}, legal is {json.dumps(value)}"
        for key, value in expected.items()
        if config.get(key) != value
    ]


def _shown(value: Any) -> str:
    """JSON for a message."""
    try:
        text = json.dumps(value)
    except RecursionError:
        return "nested too deeply"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInputError(f"{path.parent} has no {path.name}.", field="checkpoint") from None
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not JSON
        raise InvalidInputError(f"{path} cannot be read as JSON: {error}.", field="checkpoint") from None
    except RecursionError:
        raise InvalidInputError(f"{path} cannot be read as JSON: it is nested too deeply.", "checkpoint") from None
    if not isinstance(content, dict):
        raise InvalidInputError(f"{path} is not a JSON object.", field="checkpoint")
    return content
