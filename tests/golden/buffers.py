"""Checks of the caches that hold pictures as points, and of what prepares depth and intrinsics for them."""

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gen3c.alignment import align_nonrigid, align_rigid
from gen3c.buffers import BufferCache, Picture, Rendering
from gen3c.cache3d import FORK_CALL, RELIABILITY_THRESHOLD, CachedView, bounded_depth, cache_view, render_all
from gen3c.cache4d import Cache4D
from gen3c.cameras import to_camera
from gen3c.geometry.monocular import OUTPUT_SIZE, NetworkAnswer, depth_of_frame, view_from_picture
from gen3c.intrinsics import center_crop, crop_intrinsics, resize_and_crop_intrinsics, resize_intrinsics
from gen3c.splat import project
from tests.golden.tolerance import Absolute, Exact, MaxAndMean, OnShare, Relative
from tests.golden.vectors import Check, Part, Vectors

ON_GRID = 1e-3  # px that a point may lie off its own pixel for the two poses to be one and the same
SERVER_SIZE = (704, 1280)  # of the interactive server (facts, 1.5)
SERVER_RESIZED = (720, 1280)  # from which it crops


def own_pose(points: Tensor, w2c: Tensor, K: Tensor) -> bool:
    """Whether points [h,w,3] fall on their own pixels, so that they were unprojected from this very camera.

    There floor and ceil of a coordinate hang on its rounding, and pixels at the edge of holes flip (note 2).
    """
    pixels, _ = project(points[None], w2c[None], K[None])
    height, width = points.shape[:2]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    off = (pixels[0] - torch.stack((x, y), dim=-1)).abs().amax(-1)
    return float(off.median()) < ON_GRID


def check_pictures(v: Vectors, name: str, ours: Tensor, own: Tensor, note: str = "") -> None:
    """Renderings [B,F,N,C,H,W] within 1e-4; of those that show a picture from its `own` [F,N] pose, 95% of pixels.

    The report shows `note` in every line.
    """
    after = f", {note}" if note else ""
    parts = [Part(f"other poses{after}", ~own[None], Absolute(1e-4))]
    for frame in own.any(1).nonzero().flatten().tolist():
        entries = torch.zeros_like(own)
        entries[frame] = own[frame]
        parts.append(Part(f"own pose, frame {frame}{after}", entries[None], OnShare(1e-4, 0.95)))
    v.check_parts(name, ours, parts)


def cache_buffer(v: Vectors) -> None:
    """The growing cache, with and without foreground masking."""
    w2c, K = v.input("target_w2cs")[0], v.input("target_Ks")[0]
    first = Picture(v.input("image")[0], v.input("depth")[0, 0], v.input("w2c")[0], v.input("K")[0])
    for match in v.matching("input_mask_(nofg|fg)"):
        kind = match[1]
        cache = BufferCache.start(first, foreground_masking=kind == "fg", reference=True)
        v.check(f"input_mask_{kind}", cache.buffers[0].mask[None, None, None, None], Exact())
        v.check(f"points_{kind}", cache.buffers[0].points[None, None, None, None], Absolute(1e-5))
        _check_renderings(v, cache, w2c, K, kind)

        new_image, new_depth = v.input(f"new_image_{kind}")[0], v.input(f"new_depth_{kind}")[0, 0]
        frame = _update_frame(v.expected(f"points_after_{kind}"), w2c, K)
        shown, covered = cache.shown_depth(w2c[frame], K[frame])
        v.check(f"alignTarget_{kind}", shown[None, None, None], Absolute(1e-4))
        v.check(f"alignTargetMask_{kind}", covered[None, None, None, None].float(), Exact())
        if kind == "nofg":
            rigid = align_rigid(new_depth, shown, covered, reference=True)
            v.check("aligned_rigid", rigid, Absolute(1e-3))
            nonrigid = align_nonrigid(rigid, shown, covered, w2c[frame], K[frame], reference=True)
            v.check("aligned_nonrigid", nonrigid, MaxAndMean(1.5e-2, 1.5e-3))

        for stage, image in (("after", new_image), ("after2", -new_image)):
            frame = _update_frame(v.expected(f"points_{stage}_{kind}"), w2c, K)
            grown = cache.grown(Picture(image, new_depth, w2c[frame], K[frame]))
            check_update(v, grown, w2c[frame], K[frame], f"{stage}_{kind}")
            # What follows is fed the stored cache, so that the freedom of the alignment (note 3) ends here.
            cache = _stored(v, grown, f"{stage}_{kind}")
            _check_renderings(v, cache, w2c, K, f"{stage}_{kind}")
    _check_noise(v)


