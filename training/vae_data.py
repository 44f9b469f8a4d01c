"""What the autoencoder learns from: clips along camera paths, the same with holes, and masks of holes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from training.scenes import Worlds, render
from training.shots import draw_shots

HOLED, MASKS = 0.12, 0.10  # shares of the samples
_GAMMA, _GAIN, _TINT = 0.35, 0.25, 0.08  # spread of logarithms, in half the samples


def draw_clips(seeds: Sequence[int], worlds: Worlds, size: tuple[int, int]) -> Tensor:
    """The target pictures of one shot in each of the seeds' worlds, [n,25,h,w,3] uint8."""
    shots = draw_shots(worlds, seeds, size)
    return render(worlds, shots.targets, shots.K, size, samples=2).rgb


def as_video(clips: Tensor) -> Tensor:  # [n,T,h,w,3] uint8
    """The same in [-1,1], [n,3,T,h,w] float32."""
    return clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def training_videos(clips: Tensor, crop: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Samples of the shares above, the rest whole pictures.

    Args:
        clips: [n,T,H,W,3] uint8.
        crop: height and width of a sample, multiples of 8.
        generator: on the device of the clips.

    Returns:
        [n,3,T,h,w] float32 in [-1,1].
    """
    n = len(clips)
    video = as_video(_windows(clips, crop, generator))
    video = torch.cat([video[: n // 2], _recoloured(video[n // 2 :], generator)])
    holed, masks = round(n * HOLED), round(n * MASKS)
    seen = seen_masks(holed + masks, video.shape[2:], generator)
    pictures = torch.where(seen[:holed], video[:holed], -1.0)
    grey = (seen[holed:] * 2.0 - 1.0).expand(-1, 3, -1, -1, -1)
    return torch.cat([pictures, grey, video[holed + masks :]])


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


def _windows(clips: Tensor, crop: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A window of each clip, [n,T,h,w,3], anywhere; half mirrored, half reversed in time, a tenth upside down."""
    n, count, height, width = clips.shape[:4]
    device = clips.device
    frames = _flipped(torch.arange(count, device=device).expand(n, -1), 0.5, generator)
    rows = _flipped(_span(n, height, crop[0], generator), 0.1, generator)
    columns = _flipped(_span(n, width, crop[1], generator), 0.5, generator)
    sample = torch.arange(n, device=device)
    return clips[
        sample[:, None, None, None], frames[:, :, None, None], rows[:, None, :, None], columns[:, None, None, :]
    ]


def _span(n: int, whole: int, length: int, generator: torch.Generator) -> Tensor:
    """`length` successive indices below `whole`, anywhere, [n,length]."""
    start = (_uniform((n, 1), generator) * (whole - length + 1)).long().clamp(max=whole - length)
    return start + torch.arange(length, device=start.device)


def _flipped(index: Tensor, share: float, generator: torch.Generator) -> Tensor:  # [n,length]
    """That share of the rows in reverse."""
    return torch.where(_uniform((len(index), 1), generator) < share, index.flip(1), index)


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
