"""From worlds to what the diffusion transformer learns from: true latents, and what the cache shows of them.

Everything between geometry and condition is the product's own code, or a batched twin that a test compares with it. A
sample keeps the latents of all views, so that every time it is used other views and another fusion mode are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from gen3c.cache3d import bounded_depth, reliable_mask
from gen3c.cameras import unproject
from gen3c.fusion import BUFFERS, NEAR_FULL, FusionMode, Pool, ViewLatents, camera_nearness, cell_coverage, fold
from gen3c.generator.vae import VideoDecoder, VideoEncoder, to_uint8
from gen3c.geometry.vggt.model import Vggt
from gen3c.splat import EMPTY, Warp, forward_warp
from training import served_geometry
from training.footage import Footage, film, mirrored, recoloured
from training.motion import motion, shifts
from training.noisy_geometry import ViewGeometry, disturbed
from training.scenes import Worlds, as_float

P = TypeVar("P", VideoEncoder, VideoDecoder)

VIEWS = 8
MIN_CONFIDENCE = 0.1  # the job's default
# Of the scenes; VGGT's geometry has the rest. Mild errors are like those of structure from motion: what a view shows
# can be copied then.
EXACT_SHARE, MILD_SHARE, NOISY_SHARE = 0.1, 0.25, 0.15
MILD = 0.15  # of the errors of `disturbed`, at most
ALL_VIEWS_SHARE, ONE_VIEW_SHARE = 0.4, 0.2  # of the conditions; the rest have 2 to 7 views
# Of the conditions; half have the job's default.
MODE_SHARES: dict[FusionMode, float] = {
    "vector_max": 1 / 6,
    "coverage_max": 1 / 6,
    "ranked_concat": 1 / 2,
    "topk_concat": 1 / 6,
}
WHOLE = 2  # conditions of topk_concat a sample: its rule on pixels comes before the encoder


def choose_geometry(footage: Footage, vggt: Vggt | None, generator: torch.Generator) -> ViewGeometry:
    """What the cache is made of: the truth, the truth disturbed, or VGGT's prediction at the truth's scale."""
    truth = footage.truth
    drawn, amount = torch.rand(2, len(truth.depth), generator=generator, device=truth.depth.device)
    mild = drawn < EXACT_SHARE + MILD_SHARE
    noisy = disturbed(truth, generator, amount=torch.where(mild, MILD * amount, amount.square()))
    if vggt is not None:
        estimated, usable = estimated_geometry(footage, vggt)
        noisy = ViewGeometry.choose((drawn < EXACT_SHARE + MILD_SHARE + NOISY_SHARE) | ~usable, noisy, estimated)
    return ViewGeometry.choose(drawn < EXACT_SHARE, truth, noisy)


def estimated_geometry(footage: Footage, vggt: Vggt) -> tuple[ViewGeometry, Tensor]:
    """VGGT's prediction in units of the true centre depth, and for which scenes there is one, [b] bool."""
    estimated, usable = served_geometry.estimate(vggt, footage.views)
    unit = served_geometry.unit_against(estimated, footage.truth.depth[:, 0])
    return served_geometry.in_unit(estimated, unit), usable


@dataclass(frozen=True)
class Cached:
    """`gen3c.cache3d.CachedView` of v views of one scene."""

    image: Tensor  # [v,3,h,w] in [-1,1]
    points: Tensor  # [v,h,w,3]
    mask: Tensor  # [v,1,h,w] bool


def cached(rgb: Tensor, geometry: ViewGeometry, scene: int) -> Cached:
    """`gen3c.cache3d.cache_view` of all views of one scene; rgb [b,v,h,w,3] uint8."""
    depth, confidence, w2c, K = (x[scene] for x in geometry.parts())
    depth = bounded_depth(depth)
    usable = (depth > 0) & (confidence > 0) & (confidence >= MIN_CONFIDENCE)
    mask = usable[:, None] & reliable_mask(depth[:, None])
    return Cached(as_float(rgb[scene]), unproject(depth, w2c, K), mask)


def warp_views(cache: Cached, w2c: Tensor, K: Tensor) -> Warp:
    """Every view from f target cameras [f,4,4], K [3,3]: v*f pictures, those of view 0 first."""
    v, f = len(cache.image), len(w2c)

    def repeated(x: Tensor) -> Tensor:
        return x[:, None].expand(-1, f, *x.shape[1:]).flatten(0, 1)

    size = (cache.image.shape[2], cache.image.shape[3])
    return forward_warp(
        repeated(cache.points),
        repeated(cache.image),
        repeated(cache.mask),
        w2c.repeat(v, 1, 1),
        K.expand(v * f, -1, -1),
        size,
    )


