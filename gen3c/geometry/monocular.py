"""What becomes of a monocular depth network's answer (MoGe): from its own raster, fill and intrinsics to the scene's.

Two paths, as in the released GEN3C: a picture file, stretched to the network's raster and then to the output's, and a
generated frame, which the network takes as it is. The network is an argument. By default depth is not mixed across the
edge of what the network knows, and K keeps pixel centres at integers; `reference` smears the fill of unknown depth into
its neighbours and scales K plainly.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

NETWORK_SIZE = (720, 1280)  # height, width that a picture file is stretched to for the network
OUTPUT_SIZE = (704, 1280)
FAR = 1000.0  # depth of what the network masks out, such as sky
MAX_DEPTH = 1e4  # of everything, and of NaN in the reference

_COEFFICIENT_BITS = 11  # of OpenCV's fixed-point bilinear weights


@dataclass(frozen=True)
class NetworkAnswer:
    """What a monocular network says about one picture."""

    depth: Tensor  # [h,w] z-depth; not to be trusted outside the mask, where it may be infinite or NaN
    mask: Tensor  # [h,w] bool
    intrinsics: Tensor  # [3,3] normalised: a principal point of 0.5 is the middle, a focal length of 1 the side


class DepthNetwork(Protocol):
    """A network that takes a picture [3,h,w] in [0,1]."""

    def __call__(self, image: Tensor) -> NetworkAnswer: ...


@dataclass(frozen=True)
class MonocularView:
    """A picture on the output raster with its depth; its camera is the identity."""

    image: Tensor  # [3,h,w] in [-1,1]
    depth: Tensor  # [h,w] in [0, MAX_DEPTH], FAR where the network knows nothing
    mask: Tensor  # [h,w] bool: the network knows depth
    w2c: Tensor  # [4,4]
    K: Tensor  # [3,3] px


def view_from_picture(
    pixels: Tensor,  # [h,w,3] uint8 RGB
    network: DepthNetwork,
    *,
    network_size: tuple[int, int] = NETWORK_SIZE,
    size: tuple[int, int] = OUTPUT_SIZE,
    reference: bool = False,
) -> MonocularView:
    """Depth and intrinsics of a picture file, which is stretched to `size` whatever its aspect."""
    seen = resize_uint8(pixels, network_size).permute(2, 0, 1).float() / 255
    answer = network(seen)
    mask = F.interpolate(answer.mask[None, None].float(), size, mode="nearest")[0, 0] > 0
    if reference:
        depth = _bilinear(_filled(answer.depth, answer.mask)[None], size)[0]
        depth = torch.nan_to_num(depth, nan=MAX_DEPTH).clamp(0, MAX_DEPTH)
    else:
        depth = _resized_known(answer.depth, answer.mask, mask, size)
    image = _bilinear(seen, size) * 2 - 1
    K = answer.intrinsics * answer.intrinsics.new_tensor([size[1], size[0], 1.0])[:, None]
    if not reference:
        K[:2, 2] -= 0.5  # normalised coordinates count from the picture's edge, ours from the first pixel's centre
    return MonocularView(image, depth, mask, torch.eye(4, device=depth.device), K)


def depth_of_frame(frame: Tensor, network: DepthNetwork) -> tuple[Tensor, Tensor]:
    """Depth [h,w] in [0, MAX_DEPTH], FAR outside the mask, and the mask [h,w] bool, of a frame [3,h,w] in [0,1]."""
    answer = network(frame)
    depth = torch.nan_to_num(answer.depth, nan=MAX_DEPTH).clamp(0, MAX_DEPTH)
    return _filled(depth, answer.mask), answer.mask


def resize_uint8(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture [h,w,c] uint8 stretched bilinearly, without antialiasing, to the same bytes as `cv2.resize`.

    OpenCV weighs rows and columns by fixed-point numbers of 11 bits and drops bits between the passes, so a rounded
    floating-point resize is off by one in one value of eight.
    """
    left, right, w_left, w_right = (t.to(pixels.device) for t in _taps(pixels.shape[1], size[1]))
    top, bottom, w_top, w_bottom = (t.to(pixels.device) for t in _taps(pixels.shape[0], size[0]))
    source = pixels.int()
    rows = source[:, left] * w_left[:, None] + source[:, right] * w_right[:, None]  # [h,W,c], 11 bits of fraction
    rows >>= 4
    upper = (w_top[:, None, None] * rows[top]) >> 16
    lower = (w_bottom[:, None, None] * rows[bottom]) >> 16
    return ((upper + lower + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _taps(old: int, new: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each of `new` pixels the two source pixels that it mixes, and their fixed-point weights, [new] each."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = place.floor()
    share = place - first
    scale = 1 << _COEFFICIENT_BITS
    first = first.int()
    return (
        first.clamp(0, old - 1),
        (first + 1).clamp(0, old - 1),
        ((1 - share) * scale).round().int(),
        (share * scale).round().int(),
    )


def _filled(depth: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, depth, FAR)


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps [c,h,w] at another size."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]


def _resized_known(depth: Tensor, known: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth [h,w] at another size, a mean of known values only, FAR outside the resized `mask`."""
    known = known & torch.isfinite(depth)
    weight = _bilinear(known.float()[None], size)[0]
    total = _bilinear(torch.where(known, depth, 0.0)[None], size)[0]
    mean = (total / weight.clamp(min=1e-6)).clamp(0, MAX_DEPTH)
    return torch.where(mask & (weight > 1e-6), mean, FAR)
