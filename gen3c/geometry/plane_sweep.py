"""Dense depth of posed views by plane sweeping, on a CPU.

Coarse: at half size, fronto-parallel planes evenly spaced in inverse depth, semi-global matching, cross-checking
between the views, smooth completion. Fine: at full working size, the same with planes that are small offsets from
the coarse surface, so that matching windows and the smoothness prior follow slanted surfaces. Every step only
trusts what several views agree on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.geometry.consistency import cross_check
from gen3c.geometry.matching import Matcher, Projection, View
from gen3c.geometry.parallel import for_each_view
from gen3c.geometry.sgm import aggregate, choose
from gen3c.geometry.smooth import complete, enlarge
from gen3c.geometry.sparse import SparseScene
from gen3c.geometry.types import Frames, Watch

PLANES_PER_BATCH = 4  # bounds memory and the time between two polls
FILLED = 0.3  # highest confidence of a depth that was completed, not measured
FILL_COST = 0.4  # matching cost at which the confidence of a completed depth has fallen by a factor e
FEWEST_POINTS = 8  # that tell the range of depths of a view
LEAST_CONFIDENCE = 0.05  # below it a depth is not worth using: 0


@dataclass(frozen=True)
class SweepOptions:
    """Sizes and effort of the plane sweep."""

    long_side: int = 640  # of the pictures that are matched, in pixels
    neighbours: int = 4  # views that each view is matched against
    best: int = 2  # of them, the mean of this many lowest costs counts: the others may be occluded
    planes: int = 96  # of the coarse sweep, at least; up to twice as many where the depths need them
    offsets: int = 24  # of the fine sweep
    offset_pixels: float = 0.5  # spacing of the fine sweep, as motion in a typical neighbour


def sweep(frames: Frames, scene: SparseScene, watch: Watch, options: SweepOptions) -> tuple[Tensor, Tensor]:
    """Depth and confidence of every frame, both [n,h,w] float32 on the canvas of `frames`.

    Depth is positive wherever a frame has pixels. Confidence is about 0.6 where one other view confirms the depth,
    0.86 for two, 0.95 for three; at most FILLED where the depth was completed from its surroundings and other views
    agree with it in depth and colour; and 0 elsewhere.

    Raises:
        InvalidInputError: a view has no points before it.
        CancelledError: `watch` said so.
    """
    views = [working_view(frames, scene, i, options.long_side) for i in range(len(frames))]
    inverse, confidence = sweep_views(views, scene, watch, options)
    n, height, width = frames.pixels.shape[:3]
    depth_out, confidence_out = torch.zeros(n, height, width), torch.zeros(n, height, width)

    def write(i: int, poll: Callable[[], None]) -> None:
        poll()
        image = frames.frame(i).permute(2, 0, 1).float() / 255
        h, w = image.shape[1:]
        depth_out[i, :h, :w] = 1 / enlarge(inverse[i], views[i].image, image)
        confidence_out[i, :h, :w] = F.interpolate(confidence[i][None, None], (h, w), mode="nearest-exact")[0, 0]

    for_each_view(write, n, watch, "sweep.enlarge")
    return depth_out, confidence_out


def sweep_views(
    views: list[View], scene: SparseScene, watch: Watch, options: SweepOptions
) -> tuple[list[Tensor], list[Tensor]]:
    """Inverse depth and confidence of each view at its own size, [h,w] each."""
    n = len(views)
    neighbours = [choose_neighbours(scene, i, options.neighbours) for i in range(n)]
    spans = [_inverse_range(scene, i) for i in range(n)]
    small = [v.resized((max(16, v.size[0] // 2), max(16, v.size[1] // 2))) for v in views]

    def coarse(i: int, poll: Callable[[], None]) -> Tensor:
        others = [small[j] for j in neighbours[i]]
        matcher = Matcher(small[i], others, radius=2, best=options.best)
        return _coarse(matcher, small[i], spans[i], _plane_count(small[i], others, spans[i], options), poll)

    rough = for_each_view(coarse, n, watch, "sweep.coarse")
    inverse, _ = _reconcile(small, rough, neighbours, spans, watch, "sweep.coarse_check")

    def fine(i: int, poll: Callable[[], None]) -> Tensor:
        base = enlarge(inverse[i], small[i].image, views[i].image)
        others = [views[j] for j in neighbours[i]]
        step = float(_pixel_steps(views[i], others, base).median()) * options.offset_pixels
        matcher = Matcher(views[i], others, radius=3, best=options.best)
        return _fine(matcher, views[i], base, step, options.offsets, poll)

    refined = for_each_view(fine, n, watch, "sweep.fine")
    inverse, confidence = _reconcile(views, refined, neighbours, spans, watch, "sweep.fine_check")

    def rate(i: int, poll: Callable[[], None]) -> Tensor:
        poll()
        others = neighbours[i]
        support, _ = cross_check(views[i], inverse[i], [(views[j], inverse[j]) for j in others])
        cost = Matcher(views[i], [views[j] for j in others], radius=3, best=options.best)(inverse[i][None])[0]
        filled = FILLED * (1 - torch.exp(-support)) * torch.exp(-((cost / FILL_COST) ** 2))
        best = torch.maximum(confidence[i], filled)
        return torch.where(best >= LEAST_CONFIDENCE, best, 0.0)

    return inverse, for_each_view(rate, n, watch, "sweep.confidence")


def choose_neighbours(scene: SparseScene, view: int, count: int) -> list[int]:
    """The views that share most points with `view` under useful angles, best first.

    Angles count by the weights of MVSNet (Yao et al., ECCV 2018): most at 10 degrees, falling with a standard
    deviation of 5 degrees below and 15 above.
    """
    scores = []
    for other in range(len(scene)):
        angles = scene.ray_angles(view, other)
        spread = torch.where(angles < 10, 5.0, 15.0)
        scores.append(float(torch.exp(-(((angles - 10) / spread) ** 2) / 2).sum()) if other != view else -1.0)
    ranked = sorted((i for i in range(len(scene)) if i != view), key=lambda i: (-scores[i], abs(i - view)))
    useful = [i for i in ranked if scores[i] > 0.05 * scores[ranked[0]]]
    return (useful or ranked[:1])[:count]


def working_view(frames: Frames, scene: SparseScene, i: int, long_side: int) -> View:
    """Frame i at the size at which it is matched: its long side at most `long_side`."""
    image = frames.frame(i).permute(2, 0, 1).float() / 255
    height, width = image.shape[1:]
    shrink = min(1.0, long_side / max(height, width))
    size = (max(16, round(height * shrink)), max(16, round(width * shrink)))
    return View(image, scene.w2c[i], scene.K[i]).resized(size)


def _inverse_range(scene: SparseScene, view: int) -> tuple[float, float]:
    """Inverse depths, far and near, that hold the view's sparse points with a margin for what has no points."""
    depths = scene.depths(view)
    if len(depths) < FEWEST_POINTS:  # its own are too few to tell: all points before it
        z = scene.points @ scene.w2c[view, 2, :3] + scene.w2c[view, 2, 3]
        depths = z[z > 0]
    if len(depths) == 0:
        raise InvalidInputError(f"No point of the sparse reconstruction lies before view {view}; depth needs some.")
    inverse = 1 / depths
    low, high = (float(inverse.quantile(q)) for q in (0.01, 0.99))
    return 0.7 * low, 1.25 * high


