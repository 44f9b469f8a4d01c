"""How good the tiny diffusion transformer is on held-out scenes while it trains."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gen3c.generator.dit import Dit
from gen3c.generator.sampler import AUGMENT_SIGMA, augment_noise
from gen3c.generator.scheduler import SIGMA_MAX, Preconditioning, edm_sigmas
from gen3c.generator.vae import to_uint8
from gen3c.holes import fill_holes
from gen3c.splat import Warp
from training.conditions import VIEWS, SampleMaker, cached, choose_geometry, estimated_geometry, pooled, warp_views
from training.footage import Footage, film
from training.noisy_geometry import ViewGeometry
from training.scenes import draw_worlds
from training.shots import VALIDATION_SEEDS, seen

STEPS = (1, 4, 10, 20)
ROWS = {"ranked8": ("ranked_concat", VIEWS), "covered8": ("coverage_max", VIEWS), "ranked1": ("ranked_concat", 1)}
SHOWN_SCENES, SHOWN_FRAMES = 4, (8, 16, 24)
_AT_ONCE = 16  # scenes


@dataclass(frozen=True)
class Case:
    """One held-out scene."""

    truth: Tensor  # [f,h,w,3] uint8
    unseen: Tensor  # [f,h,w] bool: in no view
    composites: dict[int, Tensor]  # number of views -> [f,h,w,3] uint8
    first_warp: Tensor  # [f,h,w,3] uint8, view 0 alone
    reconstruction: Tensor  # [f,h,w,3] uint8: the truth through the autoencoder
    seed: Tensor  # [16,1,h',w']
    caches: dict[str, Tensor]  # row -> [64,t,h',w']


class Validation:
    """Scenes of the validation split with the geometry that a job would have, and what is measured on them."""

    def __init__(self, maker: SampleMaker, scenes: int, directory: Path) -> None:
        self._maker, self._directory = maker, directory
        generator = torch.Generator(maker.device).manual_seed(0)
        self._cases: list[Case] = []
        for start in range(0, scenes, _AT_ONCE):
            seeds = VALIDATION_SEEDS[start : start + min(_AT_ONCE, scenes - start)]
            footage, _ = film(seeds, draw_worlds(seeds, maker.device), maker.size, maker.samples)
            self._cases += make_cases(maker, footage, generator)
        self._constant = self._references()

    def measure(self, dit: nn.Module) -> dict[str, float]:
        """PSNR in dB over all and over unseen pixels, mean of the scenes, for rows and numbers of steps; a sheet."""
        assert isinstance(dit, Dit)
        figures = dict(self._constant)
        for row in ROWS:
            for steps in STEPS:
                videos = self._videos(dit, row, steps)
                figures |= self._psnr(f"{row}/{steps}", videos)
                if row == "ranked8" and steps == 4:
                    self._sheet(videos[:SHOWN_SCENES])
        return figures

    def _videos(self, dit: Dit, row: str, steps: int) -> list[Tensor]:
        """The result for every scene, [f,h,w,3] uint8 each."""
        videos: list[Tensor] = []
        for start in range(0, len(self._cases), _AT_ONCE):
            cases = self._cases[start : start + _AT_ONCE]
            cache = torch.stack([case.caches[row] for case in cases]).float()
            seed = torch.stack([case.seed for case in cases]).float()
            generator = torch.Generator().manual_seed(start)
            noise = torch.randn(len(cases), seed.shape[1], *cache.shape[2:], generator=generator)
            with torch.autocast(cache.device.type, torch.bfloat16, enabled=cache.is_cuda):
                latents = sample(dit, seed, cache, noise.to(cache.device), steps)
            videos += list(to_uint8(self._maker.decoder.decode(latents)))
        return videos

    def _references(self) -> dict[str, float]:
        """The figures of what needs no transformer, and the share of unseen pixels."""
        shares = torch.stack([case.unseen.float().mean() for case in self._cases])
        figures = {"unseen_median": round(float(shares.median()), 4)}
        for views in (VIEWS, 1):
            figures |= self._psnr(f"composite{views}", [case.composites[views] for case in self._cases])
        return figures | self._psnr("vae", [case.reconstruction for case in self._cases])

    def _psnr(self, name: str, videos: list[Tensor]) -> dict[str, float]:
        everywhere = torch.stack([psnr(v, c.truth) for v, c in zip(videos, self._cases, strict=True)])
        unseen = torch.stack([psnr(v, c.truth, c.unseen) for v, c in zip(videos, self._cases, strict=True)])
        return {name: round(float(everywhere.mean()), 3), f"{name}/unseen": round(float(unseen.nanmean()), 3)}

    def _sheet(self, results: list[Tensor]) -> None:
        """A row a scene; for each shown frame: truth, warp of view 0, composite, result; half size."""
        rows = []
        for case, result in zip(self._cases, results, strict=False):
            columns = [case.truth, case.first_warp, case.composites[VIEWS], result]
            rows.append(torch.cat([column[frame] for frame in SHOWN_FRAMES for column in columns], dim=1))
        sheet = Image.fromarray(np.asarray(torch.cat(rows).cpu()))
        self._directory.mkdir(parents=True, exist_ok=True)
        sheet.resize((sheet.width // 2, sheet.height // 2), Image.Resampling.BOX).save(self._directory / "sheet.png")


@torch.no_grad()
def make_cases(maker: SampleMaker, footage: Footage, generator: torch.Generator) -> list[Case]:
    """A case for every scene of `footage`, with VGGT's geometry if the maker has it, else with disturbed truth."""
    geometry = choose_geometry(footage, None, generator)
    if maker.vggt is not None:
        estimated, usable = estimated_geometry(footage, maker.vggt)
        geometry = ViewGeometry.choose(usable, estimated, geometry)
    truth = footage.truth
    visible = seen(footage.target_depth, footage.target_w2c, truth.K[:, 0], truth.depth, truth.w2c)  # [b,f,v,h,w]
    cases = []
    for i in range(len(footage.views)):
        sample = maker.sample(footage, geometry, i, generator)
        warp = warp_views(cached(footage.views, geometry, i), footage.target_w2c[i], geometry.K[i, 0])
        distance = _distances(geometry.w2c[i], footage.target_w2c[i])
        caches = {}
        for row, (mode, views) in ROWS.items():
            included = (torch.arange(VIEWS, device=maker.device) < views)[None]
            parts = (sample[name][None] for name in ("views", "coverage", "nearness"))
            caches[row] = pooled(*parts, included, mode)[0].to(maker.dtype)
        case = Case(
            truth=footage.targets[i],
            unseen=~visible[i].any(dim=1),
            composites={views: composite(warp, distance, views) for views in (VIEWS, 1)},
            first_warp=to_uint8(warp.image[: footage.targets.shape[1]].transpose(0, 1)[None])[0],
            reconstruction=to_uint8(maker.decoder.decode(sample["target"][None].float()))[0],
            seed=sample["seed"][0],
            caches=caches,
        )
        cases.append(case)
    return cases


