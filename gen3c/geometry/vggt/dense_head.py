"""VGGT's dense heads: tokens of four depths of the aggregator to a map (DPT; Ranftl et al., "Vision Transformers for
Dense Prediction", ICCV 2021).

Every frame by itself, so a long scene goes through in parts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POSITION_GAIN = 0.1
POSITION_BASE = 100.0


class ResidualUnit(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # In the released network the first ReLU works in place, so the identity carries its result.
        positive = x.relu()
        out: Tensor = positive + self.conv2(self.conv1(positive).relu())
        return out


class Fusion(nn.Module):
    """Adds a shallower level to what came from below, and enlarges it."""

    def __init__(self, features: int, *, deepest: bool = False) -> None:
        super().__init__()
        self.resConfUnit1 = None if deepest else ResidualUnit(features)
        self.resConfUnit2 = ResidualUnit(features)
        self.out_conv = nn.Conv2d(features, features, 1)

    def forward(self, below: Tensor, level: Tensor | None, size: tuple[int, int]) -> Tensor:
        if self.resConfUnit1 is not None and level is not None:
            below = below + self.resConfUnit1(level)
        fused: Tensor = self.out_conv(_resized(self.resConfUnit2(below), size))
        return fused


class Scratch(nn.Module):
    """The convolutions from the levels on; a name of the checkpoint."""

    def __init__(self, features: int, channels: Sequence[int], out: int) -> None:
        super().__init__()
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            nn.Conv2d(c, features, 3, padding=1, bias=False) for c in channels
        )
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(features) for _ in range(3))
        self.refinenet4 = Fusion(features, deepest=True)
        self.output_conv1 = nn.Conv2d(features, features // 2, 3, padding=1)
        self.output_conv2 = nn.Sequential(nn.Conv2d(features // 2, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, out, 1))


class DenseHead(nn.Module):
    """Tokens to `out` channels a pixel, of which the last is the confidence; before their activations."""

    def __init__(self, width: int, features: int, channels: Sequence[int], out: int, patch: int = 14) -> None:
        super().__init__()
        self.patch = patch
        self.norm = nn.LayerNorm(width)
        self.projects = nn.ModuleList(nn.Conv2d(width, c, 1) for c in channels)
        first, second, _, fourth = channels
        self.resize_layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(first, first, 4, stride=4),
                nn.ConvTranspose2d(second, second, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(fourth, fourth, 3, stride=2, padding=1),
            ]
        )
        self.scratch = Scratch(features, channels, out)

    def forward(self, levels: Sequence[Tensor], size: tuple[int, int], special: int) -> Tensor:
        """Four levels' tokens [n,p,c] of images of `size` (height, width) px -> [n,out,height,width] float32.

        The first `special` tokens of each frame are not read.
        """
        rows, columns = size[0] // self.patch, size[1] // self.patch
        aspect = size[1] / size[0]
        maps = []
        for tokens, project, resize in zip(levels, self.projects, self.resize_layers, strict=True):
            x = self.norm(tokens[:, special:]).transpose(1, 2).unflatten(2, (rows, columns))
            maps.append(resize(_with_positions(project(x), aspect)))
        scratch = self.scratch
        l1, l2, l3, l4 = (
            conv(x)
            for conv, x in zip(
                (scratch.layer1_rn, scratch.layer2_rn, scratch.layer3_rn, scratch.layer4_rn), maps, strict=True
            )
        )
        x = scratch.refinenet4(l4, None, _size(l3))
        x = scratch.refinenet3(x, l3, _size(l2))
        x = scratch.refinenet2(x, l2, _size(l1))
        x = scratch.refinenet1(x, l1, (2 * l1.shape[2], 2 * l1.shape[3]))
        x = _resized(scratch.output_conv1(x), size)
        logits: Tensor = scratch.output_conv2(_with_positions(x, aspect))
        return logits


def depth_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Depth [n,h,w] > 0 and confidence [n,h,w] > 1 from a depth head's two channels."""
    return logits[:, 0].exp(), 1 + logits[:, 1].exp()


def points_of(logits: Tensor) -> tuple[Tensor, Tensor]:
    """World points [n,h,w,3] and confidence [n,h,w] > 1 from a point head's four channels."""
    values = logits[:, :3].permute(0, 2, 3, 1)
    return values.sign() * values.abs().expm1(), 1 + logits[:, 3].exp()


def position_grid(width: int, height: int, aspect: float, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Coordinates of a map's columns [width] and rows [height], float32: its diagonal reaches from -1 to 1.

    `aspect` is width over height of the picture.
    """
    diagonal = (aspect**2 + 1) ** 0.5
    spans = ((aspect / diagonal, width), (1 / diagonal, height))
    x, y = (torch.linspace(-span * (n - 1) / n, span * (n - 1) / n, n, device=device) for span, n in spans)
    return x, y


def position_codes(
    width: int, height: int, aspect: float, channels: int, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """The code of a map's columns [channels/2,width] and of its rows [channels/2,height], float32: sines, then cosines.

    A place has its column's code in the first half of the channels, its row's in the second.
    """
    quarter = channels // 4
    omega = POSITION_BASE ** -(torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    x, y = (place * omega[:, None] for place in position_grid(width, height, aspect, device))  # [q,width], [q,height]
    return torch.cat((x.sin(), x.cos())), torch.cat((y.sin(), y.cos()))


def _with_positions(x: Tensor, aspect: float) -> Tensor:
    columns, rows = position_codes(x.shape[3], x.shape[2], aspect, x.shape[1], x.device)
    half = x.shape[1] // 2
    first = x[:, :half] + POSITION_GAIN * columns[:, None, :]
    second = x[:, half:] + POSITION_GAIN * rows[:, :, None]
    return torch.cat((first, second), dim=1)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)
