"""What the diffusion transformer is trained by: noise levels, EDM's loss, and the error in pixels.

EDM: Karras et al., "Elucidating the Design Space of Diffusion-Based Generative Models", 2022, table 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from gen3c.generator.sampler import AUGMENT_SIGMA
from gen3c.generator.scheduler import SIGMA_DATA, SIGMA_MAX, Preconditioning
from gen3c.presets import TINY

# Noise levels: those of few steps, of which four are at 80, 8, 0.25 and nearly 0; the rest where pictures take shape.
# Most are of the first step, from which most of the result comes, and all of it where there is but one.
START_SHARE, START_LOWEST = 0.65, 20.0  # uniform in log sigma from here to SIGMA_MAX
SECOND_SHARE, SECOND_SIGMA, SECOND_STD = 0.15, 8.0, 0.5  # normal in log sigma
LOG_MEAN, LOG_STD = -0.2, 1.5  # normal in log sigma, the others
MUCH_NOISE = 4.0  # for the log
CHANNEL_POWER = 1.0  # of a channel's effect on pixels, for its weight
PIXELS_ABOVE = 1.0  # noise level: below, the pixels are nearly right
PIXELS_FLOOR = 2e-3  # mean squared error on [-1,1], 33 dB, below which a window counts for little
PIXELS_EVERY = 4  # samples: batches are in the order of fusion modes, so these have all of them
WINDOW = (12, 20)  # rows and columns of latent cells that are decoded


def draw_sigmas(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise levels [n]."""
    kind, place = torch.rand(2, n, generator=generator, device=device)
    normal = torch.randn(n, generator=generator, device=device)
    start = math.log(START_LOWEST) + place * math.log(SIGMA_MAX / START_LOWEST)
    second = math.log(SECOND_SIGMA) + SECOND_STD * normal
    log = torch.where(kind < START_SHARE + SECOND_SHARE, second, LOG_MEAN + LOG_STD * normal)
    return torch.where(kind < START_SHARE, start, log.clamp(max=math.log(SIGMA_MAX))).exp()


def denoising_loss(
    dit: Callable[..., Tensor],
    target: Tensor,  # [n,16,t,h,w]
    seed: Tensor,  # [n,16,1,h,w]
    cache: Tensor,  # [n,64,t,h,w]
    sigma: Tensor,  # [n]
    noise: Tensor,  # [n,16,t,h,w]
    fps: Tensor,  # [n,1]
    weights: Tensor,  # [16,1,1,1] of the channels
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """EDM's loss; the denoised latent [n,16,t,h,w], whose first frame is the target's; and for the log its error from
    much noise and from little.
    """
    column = sigma.view(-1, 1, 1, 1, 1)
    at = Preconditioning.at(column)
    held = (seed + AUGMENT_SIGMA * noise[:, :, :1]) / math.hypot(AUGMENT_SIGMA, SIGMA_DATA)
    latent = torch.cat((held, (target + column * noise)[:, :, 1:] * at.c_in), dim=2)
    mask = F.pad(torch.ones_like(cache[:, :1, :1]), (0, 0, 0, 0, 0, cache.shape[2] - 1))
    text = latent.new_zeros(len(latent), TINY.dit.text_tokens, TINY.dit.text_dim)  # no text encoder is served
    out = dit(latent, at.c_noise.view(-1, 1), mask, cache, text, fps).float()
    # (target - c_skip x) / c_out, without the difference of two large numbers.
    total = (column**2 + SIGMA_DATA**2).sqrt()
    wanted = (column / SIGMA_DATA * target - SIGMA_DATA * noise) / total
    difference = (out - wanted)[:, :, 1:]
    denoised = torch.cat((target[:, :, :1], target[:, :, 1:] + at.c_out * difference), dim=2)
    error = difference.square()
    with torch.no_grad():
        missed = (error * at.c_out**2).mean(dim=(1, 2, 3, 4))
        much = (sigma > MUCH_NOISE).float()
        little = ((sigma < 1) & (sigma > 0.1)).float()
        logged = {
            "much_noise": (missed * much).sum() / much.sum().clamp(min=1),
            "little_noise": (missed * little).sum() / little.sum().clamp(min=1),
        }
    return (error * weights).mean(), denoised, logged


def pixel_loss(
    decode: Callable[[Tensor], Tensor],  # latents [m,16,t,h,w] to videos [m,3,T,8h,8w] in [-1,1]
    denoised: Tensor,  # [n,16,t,h,w]
    target: Tensor,  # [n,16,t,h,w]
    sigma: Tensor,  # [n]
    generator: torch.Generator,  # on the CPU
) -> Tensor:
    """Logarithm of the decoded pixels' mean squared error after the first frame, against the decoded target.

    Of every PIXELS_EVERY-th sample whose noise is above PIXELS_ABOVE, in one window of them all; the others count as 0.
    The mean of the logarithms is what the mean PSNR of scenes is: those that are well seen count as the others.
    """
    place = []
    for whole, length in zip(target.shape[3:], WINDOW, strict=True):
        start = int(torch.randint(max(0, whole - length) + 1, (), generator=generator))
        place.append(slice(start, start + length))
    rows, columns = place

    def window(latent: Tensor) -> Tensor:
        return latent[::PIXELS_EVERY, :, :, rows, columns].contiguous()

    with torch.no_grad():
        wanted = decode(window(target))
    error = (decode(window(denoised)) - wanted)[:, :, 1:].square().mean(dim=(1, 2, 3, 4))  # [m]
    return ((error + PIXELS_FLOOR).log() * (sigma[::PIXELS_EVERY] > PIXELS_ABOVE)).mean()


@torch.no_grad()
def channel_weights(decode: Callable[[Tensor], Tensor], latents: Tensor, generator: torch.Generator) -> Tensor:
    """Weights [16,1,1,1] of mean 1: the power CHANNEL_POWER of what noise on a channel of the latents [n,16,t,h,w] does
    to the decoded pixels, in mean squares.

    All processes get those of the first.
    """
    latents = latents.float()
    clean = decode(latents)
    effects = []
    for channel in range(latents.shape[1]):
        noisy = latents.clone()
        noise = torch.randn(latents[:, channel].shape, generator=generator, device=latents.device)
        noisy[:, channel] += 0.2 * SIGMA_DATA * noise
        effects.append((decode(noisy) - clean).square().mean())
    weights = torch.stack(effects) ** CHANNEL_POWER
    weights = weights / weights.mean()
    if distributed.is_initialized():
        distributed.broadcast(weights, 0)
    return weights.view(-1, 1, 1, 1)