def _check_renderings(v: Vectors, cache: BufferCache, w2c: Tensor, K: Tensor, suffix: str) -> None:
    rendering = cache.render(w2c, K)
    own = own_poses(cache.buffers, w2c, K)
    check_pictures(v, f"pix_{suffix}", rendering.image[None], own)
    check_pictures(v, f"mask_{suffix}", rendering.mask[None], own)


def own_poses(views: Sequence[CachedView], w2c: Tensor, K: Tensor) -> Tensor:
    """Which of n views each of t cameras took, [t,n] bool."""
    return torch.tensor([[own_pose(view.points, w2c[i], K[i]) for view in views] for i in range(len(w2c))])


def _update_frame(points: Tensor, w2c: Tensor, K: Tensor) -> int:
    """Index of the target camera that an update was made from: the one that sees its points [B,F,N,V,H,W,3] in place.

    The file does not store the index; the newest points, which are index 0 of axis N, tell it.
    """
    newest = points[0, 0, 0, 0]
    frames = [i for i in range(len(w2c)) if own_pose(newest, w2c[i], K[i])]
    if not frames:
        raise ValueError("no target camera took the newest picture of the stored cache")
    return frames[0]


def check_update(v: Vectors, grown: BufferCache, w2c: Tensor, K: Tensor, suffix: str) -> None:
    """What a cache [B,F,N,V,...] holds after it took in a picture from camera w2c [4,4], K [3,3]."""
    v.check(f"images_{suffix}", torch.stack([b.image for b in grown.buffers])[None, None, :, None], Exact())
    v.check(f"points_{suffix}", torch.stack([b.points for b in grown.buffers])[None, None, :, None], Absolute(5e-2))
    # The filter has a threshold, so it is judged on the stored depth, not on one that note 3 lets differ from it.
    name, points = f"input_mask_{suffix}", v.expected(f"points_{suffix}")[0, 0, 0, 0]
    newest, stored = grown.buffers[0], depth_of_points(points, w2c)
    confidence = torch.ones_like(stored)
    view = cache_view(newest.image, stored, confidence, w2c, K, reliability=grown.reliability, reference=True)
    v.check(name, _masks(view.mask, grown), Exact())
    # The cache's own mask must agree as well wherever our depth decides like the stored one.
    decided = filter_decided(stored, depth_of_points(newest.points, w2c), RELIABILITY_THRESHOLD)
    own = torch.where(decided, newest.mask, v.expected(name)[0, 0, 0, 0])
    everywhere = torch.ones(v.expected(name).shape[:1], dtype=torch.bool)
    v.check_parts(name, _masks(own, grown), [Part("as grown", everywhere, Exact())])


def _masks(newest: Tensor, grown: BufferCache) -> Tensor:
    """[1,1,N,1,1,h,w]: a mask [1,h,w] of the newest buffer, and those of the older ones."""
    return torch.stack([newest, *(b.mask for b in grown.buffers[1:])])[None, None, :, None]


def depth_of_points(points: Tensor, w2c: Tensor) -> Tensor:
    """The depth [h,w] that points [h,w,3] were unprojected from; the zero vector stands for depth 0."""
    depth = to_camera(points[None], w2c[None])[0, ..., 2]
    return torch.where((points == 0).all(-1), 0.0, depth)


