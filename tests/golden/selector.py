"""The cache that renders all key frames and keeps the best."""

import re

import torch
from torch import Tensor

from gen3c.cache3d import UPSTREAM_CALL, CachedView, cache_view, render_all
from gen3c.fusion import Choice, choose_views
from tests.golden.buffers import check_pictures, own_pose
from tests.golden.tolerance import Exact, OnShare
from tests.golden.vectors import Check, Vectors

RELIABILITY = 0.3  # of the cases with a filter; the vectors' README gives it
FOREGROUND = OnShare(1e-4, 0.99)


def check_selector(v: Vectors) -> None:
    """`tNN` is a case with a near-full threshold of NN percent, `nf` behind it one without masks and filter.

    `fgN` shows the first N key frames without a filter, with foreground masking.
    """
    for match in v.matching(r"all_pix_(t(\d+)(nf)?)"):
        _check_case(v, match)
    for match in v.matching(r"pix_fg(\d+)"):
        _check_foreground(v, int(match[1]))


def _check_case(v: Vectors, match: re.Match[str]) -> None:
    case, threshold, unfiltered = match[1], int(match[2]) / 100, match[3] is not None
    views = _views(v, masked=not unfiltered, reliability=None if unfiltered else RELIABILITY)
    w2c, K = _targets(v, case)
    warp = render_all(views, w2c, K, _size(v), call_size=UPSTREAM_CALL)
    own = torch.tensor([[own_pose(view.points, w2c[i], K[i]) for view in views] for i in range(len(w2c))])
    check_pictures(v, f"all_pix_{case}", _by_frame(warp.image, len(w2c))[None], own)
    check_pictures(v, f"all_mask_{case}", _by_frame(warp.coverage, len(w2c))[None], own)

    # The choice is judged on the stored renderings: it must then be exact.
    pictures, masks = v.expected(f"all_pix_{case}")[0], v.expected(f"all_mask_{case}")[0]
    choice = choose_views(masks.mean((2, 3, 4)).T, threshold)
    v.check(f"pix_{case}", _shown(pictures, choice, empty=-1.0)[None], Exact())
    v.check(f"mask_{case}", _shown(masks, choice, empty=0.0)[None], Exact())


def _check_foreground(v: Vectors, count: int) -> None:
    views = _views(v, masked=True, reliability=None)[:count]
    w2c, K = _targets(v, _shared_intrinsics_case(v))
    warp = render_all(views, w2c, K, _size(v), foreground_masking=True, call_size=UPSTREAM_CALL)
    pictures, masks = (_by_frame(x, len(w2c)) for x in (warp.image, warp.coverage))
    choice = choose_views(masks.mean((2, 3, 4)).T)
    v.check(f"pix_fg{count}", _shown(pictures, choice, empty=-1.0)[None], FOREGROUND)
    v.check(f"mask_fg{count}", _shown(masks, choice, empty=0.0)[None], FOREGROUND)


def _views(v: Vectors, *, masked: bool, reliability: float | None) -> list[CachedView]:
    images, depths, w2cs, Ks = v.input("images"), v.input("depths")[:, 0], v.input("w2cs"), v.input("Ks")
    masks = v.input("masks")[:, 0] if masked else torch.ones_like(depths)
    return [
        cache_view(*view, reliability=reliability, reference=True)
        for view in zip(images, depths, masks, w2cs, Ks, strict=True)
    ]


def _targets(v: Vectors, case: str) -> tuple[Tensor, Tensor]:
    own = f"Ks_{case}"
    return v.input(f"w2cs_{case}")[0], v.input(own if own in v else "target_Ks")[0]


def _shared_intrinsics_case(v: Vectors) -> str:
    """The case whose cameras the foreground vectors share: the last one without intrinsics of its own."""
    return [match[1] for match in v.matching(r"w2cs_(\w+)") if f"Ks_{match[1]}" not in v][-1]


def _size(v: Vectors) -> tuple[int, int]:
    height, width = v.input("images").shape[2:]
    return height, width


def _by_frame(pictures: Tensor, frames: int) -> Tensor:
    """[f*n,c,h,w] as [f,n,c,h,w]."""
    return pictures.reshape(frames, -1, *pictures.shape[1:])


def _shown(pictures: Tensor, choice: Choice, empty: float) -> Tensor:
    """The chosen buffers of pictures [f,n,c,h,w]. Emptying rounds as in the reference: (x - empty) * keep + empty."""
    kept = pictures[:, list(choice.views)]
    return (kept - empty) * choice.keep.T[:, :, None, None, None] + empty


CHECKS: dict[str, Check] = {"cache_selector": check_selector}
