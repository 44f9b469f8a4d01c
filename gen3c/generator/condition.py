"""What one chunk is conditioned on: its first frame, what the cache shows of it, text and frame rate."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.signatures import CACHE_CHANNELS, VIEW_CHANNELS
from gen3c.program import Program


@dataclass(frozen=True)
class ChunkCondition:
    """The condition of one chunk of t latent frames."""

    seed_latent: Tensor  # [1,16,1,h,w] float32, normalised latent of the chunk's first frame
    cache: Tensor  # [1,64,t,h,w] float32, the pooled or concatenated views
    text: Tensor  # [1,tokens,text_dim] float32
    negative_text: Tensor  # [1,tokens,text_dim] float32
    fps: float  # frames per second of the output

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the latent to be sampled, [1,16,t,h,w]."""
        return (1, self.seed_latent.shape[1], *self.cache.shape[2:])

    def dit_inputs(self, *, conditional: bool) -> dict[str, Tensor]:
        """The inputs of the program `dit` that stay the same at every step.

        Unconditional means no cache and the negative text; the first frame stays given.
        """
        mask = torch.zeros_like(self.cache[:, :1])
        mask[:, :, :1] = 1.0
        return {
            "CONDITION_MASK": mask,
            "CACHE": self.cache if conditional else torch.zeros_like(self.cache),
            "TEXT": self.text if conditional else self.negative_text,
            "FPS": torch.full((self.cache.shape[0], 1), self.fps, device=self.cache.device),
        }


def encode_view(
    encoder: Program,
    image: Tensor,  # [1,3,T,H,W] float in [-1,1], -1 where nothing is seen
    mask: Tensor,  # [1,1,T,H,W] float, 1 where the cache covers a pixel, else 0
) -> Tensor:
    """One rendered view as latents, [1,32,t,h,w]: the image's 16 channels, then those of the mask as a grey video."""
    if mask.shape != (image.shape[0], 1, *image.shape[2:]):
        raise InvalidInputError(f"mask has shape {list(mask.shape)}, image {list(image.shape)}; legal is one channel.")
    grey = (mask * 2 - 1).to(image.dtype).expand_as(image)
    # Another GPU may answer than the one that rendered.
    latents = [encoder({"VIDEO": video})["LATENT"].to(image.device) for video in (image, grey)]
    return torch.cat(latents, dim=1)


def concat_views(views: Sequence[Tensor]) -> Tensor:  # one or two views, [1,32,t,h,w] each
    """The cache channels of the released network, [1,64,t,h,w]: two buffers; a missing one is zero latents."""
    if not 1 <= len(views) <= CACHE_CHANNELS // VIEW_CHANNELS:
        raise InvalidInputError(f"{len(views)} views cannot be concatenated; legal are 1 or 2.")
    missing = CACHE_CHANNELS // VIEW_CHANNELS - len(views)
    return torch.cat([*views, *[torch.zeros_like(views[0])] * missing], dim=1)


def seed_video(frame: Tensor, num_frames: int) -> Tensor:  # frame: [1,3,H,W] float in [-1,1]
    """The first frame of a chunk followed by grey (zero) frames, [1,3,T,H,W]."""
    rest = frame.new_zeros(*frame.shape[:2], num_frames - 1, *frame.shape[2:])
    return torch.cat([frame.unsqueeze(2), rest], dim=2)


def encode_seed(encoder: Program, frame: Tensor, num_frames: int) -> Tensor:  # frame: [1,3,H,W] float in [-1,1]
    """The latent of a chunk's first frame, [1,16,1,h,w].

    The reference encodes a whole chunk, [frame, grey, grey ...], and keeps latent frame 0. The encoder is causal, so
    num_frames = 1 gives the same at a fraction of the cost; a program of fixed length needs the preset's chunk_frames.
    """
    return encoder({"VIDEO": seed_video(frame, num_frames)})["LATENT"][:, :, :1]
