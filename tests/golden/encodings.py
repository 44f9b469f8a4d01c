"""Cache channels: renderings to latents, concatenated as upstream or pooled as the public fork."""

import torch
from torch import Tensor

from gen3c.fusion import Pool, ViewLatents, fold
from gen3c.generator.condition import concat_views, encode_view
from gen3c.generator.signatures import VIDEO_ENCODER
from gen3c.generator.vae import VideoEncoder
from gen3c.program import LocalProgram, Program
from tests.golden.networks import LATENT, tiny_vae_beside
from tests.golden.vectors import Check, Vectors

NEAR_TIE = 1e-5  # relative difference of two views' norms below which float32 rounding may pick either


def encode_views(encoder: Program, state: Tensor, mask: Tensor) -> list[Tensor]:
    """Latents [1,32,t,h,w] of every view of renderings [1,T,N,3,H,W] and coverage [1,T,N,1,H,W]."""
    pictures, masks = (x.transpose(1, 2).transpose(2, 3) for x in (state, mask))  # [1,N,3,T,H,W]
    return [encode_view(encoder, pictures[:, n], masks[:, n]) for n in range(state.shape[2])]


def check_official(v: Vectors) -> None:
    """`NK_*`: K buffers, concatenated."""
    for match in v.matching(r"(N\d+)_state"):
        views = _encoded(v, match[1])
        v.check(f"{match[1]}_latent_condition", concat_views(views), LATENT)


def check_fork_pool(v: Vectors) -> None:
    """`NK_*`: K views, the one with the largest latent norm in each cell."""
    for match in v.matching(r"(N\d+)_state"):
        name, views = f"{match[1]}_latent_condition", _encoded(v, match[1])
        pool = Pool.empty((views[0].shape[2], views[0].shape[3], views[0].shape[4]))
        for view in views:
            pool = fold(pool, ViewLatents(view[0], torch.zeros(view.shape[2:])), "vector_max")
        v.check(name, _settle_ties(pool.condition(), views, v.expected(name)), LATENT)


def _encoded(v: Vectors, case: str) -> list[Tensor]:
    state, mask = v.input(f"{case}_state"), v.input(f"{case}_mask")
    encoder = LocalProgram(VideoEncoder(tiny_vae_beside(v, state.shape[1])), VIDEO_ENCODER)
    return encode_views(encoder, state, mask)


def _settle_ties(pooled: Tensor, views: list[Tensor], expected: Tensor) -> Tensor:
    """`pooled` [1,64,t,h,w] with the reference's choice where the largest norms differ by rounding alone."""
    norms = torch.stack([ViewLatents(view[0], torch.zeros(())).norm for view in views])  # [N,t,h,w]
    largest = norms.amax(0)
    for view, norm in zip(views, norms, strict=True):
        tied = largest - norm <= NEAR_TIE * largest
        other = torch.cat((view, pooled[:, view.shape[1] :]), dim=1)
        closer = (other - expected).abs().amax(1) < (pooled - expected).abs().amax(1)
        pooled = torch.where((tied & closer)[:, None], other, pooled)
    return pooled


CHECKS: dict[str, Check] = {
    "encode_warped_official": check_official,
    "encode_warped_fork_pool": check_fork_pool,
}
