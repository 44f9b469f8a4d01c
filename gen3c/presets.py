"""Every size in one place: what distinguishes `tiny` from `gen3c-7b`."""

from dataclasses import dataclass
from typing import Literal

from gen3c.errors import InvalidInputError


@dataclass(frozen=True)
class VaeConfig:
    """Widths of diffusers' `AutoencoderKLCosmos`; the rest is as published."""

    encoder_channels: tuple[int, ...]
    decoder_channels: tuple[int, ...]
    layers_per_block: int = 2


@dataclass(frozen=True)
class LightVaeConfig:
    """Sizes of our light video autoencoder (gen3c.generator.light_vae); pairs are in the order of the layers."""

    encoder_channels: tuple[int, int]  # at a quarter, then at an eighth of the side
    encoder_blocks: tuple[int, int]
    decoder_channels: tuple[int, int]  # at an eighth, then at a quarter of the side
    decoder_blocks: tuple[int, int]


@dataclass(frozen=True)
class DitConfig:
    """Sizes of diffusers' `CosmosTransformer3DModel`."""

    layers: int
    heads: int
    head_dim: int
    adaln_lora_dim: int
    text_dim: int = 1024
    text_tokens: int = 512
    max_size: tuple[int, int, int] = (128, 240, 240)
    rope: Literal["float32", "bfloat16"] = "float32"  # in what position angles are computed (gen3c.generator.rope)


@dataclass(frozen=True)
class VggtConfig:
    """Sizes of VGGT (Wang et al., "VGGT: Visual Geometry Grounded Transformer", CVPR 2025)."""

    name: Literal["VGGT-tiny", "VGGT-1B"]
    image_side: int  # px, longer side of the pictures that the network was trained on; a multiple of `patch`
    width: int  # channels of a token
    heads: int
    depth: int  # frame blocks, and as many global ones
    levels: tuple[int, ...]  # four: the frame and global blocks whose outputs the dense heads read
    vit_depth: int  # blocks of the patch embedding, a DINOv2 network of the same width
    vit_heads: int
    camera_depth: int  # blocks of the camera head
    camera_heads: int
    features: int  # channels of the dense heads' fusion
    out_channels: tuple[int, int, int, int]  # of the dense heads' levels
    patch: int = 14  # px
    registers: int = 4
    mlp_ratio: int = 4
    rope_base: float = 100.0

    @property
    def special_tokens(self) -> int:
        """Tokens of a frame before those of its patches: the camera's and the registers."""
        return 1 + self.registers


@dataclass(frozen=True)
class Preset:
    """One deployment size. Latents have 16 channels, 8x8 pixels and 8 frames a cell (the first frame alone)."""

    name: Literal["tiny", "gen3c-7b"]
    height: int  # px, of the output and of every rendering
    width: int  # px
    chunk_frames: int  # frames of one diffusion chunk, 1 + 8*k
    geometry_side: int  # px, longer side of the pictures that geometry works on
    vae: VaeConfig | LightVaeConfig
    dit: DitConfig
    steps: int  # default denoising steps
    guidance: float  # default guidance g: cond + g*(cond - uncond)
    may_be_untrained: bool = False  # random weights may stand in where there is no checkpoint

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of one chunk."""
        return 1 + (self.chunk_frames - 1) // 8, self.height // 8, self.width // 8

    def chunks(self, num_frames: int) -> int:
        """How many chunks make `num_frames` output frames; consecutive chunks share one frame.

        Raises InvalidInputError with the two nearest legal counts unless num_frames = chunk + k*(chunk-1).
        """
        step = self.chunk_frames - 1
        if num_frames >= self.chunk_frames and (num_frames - 1) % step == 0:
            return (num_frames - 1) // step
        below = max(1, (num_frames - 1) // step) * step + 1
        legal = f"{below}" if num_frames < self.chunk_frames else f"{below} or {below + step}"
        raise InvalidInputError(
            f"num_frames is {num_frames}, but preset {self.name} makes {self.chunk_frames} + k*{step} frames; "
            f"the nearest legal count is {legal}.",
            field="spec.num_frames",
        )


VGGT_TINY = VggtConfig(
    name="VGGT-tiny",
    image_side=280,
    width=160,
    heads=5,
    depth=5,
    levels=(0, 2, 3, 4),
    vit_depth=2,
    vit_heads=5,
    camera_depth=1,
    camera_heads=5,
    features=48,
    out_channels=(48, 64, 96, 64),
    mlp_ratio=2,
)

VGGT_1B = VggtConfig(
    name="VGGT-1B",
    image_side=518,
    width=1024,
    heads=16,
    depth=24,
    levels=(4, 11, 17, 23),
    vit_depth=24,
    vit_heads=16,
    camera_depth=4,
    camera_heads=16,
    features=256,
    out_channels=(256, 512, 1024, 1024),
)

TINY = Preset(
    name="tiny",
    height=192,
    width=320,
    chunk_frames=25,
    geometry_side=640,
    vae=LightVaeConfig(
        encoder_channels=(64, 112), encoder_blocks=(2, 3), decoder_channels=(144, 64), decoder_blocks=(4, 3)
    ),
    dit=DitConfig(layers=7, heads=4, head_dim=48, adaln_lora_dim=32, text_dim=64, text_tokens=8, max_size=(16, 32, 48)),
    steps=1,  # more make it worse (docs/quality.md)
    guidance=0.0,
    may_be_untrained=True,
)

GEN3C_7B = Preset(
    name="gen3c-7b",
    height=704,
    width=1280,
    chunk_frames=121,
    geometry_side=1280,
    vae=VaeConfig(encoder_channels=(128, 256, 512, 512), decoder_channels=(256, 512, 512, 512)),
    dit=DitConfig(layers=28, heads=32, head_dim=128, adaln_lora_dim=256, rope="bfloat16"),  # as released
    steps=35,
    guidance=1.0,
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (TINY, GEN3C_7B)}


def get_preset(name: str) -> Preset:
    """The preset of that name; raises InvalidInputError naming the legal ones."""
    if name not in PRESETS:
        raise InvalidInputError(f"preset is {name!r}; legal: {', '.join(PRESETS)}.", field="preset")
    return PRESETS[name]
