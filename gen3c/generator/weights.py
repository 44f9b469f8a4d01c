"""Networks with weights: read from a checkpoint directory (gen3c/generator/checkpoint.py), or untrained from a seed.

A checkpoint is checked whole before anything is placed on a device (gen3c/weight_files.py).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.checkpoint import (
    MANIFEST,
    STATISTICS,
    Component,
    ComponentName,
    Manifest,
    config_problems,
    open_component,
    read_manifest,
    transformer_config,
    vae_config,
)
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import LATENT_CHANNELS
from gen3c.generator.vae import AnyVae, build_vae
from gen3c.presets import PRESETS, Preset
from gen3c.weight_files import (
    PACKAGED,
    Provenance,
    listing,
    place,
    problems_of,
    random_weight,
    sha256_of,
    value_problem,
)

_WAVELET_GAIN = 1 / 8  # undoes the factor of the inverse wavelets that follow the decoder's last convolution


def load_dit(
    preset: Preset,
    directory: Path | None = None,
    *,
    untrained_seed: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[Dit, Provenance]:
    """The diffusion transformer of `preset`, in eval mode and without gradients.

    Weights come from `directory`; without one from the package, if it ships this preset's; else untrained from
    `untrained_seed`. Raises InvalidInputError if there is none of them, or with everything that is wrong with the
    files, in both cases before memory of `device` is taken.
    """
    with torch.device("meta"):  # shapes alone: random numbers to overwrite would take minutes at full size
        dit = Dit(preset.dit)
    component, provenance = _find(preset, "transformer", directory, untrained_seed)
    if component is None:
        tensors = _untrained(dit.transformer, untrained_seed or 0, device, dtype)
    else:
        problems = config_problems(component.config, transformer_config(preset.dit))
        _check(component, preset, _shapes(dit.transformer), dtype, problems)
        tensors = place(component.shards, dict.fromkeys(_shapes(dit.transformer), dtype), device)
    dit.transformer.load_state_dict(tensors, strict=True, assign=True)
    return dit.eval().requires_grad_(False), provenance


def load_vae(
    preset: Preset,
    directory: Path | None = None,
    *,
    untrained_seed: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[AnyVae, Provenance]:
    """The video tokenizer of `preset`; the rest as `load_dit`. The latent statistics stay in float32."""
    with torch.device("meta"):
        vae = build_vae(preset.vae, preset.latent_shape[0])
    component, provenance = _find(preset, "vae", directory, untrained_seed)
    if component is None:
        tensors = _untrained(vae, untrained_seed or 0, device, dtype)
    else:
        problems = config_problems(component.config, vae_config(preset.vae))
        problems += _statistics_problems(component.config, preset.latent_shape[0])
        _check(component, preset, _shapes(vae), dtype, problems)
        tensors = place(component.shards, dict.fromkeys(_shapes(vae), dtype), device)
        for key in STATISTICS:
            table = torch.tensor([float(value) for value in component.config[key]], dtype=torch.float32)
            tensors[key] = table.view(LATENT_CHANNELS, -1).to(device)
    vae.load_state_dict(tensors, strict=True, assign=True)
    return vae.eval().requires_grad_(False), provenance


def find_weights(
    preset: Preset, name: ComponentName, directory: Path | None = None, *, untrained_seed: int | None = None
) -> tuple[Path | None, Provenance]:
    """The folder that `load_dit` ("transformer") or `load_vae` ("vae") would read, None if untrained.

    The hash of the provenance takes those of the manifest for weights, whose sizes alone are compared, and when they
    are loaded; without a manifest all files are read. Raises InvalidInputError if there is no such folder.
    """
    component, provenance = _find(preset, name, directory, untrained_seed)
    return None if component is None else component.folder, provenance


def checkpoint_root(preset: Preset, directory: Path | None) -> Path | None:
    """The directory of a preset's checkpoints: that which is given, or the package's, if it ships them.

    What ships is of the preset as it stands: one whose sizes were changed has nothing in the package.
    """
    if directory is not None:
        return directory
    packaged = PACKAGED / preset.name
    return packaged if PRESETS.get(preset.name) == preset and packaged.is_dir() else None


def _find(
    preset: Preset, name: ComponentName, directory: Path | None, untrained_seed: int | None
) -> tuple[Component | None, Provenance]:
    root = checkpoint_root(preset, directory)
    if root is None or (directory is None and not (root / name).is_dir()):
        if untrained_seed is not None and preset.may_be_untrained:
            return None, Provenance(f"untrained weights (seed {untrained_seed})")
        root = PACKAGED / preset.name
    component = require_component(preset, name, root)
    return component, Provenance(name, _digest(component, read_manifest(root)))


def require_component(preset: Preset, name: ComponentName, root: Path) -> Component:
    """The files of a network in a checkpoint directory; no weight is read. Raises InvalidInputError without them."""
    component = open_component(root, name)
    if component is None:
        raise InvalidInputError(
            f"There is no {name} in {root}; legal is a directory that holds the checkpoints of {preset.name}.",
            field="checkpoint",
        )
    return component


def _digest(component: Component, manifest: Manifest | None) -> str:
    """What `sha256sum <files> | sha256sum` prints in the component's folder; the manifest stands for large files."""
    listed = {} if manifest is None else {output.name: output.sha256 for output in manifest.outputs}
    lines = []
    for path in sorted(component.files):
        known = None if path.suffix == ".json" else listed.get(f"{component.folder.name}/{path.name}")
        lines.append(f"{known or sha256_of(path)}  {path.name}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    """The shapes that a checkpoint's tensors must have."""
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items() if key not in STATISTICS}