def filter_decided(stored: Tensor, ours: Tensor, threshold: float) -> Tensor:
    """Where the reference's reliability filter must give `ours` the mask of `stored`, both depth [h,w]; [h,w] bool.

    Depths of a window that are off by at most e move max - min by 2e and the mean by e. Where that cannot carry the
    relative range across the threshold, the two masks must be equal.
    """
    depth, off = stored[None], (ours - stored).abs()[None]
    error = F.max_pool2d(off + 1e-6 * depth.abs(), 5, 1, 2)  # depth recovered from points is rounded
    mean = F.avg_pool2d(depth, 5, 1, 2)
    ratio = (F.max_pool2d(depth, 5, 1, 2) + F.max_pool2d(-depth, 5, 1, 2)) / (mean + 1e-6)
    moved = (2 + ratio) * error / (mean - error).clamp(min=1e-6)
    return ((ratio - threshold).abs() > moved)[0]


def _stored(v: Vectors, grown: BufferCache, suffix: str) -> BufferCache:
    """The cache after an update with the reference's own points, images and masks in it."""
    images, points, masks = (v.expected(f"{part}_{suffix}")[0, 0, :, 0] for part in ("images", "points", "input_mask"))
    buffers = tuple(
        CachedView(images[n], points[n], masks[n], ours.boundary, ours.known) for n, ours in enumerate(grown.buffers)
    )
    return BufferCache(buffers, grown.reliability, grown.foreground_masking, grown.reference)


def _check_noise(v: Vectors) -> None:
    noise, plain = v.input("noise")[0], v.expected("pix_after_nofg")[0]
    # The strength is no array of the file: the place of the largest noise in the newest buffer tells it.
    steps = noise.shape[1] - 1
    place = int(noise[:, 0].abs().argmax())
    added = (v.expected("pix_after_noise")[0] - plain)[:, 0].flatten()[place] / noise[:, 0].flatten()[place]
    strength = round(float(added) / steps, 5)
    v.check("pix_after_noise", Rendering(plain, plain[:, :, :1]).noised(noise, strength)[None], Absolute(1e-6))


def cache_4d(v: Vectors) -> None:
    """The time-indexed cache."""
    cache = Cache4D.build(
        v.input("images"),
        v.input("depths")[:, 0],
        v.input("masks")[:, 0],
        v.input("w2cs"),
        v.input("Ks"),
        reference=True,
    )
    w2c, K = v.input("target_w2cs")[0], v.input("target_Ks")[0]
    for match in v.matching(r"pix_s(\d+)"):
        start = int(match[1])
        frames = slice(start, start + v.expected(match[0]).shape[1])
        warp = cache.render(w2c[frames], K[frames], start)
        own = torch.stack([own_poses((cache.frames[i],), w2c[i : i + 1], K[i : i + 1])[0] for i in _indices(frames)])
        check_pictures(v, match[0], warp.image[None, :, None], own)
        check_pictures(v, f"mask_s{start}", warp.coverage[None, :, None], own)


def _indices(frames: slice) -> range:
    return range(frames.start, frames.stop)


def cache_fork_multiview(v: Vectors) -> None:
    """All views at all cameras, as the multi-view fork renders them."""
    images, depths = v.input("images"), bounded_depth(v.input("depths")[:, 0], reference=True)
    poses, intrinsics = v.input("w2cs"), v.input("Ks")
    w2c, K = v.input("target_w2cs")[0], v.input("target_Ks")[0]
    height, width = images.shape[2:]
    views = tuple(
        cache_view(images[i], depths[i], torch.ones_like(depths[i]), poses[i], intrinsics[i], reference=True)
        for i in range(len(images))
    )
    v.check("input_mask", torch.stack([view.mask for view in views])[None, None, :, None].float(), Exact())
    own = own_poses(views, w2c, K)
    for suffix in ("", "_fg"):
        warp = render_all(views, w2c, K, (height, width), foreground_masking=suffix == "_fg", call_size=FORK_CALL)
        shape = (1, len(w2c), len(views))
        check_pictures(v, f"pix{suffix}", warp.image.reshape(*shape, *warp.image.shape[1:]), own)
        check_pictures(v, f"mask{suffix}", warp.coverage.reshape(*shape, *warp.coverage.shape[1:]), own)


