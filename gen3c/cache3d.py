"""The 3-D cache: what the scene knows, as coloured points per source view."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.cameras import unproject
from gen3c.errors import InvalidInputError
from gen3c.foreground import mask_foreground
from gen3c.splat import EMPTY, Warp, forward_warp

RELIABILITY_THRESHOLD = 0.05  # of the relative depth range in a window; the released GEN3C's
_WINDOW = 5
_SLOPE_ALLOWANCE = 8
_FRAMES_AT_ONCE = 4  # renderings held in memory together; about 25 MB each at 704x1280

# Scene units: what lies farther is put here, as by the released GEN3C. A picture's splat weights spread over its
# largest depth, so that one pixel far out would let the background shine through everywhere else.
MAX_DEPTH = 100.0

# Pictures that one call of the reference implementations renders, which their splat weights depend on.
UPSTREAM_CALL = 2
FORK_CALL = 32


@dataclass(frozen=True)
class CachedView:
    """The points of one source view. Static: the same for every moment of the output."""

    image: Tensor  # [3,h,w] in [-1,1]
    points: Tensor  # [h,w,3] world
    mask: Tensor  # [1,h,w] bool: points that may be rendered
    boundary: Tensor  # [h,w] bool: next to a depth jump, where foreground masking builds its mesh
    known: Tensor  # [h,w] bool: points that have a place at all


def reliable_mask(
    depth: Tensor,  # [b,1,h,w]
    threshold: float = RELIABILITY_THRESHOLD,
    *,
    reference: bool = False,
) -> Tensor:
    """Where depth belongs to one surface, [b,1,h,w] bool; points across a depth jump smear in another view.

    GEN3C (`reference`) asks that (max - min) / mean over a 5x5 window stays below `threshold`. That also rejects ground
    and walls seen at a grazing angle, the more so the smaller the raster; it divides by 25 at the picture's edge, and
    takes unknown depth (0) for a surface. The default asks that inverse depth, which is linear on every plane, bends by
    less than `threshold` across the window, and allows eight times as much for the slope.
    """
    known = depth > 0
    if reference:
        return (_relative_range(depth, torch.ones_like(known), zeros_outside=True) < threshold) & known
    slope = _relative_range(depth, known)
    return (_bend(depth) < threshold) & (slope < _SLOPE_ALLOWANCE * threshold) & known


def _relative_range(depth: Tensor, taken: Tensor, *, zeros_outside: bool = False) -> Tensor:
    """(max - min) / mean of depth [b,1,h,w] over the window's pixels in `taken`; the mean may count zeros outside."""
    pad = _WINDOW // 2
    largest = F.max_pool2d(torch.where(taken, depth, -torch.inf), _WINDOW, 1, pad)
    smallest = -F.max_pool2d(torch.where(taken, -depth, -torch.inf), _WINDOW, 1, pad)
    mean = F.avg_pool2d(torch.where(taken, depth, 0.0), _WINDOW, 1, pad)
    if not zeros_outside:
        mean = mean / F.avg_pool2d(taken.to(depth.dtype), _WINDOW, 1, pad).clamp(min=1e-6)
    return (largest - smallest) / (mean + 1e-6)


def _bend(depth: Tensor) -> Tensor:
    """Largest second difference of inverse depth [b,1,h,w] over the window, in four directions, relative to itself."""
    known = depth > 0
    inverse = torch.where(known, 1 / torch.where(known, depth, 1.0), torch.nan)
    reach = _WINDOW // 2
    padded = F.pad(inverse, (reach,) * 4, value=torch.nan)
    height, width = depth.shape[2:]

    def shifted(dy: int, dx: int) -> Tensor:
        return padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]

    bends = [
        (shifted(dy, dx) + shifted(-dy, -dx) - 2 * inverse).abs() / inverse
        for dy, dx in ((0, reach), (reach, 0), (reach, reach), (reach, -reach))
    ]
    return torch.nan_to_num(torch.stack(bends), nan=0.0).amax(0)  # no opinion where a neighbour is unknown


def bounded_depth(depth: Tensor, *, reference: bool = False) -> Tensor:
    """Depth of any shape within [0, MAX_DEPTH]; NaN becomes 0 = unknown, in the reference MAX_DEPTH."""
    return torch.nan_to_num(depth, nan=MAX_DEPTH if reference else 0.0).clamp(0, MAX_DEPTH)


def cache_view(
    image: Tensor,  # [3,h,w] in [-1,1]
    depth: Tensor,  # [h,w] z-depth, 0 = unknown
    confidence: Tensor,  # [h,w] in [0,1]
    w2c: Tensor,  # [4,4]
    K: Tensor,  # [3,3]
    *,
    min_confidence: float = 0.0,
    reliability: float | None = RELIABILITY_THRESHOLD,
    reference: bool = False,
) -> CachedView:
    """Unproject one view; points of unknown, unreliable or doubtful depth are kept out.

    `reliability` is the threshold of `reliable_mask`; None keeps every known depth. `reference` filters as the released
    GEN3C does: every depth counts as known (0 lies at the world's origin), and the boundary is that of the fixed
    threshold RELIABILITY_THRESHOLD.
    """
    threshold = RELIABILITY_THRESHOLD if reliability is None else reliability
    smooth = reliable_mask(depth[None, None], threshold, reference=reference)[0]
    known = torch.ones_like(depth, dtype=torch.bool) if reference else depth > 0
    usable = known & (confidence > 0) & (confidence >= min_confidence)
    mask = usable[None] & smooth if reliability is not None else usable[None]
    boundary = ~reliable_mask(depth[None, None], reference=True)[0, 0] if reference else ~smooth[0]
    points = unproject(depth[None], w2c[None], K[None])[0]
    return CachedView(image, points, mask, boundary, known)


