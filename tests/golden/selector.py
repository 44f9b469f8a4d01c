"""The cache that renders all key frames and keeps the best."""

import math
import re

import torch
from torch import Tensor

from gen3c.cache3d import UPSTREAM_CALL, CachedView, bounded_depth, cache_view, render_all
from gen3c.fusion import Choice, choose_views
from tests.golden.buffers import check_pictures, own_poses
from tests.golden.tolerance import Absolute, Exact, OnShare
from tests.golden.vectors import Check, Vectors

RELIABILITY = 0.3  # of the cases with a filter; the vectors' README gives it
# What is tried when that one does not show the stored pictures: 0.05, 0.1, ... 0.95, and no filter.
OTHER_RELIABILITIES = (*(i / 20 for i in range(1, 20)), None)
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
    w2c, K = _targets(v, case)
    reliability = None if unfiltered else _reliability(v, case)
    views = _views(v, masked=not unfiltered, reliability=reliability)
    warp = render_all(views, w2c, K, _size(v), call_size=UPSTREAM_CALL)
    own = own_poses(views, w2c, K)
    note = "" if unfiltered or reliability == RELIABILITY else f"reliability {reliability or 'off'}"
    check_pictures(v, f"all_pix_{case}", _by_frame(warp.image, len(w2c))[None], own, note)
    check_pictures(v, f"all_mask_{case}", _by_frame(warp.coverage, len(w2c))[None], own, note)

    # The choice is judged on the stored renderings: it must then be exact.
    pictures, masks = v.expected(f"all_pix_{case}")[0], v.expected(f"all_mask_{case}")[0]
    choice = choose_views(masks.mean((2, 3, 4)).T, threshold)
    v.check(f"pix_{case}", _shown(pictures, choice, empty=-1.0)[None], Exact())
    v.check(f"mask_{case}", _shown(masks, choice, empty=0.0)[None], Exact())


def _reliability(v: Vectors, case: str) -> float | None:
    """The threshold of a case, which no array holds: the README's, or the one that shows the stored pictures.

    Another one counts only if it meets every pixel (of the poses where that can be asked), so that a fault of our
    filter is not explained away; the report then names it.
    """
    w2c, K = _targets(v, case)
    expected = torch.cat([v.expected(f"all_pix_{case}")[0], v.expected(f"all_mask_{case}")[0]], dim=2)
    for reliability in (RELIABILITY, *OTHER_RELIABILITIES):
        views = _views(v, masked=True, reliability=reliability)
        warp = render_all(views, w2c, K, _size(v), call_size=UPSTREAM_CALL)
        ours = _by_frame(torch.cat([warp.image, warp.coverage], dim=1), len(w2c))
        judged = ~own_poses(views, w2c, K)
        if ours.shape != expected.shape or not judged.any():
            break
        if Absolute(1e-4)(ours[judged], expected[judged]).ok:
            return reliability
    return RELIABILITY


def _check_foreground(v: Vectors, count: int) -> None:
    views = _views(v, masked=True, reliability=None)[:count]
    picture, mask = _closest([_foreground(v, views, case) for case in _shared_intrinsics_cases(v)], v, count)
    v.check(f"pix_fg{count}", picture, FOREGROUND)
    v.check(f"mask_fg{count}", mask, FOREGROUND)


def _foreground(v: Vectors, views: list[CachedView], case: str) -> tuple[Tensor, Tensor]:
    """Pictures [1,f,n,3,h,w] and coverage [1,f,n,1,h,w] of the chosen views from the cameras of a case."""
    w2c, K = _targets(v, case)
    warp = render_all(views, w2c, K, _size(v), foreground_masking=True, call_size=UPSTREAM_CALL)
    pictures, masks = (_by_frame(x, len(w2c)) for x in (warp.image, warp.coverage))
    choice = choose_views(masks.mean((2, 3, 4)).T)
    return _shown(pictures, choice, empty=-1.0)[None], _shown(masks, choice, empty=0.0)[None]


def _closest(candidates: list[tuple[Tensor, Tensor]], v: Vectors, count: int) -> tuple[Tensor, Tensor]:
    """The pictures that agree best with the stored ones: the file does not say whose cameras those share."""
    expected = v.expected(f"pix_fg{count}")

    def off(candidate: tuple[Tensor, Tensor]) -> float:
        picture = candidate[0]
        return FOREGROUND(picture, expected).error if picture.shape == expected.shape else math.inf

    return min(candidates, key=off)


def _views(v: Vectors, *, masked: bool, reliability: float | None) -> list[CachedView]:
    images, w2cs, Ks = v.input("images"), v.input("w2cs"), v.input("Ks")
    depths = bounded_depth(v.input("depths")[:, 0], reference=True)
    masks = v.input("masks")[:, 0] if masked else torch.ones_like(depths)
    return [
        cache_view(*view, reliability=reliability, reference=True)
        for view in zip(images, depths, masks, w2cs, Ks, strict=True)
    ]


def _targets(v: Vectors, case: str) -> tuple[Tensor, Tensor]:
    own = f"Ks_{case}"
    return v.input(f"w2cs_{case}")[0], v.input(own if own in v else "target_Ks")[0]


def _shared_intrinsics_cases(v: Vectors) -> list[str]:
    """The cases without intrinsics of their own, one of which lends its cameras to the foreground vectors."""
    return [match[1] for match in v.matching(r"w2cs_(\w+)") if f"Ks_{match[1]}" not in v]


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
