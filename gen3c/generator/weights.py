"""Networks with weights: read from a checkpoint directory, or untrained from a seed.

A checkpoint directory holds `dit.safetensors` and `vae.safetensors` in diffusers' layout. The VAE's file also holds
the latent statistics, `latents_mean` and `latents_std`, [16, latent frames of a chunk] each.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import Preset

PACKAGED = Path(__file__).parent.parent / "checkpoints"  # one folder a preset, for those that ship with the package
_STATISTICS = ("latents_mean", "latents_std")
_WAVELET_GAIN = 1 / 8  # undoes the factor of the inverse wavelets that follow the decoder's last convolution


@dataclass(frozen=True)
class Provenance:
    """Where weights came from, for logs, manifests and the answer to the user."""

    source: str  # "dit.safetensors" or "untrained weights (seed 0)"
    sha256: str | None = None  # of the file

    def __str__(self) -> str:
        return self.source if self.sha256 is None else f"{self.source} (sha256 {self.sha256})"


def load_dit(
    preset: Preset,
    directory: Path | None = None,
    *,
    untrained_seed: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Dit, Provenance]:
    """The diffusion transformer of `preset`, in eval mode and without gradients.

    Weights come from `directory`; without one from the package, if it ships this preset's; else untrained from
    `untrained_seed`. Raises InvalidInputError if there is none of them, or with everything wrong in the file.
    """
    with torch.device("meta"):  # shapes alone: random numbers to overwrite would take minutes at full size
        dit = Dit(preset.dit)
    provenance = _fill(dit.transformer, preset, directory, "dit.safetensors", untrained_seed, device, dtype)
    return dit.eval().requires_grad_(False), provenance


def load_vae(
    preset: Preset,
    directory: Path | None = None,
    *,
    untrained_seed: int | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Vae, Provenance]:
    """The video tokenizer of `preset`; the rest as `load_dit`. The latent statistics stay in float32."""
    with torch.device("meta"):
        vae = Vae(preset.vae, preset.latent_shape[0])
    provenance = _fill(vae, preset, directory, "vae.safetensors", untrained_seed, device, dtype)
    return vae.eval().requires_grad_(False), provenance


def find_weights(
    preset: Preset, name: str, directory: Path | None = None, *, untrained_seed: int | None = None
) -> tuple[Path | None, Provenance]:
    """The file that `load_dit` ("dit.safetensors") or `load_vae` ("vae.safetensors") would read, None if untrained.

    Raises InvalidInputError if there is neither.
    """
    path = (directory or PACKAGED / preset.name) / name
    if path.is_file():
        return path, Provenance(name, _sha256(path))
    if directory is None and untrained_seed is not None and preset.may_be_untrained:
        return None, Provenance(f"untrained weights (seed {untrained_seed})")
    raise InvalidInputError(
        f"There is no {name} in {path.parent}; legal is a directory that holds the checkpoints of {preset.name}.",
        field="checkpoint",
    )


def _fill(
    module: nn.Module,
    preset: Preset,
    directory: Path | None,
    name: str,
    untrained_seed: int | None,
    device: str,
    dtype: torch.dtype,
) -> Provenance:
    """Give `module` its weights on `device`; the arguments are those of `load_dit`."""
    path, provenance = find_weights(preset, name, directory, untrained_seed=untrained_seed)
    tensors = _read(path, module, device) if path else _untrained(module, untrained_seed or 0, dtype)
    placed = {key: tensor.to(device, torch.float32 if key in _STATISTICS else dtype) for key, tensor in tensors.items()}
    module.load_state_dict(placed, strict=True, assign=True)
    return provenance


def _read(path: Path, module: nn.Module, device: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint; raises InvalidInputError with all that is wrong with it."""
    expected = {key: list(tensor.shape) for key, tensor in module.state_dict().items()}
    try:
        with safe_open(path, framework="pt", device=device) as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise InvalidInputError(f"{path} cannot be read as safetensors: {error}.", field="checkpoint") from error
    problems = [f"{key} is missing" for key in sorted(set(expected) - set(tensors))]
    problems += [f"{key} is unknown" for key in sorted(set(tensors) - set(expected))]
    for key in sorted(set(expected) & set(tensors)):
        tensor = tensors[key]
        if list(tensor.shape) != expected[key]:
            problems.append(f"{key} has shape {list(tensor.shape)}, legal is {expected[key]}")
        if not tensor.is_floating_point():
            problems.append(f"{key} is {tensor.dtype}, legal is a float type")
        elif not tensor.isfinite().all():
            problems.append(f"{key} has values that are not finite")
        elif key == "latents_std" and not (tensor > 0).all():
            problems.append(f"{key} has values that are not positive")
    if problems:
        listing = "".join(f"\n  {problem}" for problem in problems)
        raise InvalidInputError(f"{path} does not fit the network ({len(problems)} problems):{listing}", "checkpoint")
    return tensors


def _untrained(module: nn.Module, seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights that keep activations near unit variance; the same for the same seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    return {key: _draw(key, t.shape, generator).to(dtype) for key, t in sorted(module.state_dict().items())}


def _draw(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if key == "latents_mean" or key.endswith(".bias"):
        return torch.zeros(shape)
    if key == "latents_std" or len(shape) == 1:  # the weights of norms
        return torch.ones(shape)
    gain = _WAVELET_GAIN if key.startswith("decoder.conv_out.conv_t") else 1.0
    return torch.randn(shape, generator=generator) * (gain / math.sqrt(math.prod(shape[1:])))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
