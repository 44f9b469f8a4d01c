"""Denoising of one chunk: Euler steps over EDM noise levels, the first latent frame held to the seed's."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.generator.condition import ChunkCondition
from gen3c.generator.scheduler import SIGMA_MAX, Preconditioning, edm_sigmas
from gen3c.geometry.types import Watch
from gen3c.program import Program

AUGMENT_SIGMA = 0.001  # noise on the held frame; at and below this level the frame is free


@torch.inference_mode()
def sample_chunk(
    dit: Program,
    condition: ChunkCondition,
    noise: Tensor,  # [1,16,t,h,w] float32, N(0,1), from initial_noise
    *,
    steps: int,
    guidance: float,
    augment_seed: int,
    batch_guidance: bool = False,
    watch: Watch | None = None,
    observe: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """The denoised latent, [1,16,t,h,w] float32 on the device of the condition.

    Network outputs are combined as cond + guidance * (cond - uncond), so 1 is a classifier-free weight of 2; at 0 the
    unconditional pass is skipped. `batch_guidance` makes both passes one call of batch 2. `watch` is asked before
    every step, `observe` sees the latent after each. The same arguments give the same latent, bit for bit.

    Raises InvalidInputError for illegal settings, CancelledError between steps, and FloatingPointError if the result
    is not finite.
    """
    _check(condition, noise, guidance)
    watch = watch or Watch()
    device = condition.cache.device
    predict = _guided(dit, condition, guidance, batch_guidance)
    seed = condition.seed_latent.to(device, torch.float32)
    held = seed + AUGMENT_SIGMA * augment_noise(condition.noise_shape, augment_seed)[:, :, :1].to(device)
    latent = noise.to(device, torch.float32) * math.sqrt(SIGMA_MAX**2 + 1)

    held_scale = Preconditioning.at(AUGMENT_SIGMA).c_in
    for step, (sigma, sigma_next) in enumerate(pairwise(edm_sigmas(steps))):
        watch.step("denoise", step, steps)
        at = Preconditioning.at(sigma)
        is_held = bool(sigma > AUGMENT_SIGMA)
        if is_held:
            latent = _with_first_frame(latent, held * held_scale / at.c_in)  # in this order: it decides the last bit
        denoised = at.c_skip * latent + at.c_out * predict(latent * at.c_in, at.c_noise)
        if is_held:
            denoised = _with_first_frame(denoised, seed)
        latent = latent + (latent - denoised) / sigma * (sigma_next - sigma)
        if observe is not None:
            observe(latent)
    watch.step("denoise", steps, steps)
    if not latent.isfinite().all():
        raise FloatingPointError(f"The latent is not finite after {steps} steps at guidance {guidance}.")
    return latent


def initial_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """N(0,1) of `shape`, float32 on the CPU, where one seed gives the same numbers for every target device.

    Raises InvalidInputError for a generator of another device.
    """
    if generator.device.type != "cpu":
        raise InvalidInputError(f"The noise generator is on {generator.device}; legal is cpu.")
    return torch.randn(shape, generator=generator)


def augment_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """The noise on the held frame, float32 of `shape`: NumPy's legacy generator, as the reference draws it.

    Raises InvalidInputError unless 0 <= seed < 2**32.
    """
    if not 0 <= seed < 2**32:
        raise InvalidInputError(f"seed is {seed}; legal is 0 to {2**32 - 1}.", field="seed")
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def _guided(
    dit: Program, condition: ChunkCondition, guidance: float, batch_guidance: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """The guided network as a function of the scaled latent and 0.25 ln(sigma)."""
    cond = condition.dit_inputs(conditional=True)
    uncond = condition.dit_inputs(conditional=False) if guidance else {}
    both = {}
    if guidance and batch_guidance:
        both = {name: torch.cat([cond[name], uncond[name]]) for name in cond}

    def call(fixed: dict[str, Tensor], latent: Tensor, c_noise: Tensor) -> Tensor:
        batch = fixed["CACHE"].shape[0]
        timestep = c_noise.to(latent.device).expand(batch, 1)
        latent = latent.expand(batch, *latent.shape[1:])
        out = dit({**fixed, "LATENT": latent, "TIMESTEP": timestep})["OUT"]
        return out.to(latent.device, torch.float32)  # a server of several GPUs answers from any of them

    def predict(latent: Tensor, c_noise: Tensor) -> Tensor:
        if guidance == 0:
            return call(cond, latent, c_noise)
        if batch_guidance:
            out_cond, out_uncond = call(both, latent, c_noise).chunk(2)
        else:
            out_cond, out_uncond = call(cond, latent, c_noise), call(uncond, latent, c_noise)
        return out_cond + guidance * (out_cond - out_uncond)

    return predict


def _with_first_frame(latent: Tensor, first: Tensor) -> Tensor:  # [1,c,t,h,w], [1,c,1,h,w]
    return torch.cat([first, latent[:, :, 1:]], dim=2)


def _check(condition: ChunkCondition, noise: Tensor, guidance: float) -> None:
    if tuple(noise.shape) != condition.noise_shape:
        raise InvalidInputError(f"noise has shape {list(noise.shape)}; legal is {list(condition.noise_shape)}.")
    if not math.isfinite(guidance) or guidance < 0:
        raise InvalidInputError(f"guidance is {guidance}; legal is a finite number from 0.", field="guidance")