def _pixel_steps(view: View, others: list[View], inverse: Tensor) -> Tensor:
    """The change of inverse depth that moves a typical pixel by one pixel, per neighbour [m]."""
    steps = []
    for other in others:
        projection = Projection(view, other)
        small = 1e-3 * inverse
        u0, v0, _ = projection(inverse[None])
        u1, v1, _ = projection((inverse + small)[None])
        speed = torch.hypot(u1 - u0, v1 - v0)[0] / small
        steps.append(1 / speed.median().clamp(min=1e-9))
    return torch.stack(steps)


def _plane_count(view: View, others: list[View], span: tuple[float, float], options: SweepOptions) -> int:
    """Planes that are at most a pixel apart in the neighbour where pixels move least, within the options' bounds."""
    far, near = span
    middle = torch.full(view.size, (far + near) / 2)
    wanted = (near - far) / float(_pixel_steps(view, others, middle).max())
    return int(min(max(wanted, options.planes), 2 * options.planes))


def _costs(matcher: Matcher, planes: Tensor, poll: Callable[[], None]) -> Tensor:
    """Matching costs of planes [p,1,1] or [p,h,w] as a volume [h,w,p]."""
    volume = None
    for start in range(0, len(planes), PLANES_PER_BATCH):
        poll()
        cost = matcher(planes[start : start + PLANES_PER_BATCH])
        if volume is None:
            volume = torch.empty(*cost.shape[1:], len(planes))
        volume[..., start : start + len(cost)] = cost.permute(1, 2, 0)
    assert volume is not None
    return volume


def _coarse(matcher: Matcher, view: View, span: tuple[float, float], planes: int, poll: Callable[[], None]) -> Tensor:
    far, near = span
    inverse = torch.linspace(far, near, planes)
    volume = aggregate(_costs(matcher, inverse[:, None, None], poll), view.image, 0.04, 0.5, poll)
    plane = choose(volume)
    return far + plane * ((near - far) / (planes - 1))


def _fine(matcher: Matcher, view: View, base: Tensor, step: float, offsets: int, poll: Callable[[], None]) -> Tensor:
    shift = torch.arange(offsets) - (offsets - 1) / 2
    floor = 0.2 * base  # an offset must not reach infinity
    planes = torch.maximum(base + shift[:, None, None] * step, floor)
    volume = aggregate(_costs(matcher, planes, poll), view.image, 0.02, 0.3, poll)
    plane = choose(volume)
    return torch.maximum(base + (plane - (offsets - 1) / 2) * step, floor)


def _reconcile(
    views: list[View],
    inverse: list[Tensor],
    neighbours: list[list[int]],
    spans: list[tuple[float, float]],
    watch: Watch,
    stage: str,
) -> tuple[list[Tensor], list[Tensor]]:
    """Cross-check all views, fuse what agrees, and complete the rest smoothly."""

    def check(i: int, poll: Callable[[], None]) -> tuple[Tensor, Tensor]:
        support, fused = cross_check(views[i], inverse[i], [(views[j], inverse[j]) for j in neighbours[i]])
        confidence = 1 - torch.exp(-support)
        completed = complete(fused, confidence**2, views[i].image, poll=poll)
        far, near = spans[i]
        return completed.clamp(far, near), confidence  # completion extrapolates, even past infinity

    results = for_each_view(check, len(views), watch, stage)
    return [r[0] for r in results], [r[1] for r in results]
