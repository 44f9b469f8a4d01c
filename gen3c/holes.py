"""Pixels that nothing has filled take colours from around them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def fill_holes(image: Tensor, covered: Tensor) -> Tensor:
    """Holes of image [1,3,h,w] take the mean colour of the finest surroundings that have one, covered [1,1,h,w] bool.

    A push-pull pyramid. On every coarser level the neighbours of covered cells take their mean, or whether a hole takes
    from near or from far would depend on where the pyramid's cells begin. An image without any covered pixel becomes
    grey (0).
    """
    if bool(covered.all()):
        return image
    if image.shape[2:].numel() == 1:
        return torch.zeros_like(image)
    coarse, some = _pooled(image, covered, kernel=2, stride=2, padding=0)
    around, near = _pooled(coarse, some, kernel=3, stride=1, padding=1)
    filled = fill_holes(torch.where(some, coarse, around), near)
    # By exactly 2, then cut: resizing an odd side would move colours away from the pixels that they come from.
    back = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
    return torch.where(covered, image, back[..., : image.shape[2], : image.shape[3]])


def _pooled(image: Tensor, covered: Tensor, kernel: int, stride: int, padding: int) -> tuple[Tensor, Tensor]:
    """Mean of the covered pixels in every window, and which windows have one."""
    weight = covered.float()
    share = F.avg_pool2d(weight, kernel, stride, padding, ceil_mode=True)
    total = F.avg_pool2d(image * weight, kernel, stride, padding, ceil_mode=True)
    return total / share.clamp(min=1e-6), share > 0