class StandInNetwork:
    """The formula that takes the depth network's place (note 5)."""

    def __init__(self, intrinsics: Tensor, cx: float, r: float) -> None:
        fx, fy, px, py = intrinsics.tolist()
        self._K = torch.tensor([[fx, 0, px], [0, fy, py], [0, 0, 1]])
        self._cx, self._r = cx, r

    def __call__(self, image: Tensor) -> NetworkAnswer:
        height, width = image.shape[1:]
        y = torch.arange(height)[:, None] / height
        x = torch.arange(width)[None] / width
        mask = (y - 0.5) ** 2 + (x - self._cx) ** 2 < self._r
        depth = torch.where(mask, 1 + y + 0.5 * x + 0.3 * image.mean(0), math.inf)
        depth[3, 5] = math.nan
        return NetworkAnswer(depth, mask, self._K)


def moge_post(v: Vectors) -> None:
    """Depth post-processing, of a picture file and of a generated frame."""
    network = StandInNetwork(v.input("net_intrinsics"), v.number("net_cx"), v.number("net_r"))
    pixels = v.input("image_uint8")
    view = view_from_picture(pixels, network, reference=True)
    outputs = (
        ("image_out_s16", view.image, Absolute(2e-3)),
        ("depth_out_s16", view.depth[None], Relative(1e-3)),
        ("mask_out_s16", view.mask[None], Exact()),
    )
    for name, maps, tolerance in outputs:
        stride = OUTPUT_SIZE[0] // v.expected(name).shape[-2]
        v.check(name, maps[None, None, :, ::stride, ::stride], tolerance)
    v.check("w2c", view.w2c[None, None], Absolute(1e-3))
    v.check("K", view.K[None, None], Absolute(1e-3))
    depth, mask = depth_of_frame(pixels.permute(2, 0, 1).float() / 255, network)
    v.check("from_tensor_depth", depth[None, None], Absolute(1e-5))
    v.check("from_tensor_mask", mask[None, None], Absolute(1e-5))


def intrinsics(v: Vectors) -> None:
    """Intrinsics under resize and crop, and the crop of arrays."""
    K = v.input("K")
    height, width = v.input("src_hw").tolist()
    for match in v.matching(r"K_resize(\d+)x(\d+)_crop(\d+)x(\d+)"):
        resized, cropped = _size(match, 1), _size(match, 3)
        ours = resize_and_crop_intrinsics(K, (height, width), resized, cropped)
        v.check(match[0], ours, Absolute(1e-3))
    crop_height, crop_width = v.expected("crop_out").shape[-2:]
    v.check("crop_out", center_crop(v.input("crop_in"), (crop_height, crop_width)), Exact())

    height, width = v.input("persist_old_hw").tolist()
    frames = v.expected("K_persist_resize").shape[0]
    server = K.expand(frames, 3, 3)
    v.check("K_persist_resize", resize_intrinsics(server, (height, width), SERVER_SIZE), Absolute(1e-3))
    resized_K = resize_intrinsics(server, (height, width), SERVER_RESIZED)
    v.check("K_persist_resize_crop", crop_intrinsics(resized_K, SERVER_RESIZED, SERVER_SIZE), Absolute(1e-3))


def _size(match: re.Match[str], group: int) -> tuple[int, int]:
    return int(match[group]), int(match[group + 1])


CHECKS: dict[str, Check] = {
    "cache_buffer": cache_buffer,
    "cache_4d": cache_4d,
    "cache_fork_multiview": cache_fork_multiview,
    "moge_post": moge_post,
    "intrinsics": intrinsics,
}
