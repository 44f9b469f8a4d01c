"""VGGT with weights: a released file as it was published, our own, or untrained from a seed.

A file is facebook/VGGT-1B, VGGT-1B-Commercial, or of another of our sizes, which is told by its camera tokens. A
checkpoint directory may hold one as `vggt/model.safetensors` or `vggt/model.pt`; else the package's own is taken, if it
ships one.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt.camera_head import ITERATIONS
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.official import PREFIX, tracker_shapes
from gen3c.presets import TINY, VGGT_1B, VGGT_TINY, VggtConfig
from gen3c.weight_files import PACKAGED, Provenance, listing, opened, place, problems_of, random_weight, sha256_of

logger = logging.getLogger(__name__)

FOLDER = "vggt"
FILES = ("model.safetensors", "model.pt")  # the first that is there
CONFIGS = (VGGT_1B, VGGT_TINY)
CAMERA_TOKEN = "aggregator.camera_token"
POINTS_PREFIX = "point_head."
UNTRAINED_FOV = 1.0  # radians


@dataclass(frozen=True)
class VggtSource:
    """Which VGGT there is."""

    config: VggtConfig
    path: Path | None  # None: no weights, the network is drawn from a seed

    @property
    def is_of_released_size(self) -> bool:
        """Whether these are weights of the released network's size, so those released or a descendant of them."""
        return self.path is not None and self.config is VGGT_1B

    def provenance(self) -> Provenance:
        """For the answer to the user; reads the whole file for its hash."""
        if self.path is None:
            return Provenance(f"{self.config.name}, untrained")
        return Provenance(f"{self.config.name}, {self.path.name}", sha256_of(self.path))


def find_vggt(given: Path | None = None, directory: Path | None = None) -> VggtSource:
    """The weights that are `given`, a file or its folder; else a checkpoint directory's, the package's, or none.

    Headers alone are read. Raises InvalidInputError if such a folder has neither of the files, or for a file that is no
    VGGT of a known size.
    """
    if given is not None:
        return _source(_file_in(given) if given.is_dir() else given)
    roots = [*([] if directory is None else [directory]), PACKAGED / TINY.name]
    for folder in (root / FOLDER for root in roots):
        if folder.is_dir():
            return _source(_file_in(folder))
    return VggtSource(VGGT_TINY, None)


def described_vggt(provenance: str) -> VggtSource:
    """The source whose provenance reads so, its file not looked for; raises InvalidInputError for none of our sizes."""
    name, _, rest = provenance.partition(", ")
    for config in CONFIGS:
        if config.name == name:
            return VggtSource(config, None if rest == "untrained" else Path(rest.partition(" ")[0]))
    legal = ", ".join(config.name for config in CONFIGS)
    raise InvalidInputError(f"{provenance!r} names no VGGT; legal: {legal}.", field="manifest")


def _source(path: Path) -> VggtSource:
    return VggtSource(_config_of(path), path)


def _file_in(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise InvalidInputError(f"{folder} holds neither {' nor '.join(FILES)}.", field="checkpoint")


def load_vggt(
    source: VggtSource,
    *,
    untrained_seed: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Vggt:
    """The network without its point head, in eval mode and without gradients; `dtype` as in `Vggt.narrow`.

    All names and shapes of the file are checked, and all values that are read, before memory of `device` is taken;
    raises InvalidInputError with everything that is wrong. The point head and the tracker are not read.
    """
    with torch.device("meta"):
        vggt = Vggt(source.config, points=False).narrow(dtype)
    expected = {name: (list(tensor.shape), tensor.dtype) for name, tensor in vggt.state_dict().items()}
    types = {name: dtype for name, (_, dtype) in expected.items()}
    if source.path is None:
        tensors = {name: tensor.to(device, types[name]) for name, tensor in _untrained(vggt, untrained_seed).items()}
    else:
        unread = unread_shapes(source.config)
        problems = problems_of([source.path], expected, unread)
        if problems:
            raise InvalidInputError(
                f"{source.path} does not fit {source.config.name} {listing(problems)}", "checkpoint"
            )
        _tell_what_is_left_out(source.path, unread)
        tensors = place([source.path], types, device)
    vggt.load_state_dict(tensors, strict=True, assign=True)
    return vggt.eval().requires_grad_(False)


def unread_shapes(config: VggtConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a released file holds and we do not use: the point head and the tracker."""
    with torch.device("meta"):
        whole = Vggt(config).state_dict()
    points = {name: tuple(tensor.shape) for name, tensor in whole.items() if name.startswith(POINTS_PREFIX)}
    return points | tracker_shapes(config)


def _config_of(path: Path) -> VggtConfig:
    with opened(path) as file:
        shape = file.shape(CAMERA_TOKEN) if CAMERA_TOKEN in file.names() else None
    for config in CONFIGS:
        if shape == [1, 2, 1, config.width]:
            return config
    legal = ", ".join(f"{[1, 2, 1, config.width]} ({config.name})" for config in CONFIGS)
    found = "is missing" if shape is None else f"has shape {shape}"
    raise InvalidInputError(f"{path} is no VGGT: {CAMERA_TOKEN} {found}; legal: {legal}.", field="checkpoint")


def _tell_what_is_left_out(path: Path, unread: Mapping[str, object]) -> None:
    with opened(path) as file:
        left_out = [name for name in file.names() if name in unread]
    if left_out:
        tracker = sum(name.startswith(PREFIX) for name in left_out)
        logger.info(
            "%s: %d tensors of the tracker and %d of the point head are not used.",
            path.name,
            tracker,
            len(left_out) - tracker,
        )


def _untrained(vggt: Vggt, seed: int) -> dict[str, Tensor]:
    """Random weights. The camera head says about the identity and `UNTRAINED_FOV`: else no job would get past it."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: random_weight(name, tensor.shape, generator) for name, tensor in sorted(vggt.state_dict().items())}
    tensors["camera_head.pose_branch.fc2.weight"] *= 0.01
    tensors["camera_head.pose_branch.fc2.bias"] = torch.tensor([0.0, 0, 0, 0, 0, 0, 1, UNTRAINED_FOV, UNTRAINED_FOV])
    tensors["camera_head.pose_branch.fc2.bias"] /= ITERATIONS  # each of which adds to the estimate
    return tensors