def _check(
    component: Component, preset: Preset, expected: Mapping[str, list[int]], dtype: torch.dtype, problems: list[str]
) -> None:
    """Raise InvalidInputError with `problems` and all that is wrong with a component's weights, or is in `dtype`."""
    needed = {key: (shape, dtype) for key, shape in expected.items()}
    found = problems_of(component.shards, needed, weight_map=component.weight_map)
    problems = problems + _manifest_problems(component, preset) + found
    if problems:
        raise InvalidInputError(f"{component.folder} does not fit {preset.name} {listing(problems)}", "checkpoint")


def _manifest_problems(component: Component, preset: Preset) -> list[str]:
    """Where the manifest speaks of other files than those that are there."""
    manifest = read_manifest(component.folder.parent)
    if manifest is None:
        return []
    problems = []
    if manifest.preset != preset.name:
        problems.append(f"{MANIFEST} is of preset {manifest.preset}")
    sizes = {output.name: output.size for output in manifest.outputs}
    for shard in component.shards:
        listed, size = sizes.get(f"{component.folder.name}/{shard.name}"), shard.stat().st_size
        if listed is None:
            problems.append(f"{shard.name} is not in {MANIFEST}")
        elif listed != size:
            problems.append(f"{shard.name} has {size} bytes, {MANIFEST} says {listed}")
    return problems


def _statistics_problems(config: Mapping[str, Any], latent_frames: int) -> list[str]:
    """What is wrong with the latent statistics in the VAE's config.json."""
    problems, count = [], LATENT_CHANNELS * latent_frames
    for key in STATISTICS:
        values = config.get(key)
        if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
            problems.append(f"{key} is not a list of numbers")
            continue
        if len(values) != count:
            problems.append(f"{key} has {len(values)} values, legal are {count} ({LATENT_CHANNELS}x{latent_frames})")
        try:
            table = torch.tensor([float(value) for value in values], dtype=torch.float32)
        except OverflowError:  # an integer that no float can name
            problems.append(f"{key} has values beyond the range of float32")
            continue
        if problem := value_problem(table):
            problems.append(f"{key} {problem}")
        elif key == "latents_std" and not (table > 0).all():
            problems.append(f"{key} has values that are not positive")
    return problems


def _untrained(module: nn.Module, seed: int, device: torch.device | str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random weights that keep activations near unit variance; the same for the same seed on every machine."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, tensor in sorted(module.state_dict().items()):
        drawn = _draw(key, tensor.shape, generator)
        tensors[key] = drawn.to(device, torch.float32 if key in STATISTICS else dtype)
    return tensors


def _draw(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if key in STATISTICS:
        return torch.zeros(shape) if key == "latents_mean" else torch.ones(shape)
    weight = random_weight(key, shape, generator)
    return weight * _WAVELET_GAIN if key.startswith("decoder.conv_out.conv_t.weight") else weight
