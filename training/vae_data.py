"""What the autoencoder learns from: clips along camera paths, the same with holes, and masks of holes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.fusion import cell_coverage
from training.motion import motion, shifts
from training.scenes import Worlds, as_float, render
from training.shots import draw_shots

HOLED, MASKS = 0.12, 0.10  # shares of the samples
_GAMMA, _GAIN, _TINT = 0.35, 0.25, 0.08  # spread of logarithms, in half the samples


def draw_clips(seeds: Sequence[int], worlds: Worlds, size: tuple[int, int]) -> dict[str, Tensor]:
    """The target pictures of one shot in each of the seeds' worlds, rgb [n,25,h,w,3] uint8, and how points move in
    them, shift [n,24,h,w,2] (training.motion.shifts).
    """
    shots = draw_shots(worlds, seeds, size)
    seen = render(worlds, shots.targets, shots.K, size, samples=2)
    moved = [shifts(motion(depth, w2c, K)) for depth, w2c, K in zip(seen.depth, shots.targets, shots.K, strict=True)]
    return {"rgb": seen.rgb, "shift": torch.stack(moved)}


class Samples(NamedTuple):
    """What one step learns from: first pictures with holes, then masks, then whole pictures."""

    video: Tensor  # [n,3,T,h,w] float32 in [-1,1]
    shift: Tensor  # [n,T-1,h,w,2], NaN in those that are no whole pictures, or run backwards
    whole: Tensor  # [m,3,T,h,w]: the first m without their holes
    covered: Tensor  # [m,t,h/8,w/8] bool: latent cells of the first m in which no pixel of any frame is in a hole


def training_videos(clips: dict[str, Tensor], crop: tuple[int, int], generator: torch.Generator) -> Samples:
    """Samples of the shares above, the rest whole pictures.

    Args:
        clips: of `draw_clips`: rgb [n,T,H,W,3] and shift [n,T-1,H,W,2].
        crop: height and width of a sample, multiples of 8.
        generator: on the device of the clips.
    """
    n = len(clips["rgb"])
    rgb, shift = _windows(clips["rgb"], clips["shift"], crop, generator)
    video = as_float(rgb)
    video = torch.cat([video[: n // 2], _recoloured(video[n // 2 :], generator)])
    holed, masks = round(n * HOLED), round(n * MASKS)
    seen = seen_masks(holed + masks, video.shape[2:], generator)
    pictures = torch.where(seen[:holed], video[:holed], -1.0)
    grey = (seen[holed:] * 2.0 - 1.0).expand(-1, 3, -1, -1, -1)
    shift[: holed + masks] = torch.nan
    covered = _covered(seen[:holed])
    return Samples(torch.cat([pictures, grey, video[holed + masks :]]), shift, video[:holed], covered)


def _covered(seen: Tensor) -> Tensor:
    """Latent cells that are seen whole, [n,t,h/8,w/8] bool, of masks [n,1,T,h,w] bool."""
    cells = seen.new_zeros(len(seen), 1 + (seen.shape[2] - 1) // 8, seen.shape[3] // 8, seen.shape[4] // 8)
    for i, mask in enumerate(seen):
        cells[i] = cell_coverage(mask.transpose(0, 1)) == 1  # exact: they are k/512
    return cells


def seen_masks(n: int, size: Sequence[int], generator: torch.Generator) -> Tensor:  # size: T, h, w
    """Masks as warped views have them, [n,1,T,h,w] bool: blobs that grow and move, a border, and thin cracks."""
    field = _smooth_noise(n, size, 48, generator) + 0.5 * _smooth_noise(n, size, 12, generator)
    slopes = _normal((n, 3), generator) * 0.7
    for axis, count in enumerate(size):
        ramp = torch.linspace(-1, 1, count, device=field.device).view([count if i == axis else 1 for i in range(3)])
        field = field + slopes[:, axis].view(-1, 1, 1, 1, 1) * ramp
    blobs = field > _normal((n, 1, 1, 1, 1), generator) * 0.6 + 0.7
    width = 0.06 * _uniform((n, 1, 1, 1, 1), generator) - 0.02  # of a third of the samples 0: no cracks
    cracks = _smooth_noise(n, size, 10, generator).abs() < width
    return ~(blobs | cracks)


def _smooth_noise(n: int, size: Sequence[int], side: int, generator: torch.Generator) -> Tensor:
    """Noise whose features are some `side` pixels and 8 frames large, [n,1,T,h,w], of deviation 1 or less."""
    t, h, w = size
    coarse = _normal((n, 1, t // 8 + 2, h // side + 2, w // side + 2), generator)
    return F.interpolate(coarse, (t, h, w), mode="trilinear", align_corners=True)


def _windows(clips: Tensor, moves: Tensor, crop: tuple[int, int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A window of each clip, [n,T,h,w,3], anywhere; half mirrored, half reversed in time, a tenth upside down.

    And of its shifts, [n,T-1,h,w,2], which say nothing of reversed time.
    """
    n, count, height, width = clips.shape[:4]
    device = clips.device
    frames = _flipped(torch.arange(count, device=device).expand(n, -1), 0.5, generator)
    rows = _flipped(_span(n, height, crop[0], generator), 0.1, generator)
    columns = _flipped(_span(n, width, crop[1], generator), 0.5, generator)
    sample = torch.arange(n, device=device)[:, None, None, None]
    place = rows[:, None, :, None], columns[:, None, None, :]
    mirrored = torch.stack((_is_flipped(columns), _is_flipped(rows)), dim=-1)  # [n,2], of x and y
    shift = moves[sample, torch.arange(count - 1, device=device)[None, :, None, None], *place]
    shift = torch.where(mirrored[:, None, None, None], -shift, shift)
    shift = torch.where(_is_flipped(frames)[:, None, None, None, None], torch.nan, shift)
    return clips[sample, frames[:, :, None, None], *place], shift


def _span(n: int, whole: int, length: int, generator: torch.Generator) -> Tensor:
    """`length` successive indices below `whole`, anywhere, [n,length]."""
    start = (_uniform((n, 1), generator) * (whole - length + 1)).long().clamp(max=whole - length)
    return start + torch.arange(length, device=start.device)


def _flipped(index: Tensor, share: float, generator: torch.Generator) -> Tensor:  # [n,length]
    """That share of the rows in reverse."""
    return torch.where(_uniform((len(index), 1), generator) < share, index.flip(1), index)


def _is_flipped(index: Tensor) -> Tensor:  # [n,length]
    """Which rows are in reverse, [n] bool."""
    return index[:, 0] > index[:, -1]


def _recoloured(video: Tensor, generator: torch.Generator) -> Tensor:  # [n,3,T,h,w]
    """Another exposure, contrast and tint for each."""
    n = len(video)
    gamma = (_normal((n, 1, 1, 1, 1), generator) * _GAMMA).exp()
    gain = (_normal((n, 1, 1, 1, 1), generator) * _GAIN + _normal((n, 3, 1, 1, 1), generator) * _TINT).exp()
    return (((video + 1) / 2).clamp_min(1e-4) ** gamma * gain).clamp(0, 1) * 2 - 1


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