def composite(warp: Warp, distance: Tensor, views: int) -> Tensor:
    """Every pixel from the nearest camera that covers it, of the first `views` of VIEWS views; holes are closed from
    around them. distance [v,f] is between the cameras of views and frames; [f,h,w,3] uint8.
    """
    image, coverage = (x.unflatten(0, (VIEWS, -1))[:views] for x in (warp.image, warp.coverage))
    covered = coverage > 0  # [v,f,1,h,w]
    far = distance[:views, :, None, None, None]
    nearest = torch.where(covered, far, torch.inf).argmin(dim=0, keepdim=True)
    pixels = image.gather(0, nearest.expand(1, -1, 3, -1, -1))[0]  # [f,3,h,w]
    return to_uint8(fill_holes(pixels, covered.any(dim=0)).transpose(0, 1)[None])[0]


def _distances(views: Tensor, frames: Tensor) -> Tensor:  # [v,4,4] and [f,4,4] w2c
    """Between the cameras of views and frames, [v,f]."""
    at, to = (-(w2c[:, :3, :3] * w2c[:, :3, 3:]).sum(1) for w2c in (views, frames))
    return (at[:, None] - to).norm(dim=-1)


def psnr(video: Tensor, truth: Tensor, where: Tensor | None = None) -> Tensor:
    """dB between videos [f,h,w,3] uint8, over the pixels in `where` [f,h,w] bool; NaN if there are none."""
    error = (video.float() - truth.float()).square().mean(-1)
    mean = error.mean() if where is None else (error * where).sum() / where.sum()
    return 10 * (255**2 / mean.clamp(min=1e-3)).log10()


@torch.no_grad()
def sample(dit: Dit, seed: Tensor, cache: Tensor, noise: Tensor, steps: int, fps: float = 24.0) -> Tensor:
    """`gen3c.generator.sampler.sample_chunk` without guidance for b chunks at once.

    seed [b,16,1,h,w], cache [b,64,t,h,w], noise [b,16,t,h,w] -> latent [b,16,t,h,w].
    """
    b, device = len(cache), cache.device
    mask = torch.zeros_like(cache[:, :1])
    mask[:, :, :1] = 1
    text = cache.new_zeros(b, dit.config.text_tokens, dit.config.text_dim)
    held = seed + AUGMENT_SIGMA * augment_noise((1, *noise.shape[1:]), 0)[:, :, :1].to(device)
    latent = noise * (SIGMA_MAX**2 + 1) ** 0.5
    for sigma, sigma_next in pairwise(edm_sigmas(steps)):
        at = Preconditioning.at(sigma)
        is_held = bool(sigma > AUGMENT_SIGMA)
        if is_held:
            latent = torch.cat((held * (Preconditioning.at(AUGMENT_SIGMA).c_in / at.c_in), latent[:, :, 1:]), dim=2)
        timestep = at.c_noise.to(device).expand(b, 1)
        out = dit(latent * at.c_in, timestep, mask, cache, text, torch.full((b, 1), fps, device=device)).float()
        denoised = at.c_skip * latent + at.c_out * out
        if is_held:
            denoised = torch.cat((seed, denoised[:, :, 1:]), dim=2)
        latent = latent + (latent - denoised) / sigma * (sigma_next - sigma)
    return latent
