"""A VGGT so small that a test of the whole network takes milliseconds, and in which every part has a say."""

import pytest
import torch

from gen3c.geometry.vggt.model import Vggt
from gen3c.presets import VggtConfig


@pytest.fixture(scope="session")
def config() -> VggtConfig:
    """Every number that can differ from another does; of five levels, the third is not read."""
    return VggtConfig(
        name="VGGT-tiny",
        image_side=70,
        width=32,
        heads=2,
        depth=5,
        levels=(0, 1, 3, 4),
        vit_depth=1,
        vit_heads=4,
        camera_depth=1,
        camera_heads=8,
        features=8,
        out_channels=(8, 8, 8, 8),
    )


@pytest.fixture
def vggt(config: VggtConfig) -> Vggt:
    """Random weights: gains near 1, also of the LayerScales; biases, tokens and positions large enough to be seen."""
    generator = torch.Generator().manual_seed(0)
    network = Vggt(config)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (0 if name.endswith("bias") else 1))
            elif name.endswith(("token", "tokens", "pos_embed")):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        # Poses are sums over the iterations; fields of view stay on the side of 0 where they are not cut off.
        network.camera_head.pose_branch.fc2.weight.mul_(0.2)
        network.camera_head.pose_branch.fc2.bias[7:] = 0.3
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def images() -> torch.Tensor:
    """Two scenes of three pictures, 3 x 5 patches: [2,3,3,42,70] in [0,1], smooth enough to look like something."""
    coarse = torch.rand(6, 3, 6, 10, generator=torch.Generator().manual_seed(1))
    pictures = torch.nn.functional.interpolate(coarse, (42, 70), mode="bilinear", align_corners=False)
    return pictures.reshape(2, 3, 3, 42, 70)
