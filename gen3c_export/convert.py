"""The published checkpoints of GEN3C, converted to a checkpoint directory (gen3c/generator/checkpoint.py).

Everything is checked before anything is written. Tensors are read one at a time and written shard by shard, so memory
does not grow with the checkpoint.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.checkpoint import (
    STATISTICS,
    Manifest,
    Source,
    statistics_config,
    transformer_config,
    vae_config,
)
from gen3c.generator.dit import Dit
from gen3c.generator.vae import Vae
from gen3c.presets import Preset, VaeConfig
from gen3c.weight_files import listing, value_problem
from gen3c_export import published
from gen3c_export.jit_file import read_jit
from gen3c_export.official_keys import dit_key, official_dit_key, official_vae_key, vae_key
from gen3c_export.pt_file import read_pt, read_statistics
from gen3c_export.stored import StoredTensor
from gen3c_export.writer import SHARD_BYTES, Weight, package_versions, replaced, write_component, write_manifest

logger = logging.getLogger(__name__)

FLOATS = (torch.bfloat16, torch.float16, torch.float32)
_SPARE_BYTES = 10_000_000  # for headers and JSON


@dataclass(frozen=True)
class Sources:
    """The published files, by what they are; their names on disk may differ."""

    dit: Path
    archives: dict[str, Path]  # encoder.jit and decoder.jit, or autoencoder.jit
    statistics: Path
    image_statistics: Path | None = None  # only recorded

    @classmethod
    def find(cls, dit: Path, tokenizer: Sequence[Path]) -> "Sources":
        """Sort out `tokenizer`, the published folder or files of it; raises InvalidInputError if some are lacking.

        A folder may hold more: encoder.jit and decoder.jit go before autoencoder.jit, which holds the same.
        """
        files: dict[str, Path] = {}
        for path in tokenizer:
            if path.is_dir():
                files |= {name: path / name for name in published.TOKENIZER if (path / name).is_file()}
            elif path.name in published.TOKENIZER:
                files[path.name] = path
            else:
                legal = ", ".join(published.TOKENIZER)
                raise InvalidInputError(f"--tokenizer is {path}; legal are a folder, or files named {legal}.")
        halves = {name: files[name] for name in (published.ENCODER, published.DECODER) if name in files}
        whole = {name: files[name] for name in (published.AUTOENCODER,) if name in files}
        archives = halves if len(halves) == 2 else whole
        lacking = [] if archives else ["encoder.jit and decoder.jit, or autoencoder.jit"]
        lacking += [] if published.STATISTICS in files else [published.STATISTICS]
        if lacking:
            raise InvalidInputError(f"--tokenizer lacks {'; '.join(lacking)}.")
        return cls(dit, archives, files[published.STATISTICS], files.get(published.IMAGE_STATISTICS))

    def items(self) -> Iterator[tuple[str, Path]]:
        """Published name and path of each."""
        yield published.MODEL, self.dit
        yield from self.archives.items()
        yield published.STATISTICS, self.statistics
        if self.image_statistics is not None:
            yield published.IMAGE_STATISTICS, self.image_statistics


@dataclass
class Findings:
    """What the sources hold, and what is wrong with them."""

    transformer: dict[str, StoredTensor] = field(default_factory=dict)  # by diffusers' keys
    vae: dict[str, StoredTensor] = field(default_factory=dict)
    statistics: tuple[Tensor, Tensor] | None = None  # [16,t] float32 each
    problems: list[str] = field(default_factory=list)


def convert(
    sources: Sources,
    output: Path,
    preset: Preset,
    *,
    dtype: torch.dtype = torch.bfloat16,
    strict: bool = False,
    force: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Manifest:
    """Write the checkpoint directory `output`; returns its manifest.

    The transformer is written in `dtype`, the tokenizer in the types it has. A file that is not the published one, by
    its MD5, is warned of, and refused if `strict`. Raises InvalidInputError with all that is wrong before it writes.
    After an error or an interruption `output` is as it was.
    """
    _cosmos(preset)
    output = output.resolve()
    inside = [path.name for _, path in sources.items() if path.resolve().is_relative_to(output)]
    if inside:
        raise InvalidInputError(f"{output} holds {inside[0]}, which is read; name another folder for the output.")
    findings = examine(sources, preset, dtype)
    if findings.problems or findings.statistics is None:
        raise InvalidInputError(
            f"Nothing was written, for the files do not fit {preset.name} {listing(findings.problems)}"
        )
    recorded = _record(sources, strict)
    transformer = {key: Weight(tensor, dtype) for key, tensor in sorted(findings.transformer.items())}
    vae = {key: Weight(tensor, tensor.dtype) for key, tensor in sorted(findings.vae.items())}
    needed = sum(weight.size for weight in (*transformer.values(), *vae.values())) + _SPARE_BYTES
    with replaced(output, force=force, needed=needed) as folder:
        config = transformer_config(preset.dit)
        outputs = write_component(folder, "transformer", config, transformer, shard_bytes)
        config = vae_config(preset.vae) | statistics_config(*findings.statistics)
        outputs += write_component(folder, "vae", config, vae, shard_bytes)
        manifest = Manifest(preset=preset.name, sources=recorded, outputs=outputs, packages=package_versions())
        write_manifest(folder, manifest)
    return manifest


def examine(sources: Sources, preset: Preset, dtype: torch.dtype) -> Findings:
    """Read all headers, then all values, and collect what is wrong. A broken file is a problem like others."""
    with torch.device("meta"):
        dit = Dit(preset.dit).transformer.state_dict()
        vae = Vae(_cosmos(preset), preset.latent_shape[0]).state_dict()
    findings = Findings()
    expected = {official_dit_key(key): (key, tuple(tensor.shape)) for key, tensor in dit.items()}
    _examine_file(sources.dit, read_pt, dit_key, expected, findings.transformer, findings.problems, dtype)
    official = {
        official_vae_key(key): (key, tuple(tensor.shape)) for key, tensor in vae.items() if key not in STATISTICS
    }
    for name, path in sources.archives.items():
        part = {key: value for key, value in official.items() if _belongs(key, name)}
        _examine_file(path, read_jit, vae_key, part, findings.vae, findings.problems, None)
    findings.statistics = _examine_statistics(sources.statistics, preset.latent_shape[0], findings.problems)
    return findings


def _cosmos(preset: Preset) -> VaeConfig:
    """Widths of the published tokenizer; raises InvalidInputError if `preset` has another one."""
    if not isinstance(preset.vae, VaeConfig):
        raise InvalidInputError(
            f"Preset {preset.name} has a video tokenizer of its own; legal is a preset with the published one.",
            field="preset",
        )
    return preset.vae


def _belongs(key: str, archive: str) -> bool:
    """Whether a tensor of the tokenizer is in the published file `archive`."""
    encoder = key.startswith(("encoder.", "quant_conv."))
    return archive == published.AUTOENCODER or encoder == (archive == published.ENCODER)


def _examine_file(
    path: Path,
    read: Callable[[Path], dict[str, StoredTensor | None]],
    name_of: Callable[[str], str | None],  # diffusers' key of an official one; None: not part of the network
    expected: Mapping[str, tuple[str, tuple[int, ...]]],  # official key: diffusers' key, shape
    into: dict[str, StoredTensor],
    problems: list[str],
    dtype: torch.dtype | None,  # that the tensors will be written in; None: their own
) -> None:
    """Put the tensors of a file `into` a component, and what is wrong with it to `problems`."""
    try:
        found = {key: tensor for key, tensor in read(path).items() if name_of(key) is not None}
    except InvalidInputError as error:
        problems.append(str(error))
        return
    if not any(key in expected for key in found):  # a state dict of the bare network
        prefixed = {f"net.{key}": tensor for key, tensor in found.items()}
        found = prefixed if any(key in expected for key in prefixed) else found
    problems += [f"{path.name}: {key} is missing" for key in expected if key not in found]
    problems += [f"{path.name}: {key} is unknown" for key in found if key not in expected]
    for key in (key for key in expected if key in found):
        name, shape = expected[key]
        tensor = found[key]
        if tensor is None:
            problems.append(f"{path.name}: {key} is not a tensor")
            continue
        problems += [f"{path.name}: {key} {problem}" for problem in _tensor_problems(tensor, shape, dtype)]
        into[name] = tensor


def _tensor_problems(tensor: StoredTensor, shape: tuple[int, ...], dtype: torch.dtype | None) -> Iterator[str]:
    """What is wrong with one tensor. Its values are not read if strides of 0 stretch it beyond what is expected."""
    if tensor.shape != shape:
        yield f"has shape {list(tensor.shape)}, legal is {list(shape)}"
    if tensor.dtype not in FLOATS:
        yield f"is {_name(tensor.dtype)}, legal are {', '.join(map(_name, FLOATS))}"
        return
    harmless = tensor.shape == shape or tensor.numel * tensor.dtype.itemsize <= tensor.record.size
    if harmless and (problem := value_problem(tensor.read(), dtype)):
        yield problem


def _examine_statistics(path: Path, latent_frames: int, problems: list[str]) -> tuple[Tensor, Tensor] | None:
    """The columns of the latent frames of one chunk, [16,t] each."""
    try:
        mean, std = read_statistics(path)
    except InvalidInputError as error:
        problems.append(str(error))
        return None
    if mean.shape[1] < latent_frames:
        problems.append(f"{path.name} has {mean.shape[1]} latent frames, legal are {latent_frames} or more")
    if value_problem(mean) or value_problem(std):
        problems.append(f"{path.name} has values that are not finite")
    elif not (std > 0).all():
        problems.append(f"{path.name} has standard deviations that are not positive")
    return mean[:, :latent_frames], std[:, :latent_frames]


def _record(sources: Sources, strict: bool) -> list[Source]:
    """The manifest's entries of the sources; raises InvalidInputError if `strict` and an MD5 is not the published."""
    recorded, differing = [], []
    for name, path in sources.items():
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        known = published.PUBLISHED_MD5[name]
        recorded.append(Source(name=path.name, md5=md5, size=path.stat().st_size, published=md5 == known))
        if md5 == known:
            logger.info("%s is the published file (md5 %s).", path.name, md5)
        else:
            differing.append(f"{path.name} has md5 {md5}; that of the published {name} is {known}.")
    if differing and strict:
        raise InvalidInputError("\n".join([*differing, "Nothing was written; without --strict these are warnings."]))
    for line in differing:
        logger.warning(line)
    return recorded


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