def choose_two(frame_coverage: Tensor, included: Tensor) -> tuple[Tensor, Tensor]:
    """`gen3c.fusion.choose_views` among the views in `included` [s,v] bool, for s subsets of one scene.

    Of frame_coverage [v,f]: the two views [s,2], and which of their frames are shown, [s,2,f] bool; no frame of a
    second view that is not there.
    """
    count = included.sum(1, keepdim=True)  # [s,1]
    total = frame_coverage.double().sum(1).expand_as(included)
    index = torch.arange(included.shape[1], device=included.device, dtype=torch.float64).expand_as(included)
    rank = torch.where(included, torch.where(count > BUFFERS, total, -index), -torch.inf)
    views = torch.argsort(rank, dim=1, descending=True, stable=True)[:, :BUFFERS]
    there = included.gather(1, views)[..., None]
    nearly = (frame_coverage[views] >= NEAR_FULL) & there
    first = nearly & (nearly.int().cumsum(1) == 1)
    return views, torch.where(nearly.any(1, keepdim=True), first, torch.ones_like(nearly)) & there


def draw_subsets(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Which views are given, [n,VIEWS] bool; view 0 always is."""
    kind, few = torch.rand(2, n, generator=generator, device=device)
    count = 2 + (few * (VIEWS - 2)).floor()
    count = torch.where(kind < ALL_VIEWS_SHARE + ONE_VIEW_SHARE, 1, count)
    count = torch.where(kind < ALL_VIEWS_SHARE, VIEWS, count)
    order = torch.rand(n, VIEWS, generator=generator, device=device)
    order[:, 0] = -1
    return order.argsort(1).argsort(1) < count[:, None]


def pooled(views: Tensor, coverage: Tensor, nearness: Tensor, included: Tensor, mode: FusionMode) -> Tensor:
    """The conditions [n,64,t,h,w] of n scenes by `gen3c.fusion.fold`; not for topk_concat.

    views [n,v,32,t,h,w], coverage [n,v,t,h,w], nearness [n,v,t,1,1], included [n,v] bool. Folding works cell by cell,
    so the scenes lie behind one another in time. What is left out is no number, which no comparison prefers.
    """
    n, v, c, t, h, w = views.shape
    out = ~included[:, :, None, None, None]
    coverage = torch.where(out, torch.nan, coverage.float())
    views = torch.where(out[..., None], torch.nan, views.float())
    latents = views.permute(1, 2, 0, 3, 4, 5).reshape(v, c, n * t, h, w)
    coverage = coverage.transpose(0, 1).reshape(v, n * t, h, w)
    nearness = nearness.float().expand(-1, -1, -1, h, w).transpose(0, 1).reshape(v, n * t, h, w)
    pool = Pool.empty((n * t, h, w), views.device)
    for i in range(v):
        pool = fold(pool, ViewLatents(latents[i], coverage[i], nearness[i]), mode)
    return pool.latents.unflatten(2, (n, t)).movedim(2, 0).flatten(1, 2)


def draw_caches(batch: dict[str, Tensor], generator: torch.Generator) -> Tensor:
    """Conditions [n,64,t,h,w] of a batch of samples, by the fusion modes in turn, each of views drawn anew."""
    n, device = len(batch["target"]), batch["target"].device
    included = draw_subsets(n, generator, device)
    which = torch.randint(WHOLE, (n,), generator=generator, device=device)
    bounds = [round(n * share) for share in accumulate(MODE_SHARES.values(), initial=0.0)]
    caches = []
    for mode, (start, end) in zip(MODE_SHARES, pairwise(bounds), strict=True):
        part = slice(start, end)
        if mode == "topk_concat":
            caches.append(batch["whole"][part][torch.arange(end - start, device=device), which[part]].float())
        else:
            parts = (batch[name][part] for name in ("views", "coverage", "nearness"))
            caches.append(pooled(*parts, included[part], mode))
    return torch.cat(caches)


class SampleMaker:
    """Worlds in, samples of the ring out. Holds the networks that conditions come from."""

    def __init__(
        self,
        encoder: VideoEncoder,
        decoder: VideoDecoder,
        vggt: Vggt | None,
        device: torch.device,
        *,
        size: tuple[int, int] = (192, 320),
        samples: int = 2,  # rays a pixel and axis
        with_pixels: bool = False,
    ) -> None:
        self.device, self.size, self.samples, self.vggt = device, size, samples, vggt
        self.with_pixels = with_pixels
        self.dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self.decoder = _narrow(decoder, device, self.dtype)
        self._encoder = _narrow(encoder, device, self.dtype)
        self._encode = torch.compile(self._encoder, dynamic=False) if device.type == "cuda" else self._encoder
        self._decode_one = (
            torch.compile(self.decoder.decode, dynamic=False) if device.type == "cuda" else decoder.decode
        )

    @torch.no_grad()
    def exchange_vggt(self, weights: dict[str, Tensor]) -> None:
        """Estimate geometry with other weights of the same network from now on."""
        assert self.vggt is not None
        self.vggt.load_state_dict(weights)

    @torch.no_grad()
    def __call__(self, seeds: Sequence[int], worlds: Worlds, generator: torch.Generator) -> dict[str, Tensor]:
        """The samples of these worlds: target [n,16,t,h,w], seed [n,2,16,1,h,w] (as photographed, as decoded before),
        views [n,VIEWS,32,t,h,w], coverage [n,VIEWS,t,h,w], nearness [n,VIEWS,t,1,1], and whole [n,WHOLE,64,t,h,w],
        conditions of topk_concat. With pixels also the true video, rgb [n,T,H,W,3] uint8, and how its points move,
        shift [n,T-1,H,W,2] (training.motion.shifts).
        """
        footage, _ = film(seeds, worlds, self.size, self.samples)
        footage = mirrored(footage, torch.rand(len(seeds), generator=generator, device=self.device) < 0.5)
        together = recoloured(torch.cat((footage.views, footage.targets[:, 1:]), dim=1), generator)
        views = together[:, :VIEWS]
        targets = torch.cat((together[:, :1], together[:, VIEWS:]), dim=1)
        footage = Footage(views, targets, footage.truth, footage.target_depth, footage.target_w2c)
        geometry = choose_geometry(footage, self.vggt, generator)
        scenes = [self.sample(footage, geometry, i, generator) for i in range(len(seeds))]
        return {name: torch.stack([scene[name] for scene in scenes]) for name in scenes[0]}

    @torch.no_grad()
    def sample(
        self, footage: Footage, geometry: ViewGeometry, scene: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The sample of one scene, seen from the target cameras with view 0's intrinsics, as in a job."""
        warp = warp_views(cached(footage.views, geometry, scene), footage.target_w2c[scene], geometry.K[scene, 0])
        f = len(footage.target_w2c[scene])
        image = warp.image.to(self.dtype).unflatten(0, (VIEWS, f))  # [v,f,3,h,w]
        mask = warp.coverage.unflatten(0, (VIEWS, f))  # [v,f,1,h,w]
        included = draw_subsets(WHOLE, generator, self.device)
        included[0] = True
        chosen, keep = choose_two(mask.mean(dim=(2, 3, 4)), included)
        keep = keep.flatten(0, 1)[..., None, None, None]  # [WHOLE*2,f,1,1,1]
        kept_image = torch.where(keep, image[chosen.flatten()], EMPTY)
        kept_mask = torch.where(keep, mask[chosen.flatten()], 0.0)
        target = as_float(footage.targets[scene]).to(self.dtype)[None]  # [1,f,3,h,w]
        pictures = torch.cat((image, kept_image))
        greys = (torch.cat((mask, kept_mask)) * 2 - 1).to(self.dtype).expand_as(pictures)
        latents = self._encode(torch.cat((pictures, greys, target)).transpose(1, 2))  # [v*2+whole*4+1,16,t,h,w]
        shown, masks = latents[:-1].chunk(2)
        pairs = torch.cat((shown, masks), dim=1)  # [v+whole*2,32,t,h,w]
        there = included.gather(1, chosen).flatten()[:, None, None, None, None]
        whole = torch.where(there, pairs[VIEWS:], 0.0).unflatten(0, (WHOLE, BUFFERS)).flatten(1, 2)
        seed = latents[-1:, :, :1]
        made = {
            "target": latents[-1],
            "seed": torch.cat((seed, self._decoded_before(seed))),
            "views": pairs[:VIEWS],
            "coverage": torch.stack([cell_coverage(m) for m in mask]).half(),  # exact: they are k/512
            "nearness": torch.stack([camera_nearness(view, footage.target_w2c[scene]) for view in geometry.w2c[scene]]),
            "whole": whole,
        }
        if self.with_pixels:
            moved = motion(footage.target_depth[scene], footage.target_w2c[scene], footage.truth.K[scene, 0])
            made |= {"rgb": footage.targets[scene], "shift": shifts(moved)}
        return made

    def _decoded_before(self, seed: Tensor) -> Tensor:
        """The latent of a first frame [1,16,1,h,w] that was itself decoded, as those of later chunks are."""
        frame = to_uint8(self._decode_one(seed.float()))[0]  # [1,h,w,3]
        return self._encoder(as_float(frame).to(self.dtype)[:, :, None])


def _narrow(program: P, device: torch.device, dtype: torch.dtype) -> P:
    """The program on `device` with weights of `dtype`; the latent statistics stay as they are."""
    program = program.to(device).eval().requires_grad_(False)
    for parameter in program.parameters():
        parameter.data = parameter.data.to(dtype)
    return program