def render(
    view: CachedView,
    w2c: Tensor,  # [t,4,4] target cameras
    K: Tensor,  # [t,3,3]
    size: tuple[int, int],
    *,
    foreground_masking: bool = False,
) -> Warp:
    """One view seen from t target cameras: t pictures. Peak memory beyond the result does not grow with t."""
    return render_each([view] * len(w2c), w2c, K, size, foreground_masking=foreground_masking)


def render_each(
    views: Sequence[CachedView],  # t of them: view i is what camera i sees
    w2c: Tensor,  # [t,4,4] target cameras
    K: Tensor,  # [t,3,3]
    size: tuple[int, int],
    *,
    foreground_masking: bool = False,
    call_size: int | None = None,
) -> Warp:
    """Each view from its own target camera: t pictures.

    The released GEN3C renders such a list in calls of `call_size` pictures (UPSTREAM_CALL, FORK_CALL), within which
    the splat weights depend on the farthest point of any picture. By default no picture depends on another.
    """
    parts = []
    for start in range(0, len(views), call_size or _FRAMES_AT_ONCE):
        together = slice(start, start + (call_size or _FRAMES_AT_ONCE))
        warp = _render_call(
            views[together], w2c[together], K[together], size, foreground_masking, call_size is not None
        )
        parts.append(warp)
    return Warp(
        torch.cat([p.image for p in parts]),
        torch.cat([p.coverage for p in parts]),
        torch.cat([p.depth for p in parts]),
        torch.cat([p.weight for p in parts]),
    )


def render_all(
    views: Sequence[CachedView],  # n
    w2c: Tensor,  # [t,4,4] target cameras
    K: Tensor,  # [t,3,3]
    size: tuple[int, int],
    *,
    foreground_masking: bool = False,
    call_size: int | None = None,
) -> Warp:
    """Every view from every target camera: t*n pictures, those of camera 0 first. `call_size` as in `render_each`."""
    n = len(views)
    return render_each(
        list(views) * len(w2c),
        w2c.repeat_interleave(n, dim=0),
        K.repeat_interleave(n, dim=0),
        size,
        foreground_masking=foreground_masking,
        call_size=call_size,
    )


def nearest_surface(
    views: Iterable[CachedView],
    w2c: Tensor,  # [4,4]
    K: Tensor,  # [3,3]
    size: tuple[int, int],
    *,
    foreground_masking: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of all views seen from one camera, the nearest surface of each pixel; of two alike the earlier view's.

    Gives its colour [3,h,w], EMPTY where there is none, its depth [h,w], 0 there, and where there is one, [h,w] bool.
    One view is rendered at a time.
    """
    image = torch.full((3, *size), EMPTY, device=w2c.device)
    nearest = torch.full(size, torch.inf, device=w2c.device)
    for view in views:
        warp = render(view, w2c[None], K[None], size, foreground_masking=foreground_masking)
        wins = (warp.coverage[0, 0] > 0) & (warp.depth[0, 0] < nearest)
        image = torch.where(wins, warp.image[0], image)
        nearest = torch.where(wins, warp.depth[0, 0], nearest)
    covered = torch.isfinite(nearest)
    return image, torch.where(covered, nearest, 0.0), covered


def _render_call(
    views: Sequence[CachedView], w2c: Tensor, K: Tensor, size: tuple[int, int], masking: bool, joint: bool
) -> Warp:
    """A few pictures of `render_each`; `joint`: their splat weights share one normaliser."""
    points = _batch([view.points for view in views])
    image, mask = _batch([view.image for view in views]), _batch([view.mask for view in views])
    warp = forward_warp(points, image, mask, w2c, K, size, normaliser="call" if joint else "image")
    if not masking:
        return warp
    boundary, known = _batch([view.boundary for view in views]), _batch([view.known for view in views])
    return mask_foreground(warp, points, boundary, w2c, K, known)


def _batch(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors along a new first axis; without a copy if all are one and the same."""
    first = tensors[0]
    if all(tensor is first for tensor in tensors):
        return first.expand(len(tensors), *first.shape)
    return torch.stack(list(tensors))


def center_depth(depth: Tensor, confidence: Tensor) -> float:
    """The scene's unit of length: median depth [h,w] over view 0's confident pixels (the better half).

    Raises InvalidInputError if there is none.
    """
    known = (depth > 0) & (confidence > 0)
    if not known.any():
        some = bool((depth > 0).any())
        found = "known depth, but none of it with a confidence above 0" if some else "no pixel of known depth"
        raise InvalidInputError(
            f"View 0 has {found}, which gives the scene its unit of length; put another view first, or take views that "
            "overlap more."
        )
    level = confidence[known].median()
    return float(depth[known & (confidence >= level)].median())
