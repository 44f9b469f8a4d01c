"""A perceptual distance from a small network of random weights, as no trained one can be had here.

The form is that of LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
2018): features of several stages, unit length over the channels, squared differences. Their paper has networks of
random weights as a control. What such a network keeps of a picture is local structure at several scales, with little
regard to the exact place, to brightness and to contrast; what things are, it cannot know. The figures are comparable
with one another and with nothing else, LPIPS included.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (32, 48, 64)  # channels; each stage halves the sides
SEED = 20180111
_FLOOR = 0.05  # of a feature's length: below that contrast structure counts ever less


class PerceptualDistance(nn.Module):
    """The same weights everywhere: drawn on the CPU from a fixed seed."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(SEED)
        layers = []
        before = 3
        for stage, channels in enumerate(STAGES):
            weight = torch.randn(channels, before, 5 if stage == 0 else 3, 5 if stage == 0 else 3, generator=generator)
            weight -= weight.mean((2, 3), keepdim=True)  # answers to structure, and not to brightness
            weight /= weight.flatten(1).norm(dim=1)[:, None, None, None]
            layers.append(nn.Parameter(weight, requires_grad=False))
            before = channels
        self.layers = nn.ParameterList(layers)

    @torch.inference_mode()
    def features(self, pictures: Tensor) -> list[Tensor]:
        """Of pictures [t,3,h,w] in [0,1], stage by stage [t,c,h/2^s,w/2^s]: of unit length where there is structure."""
        stages = []
        for weight in self.layers:
            pad = weight.shape[-1] // 2
            pictures = F.relu(F.conv2d(F.pad(pictures, (pad,) * 4, mode="replicate"), weight))
            unit = pictures / (pictures.square().sum(1, keepdim=True) + _FLOOR**2).sqrt()
            stages.append(F.avg_pool2d(unit, 2))  # a shift below the stage's stride is no other structure
            pictures = F.avg_pool2d(pictures, 2)
        return stages

    @torch.inference_mode()
    def forward(self, video: Tensor, truth: list[Tensor]) -> Tensor:
        """The distance of pictures [t,3,h,w] to those of the features `truth`, as a map [t,h,w].

        0 for equal pictures, 0.4 for those of other scenes.
        """
        total = torch.zeros(len(video), 1, *video.shape[2:], device=video.device)
        for a, b in zip(self.features(video), truth, strict=True):
            difference = (a - b).square().sum(1, keepdim=True)
            total += F.interpolate(difference, video.shape[2:], mode="bilinear", align_corners=False)
        return total[:, 0] / len(self.layers)
