"""VGGT as a source of geometry: frames of any sizes in, depth and cameras at those sizes out.

Points come from depth and camera, which the authors found more accurate than the network's own point head.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.fit import Fit
from gen3c.geometry.agreement import Agreement, agreement
from gen3c.geometry.types import Frames, Geometry, Watch, empty_like_frames
from gen3c.geometry.vggt.pose import decode_pose
from gen3c.geometry.vggt.preprocess import on_canvas
from gen3c.presets import VggtConfig
from gen3c.program import Program

MOST_FRAMES = 200  # attention over all frames grows with their square; the authors' own table ends here
LEAST_FOV, MOST_FOV = math.radians(2), math.radians(170)  # of a camera that a pinhole can stand for
LOW_AGREEMENT = 0.8  # docs/geometry.md: of good scenes 0.98, of depth that is 2 % off 0.9, 5 % off 0.5
LITTLE_TRUSTED = 0.1  # share of a frame's pixels below which the user is told


@dataclass(frozen=True)
class VggtOptions:
    """Which pixels are trusted, on the network's own scale of confidence: 1 is none, tens and hundreds are common."""

    # The authors advise 1.5 to 3. The lower end, since a pixel left out is a hole to be painted, and the cache looks at
    # each surface once more (gen3c.cache3d.reliable_mask).
    min_confidence: float = 1.5
    # The authors' other advice is 0.2. None, since a good scene would lose as many pixels as a bad one.
    drop_lowest: float = 0.0  # share, over all frames


def estimate(
    frames: Frames,
    program: Program,
    config: VggtConfig,
    watch: Watch | None = None,
    options: VggtOptions | None = None,
    canvas_size: tuple[int, int] | None = None,
) -> Geometry:
    """Cameras and dense depth of every frame, in the frame of frame 0's camera and the network's unit.

    Args:
        frames: 1 to MOST_FRAMES pictures of a static scene.
        program: `vggt` (gen3c.geometry.vggt.signature). It runs in one piece: `watch` is polled before and after.
        config: of the network behind `program`.
        watch: progress, and whether to stop.
        options: which pixels are trusted.
        canvas_size: height and width of the pictures that `program` takes; None: any multiples of the patch.

    Raises:
        InvalidInputError: too many frames, a frame that the network finds no camera for (named), or a first frame
            without trusted depth.
        CancelledError: `watch` said so.
    """
    watch, options = watch or Watch(), options or VggtOptions()
    if not 1 <= len(frames) <= MOST_FRAMES:
        raise InvalidInputError(f"VGGT takes 1 to {MOST_FRAMES} frames at once; got {len(frames)}.", "MEDIA")
    watch.step("vggt.network", 0, 2)
    canvas, fits = on_canvas(frames, config.image_side, config.patch, canvas_size)
    outputs = program({"IMAGES": canvas})
    watch.step("vggt.network", 1, 2)
    pose, depth, raw = (outputs[name].float().cpu() for name in ("POSE", "DEPTH", "CONFIDENCE"))
    raw = torch.nan_to_num(raw, nan=1.0, posinf=torch.finfo(raw.dtype).max).clamp(min=1.0)
    size = (canvas.shape[1], canvas.shape[2])
    _check_cameras(frames, pose)
    w2c, K = decode_pose(pose.double(), size)
    w2c = w2c @ torch.linalg.inv(w2c[:1])
    w2c[0] = torch.eye(4)  # to the last bit

    depth = torch.where(depth.isfinite(), depth, 0.0)
    shown = _shown(fits, size)
    usable = shown & (depth > 0)
    confidence = _trusted(raw, usable, options)
    if not confidence[0].any():  # it gives the scene its unit of length
        raise _first_view_unknown(frames.names[0], raw[0][usable[0]], options)
    agreed = agreement(torch.where(confidence > 0, depth, 0.0), w2c.float(), K.float())
    out_depth, out_confidence = empty_like_frames(frames)
    out_K = torch.empty(len(frames), 3, 3)
    for i, fit in enumerate(fits):
        back = fit.inverse()
        h, w = back.target
        out_depth[i, :h, :w], out_confidence[i, :h, :w] = back.depth(depth[i], confidence[i])
        out_K[i] = back.intrinsics(K[i]).float()
    watch.step("vggt.network", 2, 2)

    trusted = (confidence > 0).flatten(1).sum(1) / shown.flatten(1).sum(1)  # [n]
    info: dict[str, object] = {
        "provider": "vggt",
        "network": config.name,
        "network_size": list(size),
        "confident_fraction": round(float(trusted.mean()), 4),
        "median_confidence": round(float(raw[shown].median()), 3),
        "vggt_confidence": options.min_confidence,
        "vggt_drop_lowest": options.drop_lowest,
        "agreement": None if agreed.share is None else round(agreed.share, 4),
        "depth_difference": None if agreed.share is None else round(agreed.difference, 4),
        "compared": int(agreed.compared.sum()) // 2,  # points; each counts for both of its views
        "focal_lengths": sorted({round(float(focal), 2) for focal in out_K[:, 0, 0]}),
    }
    warnings = _warnings(frames, trusted, agreed)
    return Geometry(out_depth, out_confidence, w2c.float(), out_K, info, warnings)


def _shown(fits: list[Fit], size: tuple[int, int]) -> Tensor:
    """Where the canvas shows a frame and no padding, [n,H,W] bool."""
    shown = torch.zeros(len(fits), *size, dtype=torch.bool)
    for i, fit in enumerate(fits):
        left, top, right, bottom = fit.tile
        shown[i, top:bottom, left:right] = True
    return shown


def _trusted(raw: Tensor, usable: Tensor, options: VggtOptions) -> Tensor:
    """Confidence [n,H,W] in [0,1) from the network's [n,H,W] in [1,inf); 0 where not usable or not trusted.

    The network's is the inverse of an expected error, so 1 - 1/c is what that error leaves.
    """
    kept = usable & (raw >= options.min_confidence)
    if options.drop_lowest > 0 and usable.any():
        values = raw[usable]
        kept &= raw >= values.kthvalue(math.floor(options.drop_lowest * len(values)) + 1).values  # ties stay
    return torch.where(kept, 1 - 1 / raw, 0.0)


def _first_view_unknown(name: str, raw: Tensor, options: VggtOptions) -> InvalidInputError:
    """Why nothing of the first view is trusted, given the confidence of its pixels that have depth."""
    if not len(raw):
        return InvalidInputError(f"VGGT finds no depth in {name}, the first view; put another view first.", "MEDIA")
    most = float(raw.max())
    if most < options.min_confidence or most <= 1:
        return InvalidInputError(
            f"VGGT trusts no depth of {name}, the first view: its confidence reaches {most:.3g}, 1 being none, and "
            f"{options.min_confidence:g} is asked for. Put another view first, or lower the threshold.",
            "spec.geometry.vggt_confidence",
        )
    return InvalidInputError(
        f"All depth of {name}, the first view, is among the least confident {options.drop_lowest:.0%}, which are to be "
        "dropped. Put another view first, or drop less.",
        "spec.geometry.vggt_drop_lowest",
    )


def _check_cameras(frames: Frames, pose: Tensor) -> None:
    """Raises InvalidInputError if an encoding [n,9] is no camera."""
    for name, encoding in zip(frames.names, pose, strict=True):
        fov = [float(v) for v in encoding[7:]]
        if not encoding.isfinite().all() or float(encoding[3:7].norm()) < 1e-6:
            raise InvalidInputError(f"VGGT finds no camera for {name}; leave it out.", "MEDIA")
        if not all(LEAST_FOV <= angle <= MOST_FOV for angle in fov):
            raise InvalidInputError(
                f"VGGT finds a field of view of {math.degrees(fov[1]):.3g}x{math.degrees(fov[0]):.3g} degrees for "
                f"{name}; usable are {math.degrees(LEAST_FOV):.0f} to {math.degrees(MOST_FOV):.0f}. Leave it out.",
                "MEDIA",
            )


def _warnings(frames: Frames, trusted: Tensor, agreed: Agreement) -> tuple[str, ...]:
    warnings = []
    if len(frames) == 1:
        warnings.append(
            "One frame shows no parallax: its depth and focal length are VGGT's guess. Two or more frames, taken from "
            "different places, give truer geometry."
        )
    poor = [name for name, share in zip(frames.names, trusted, strict=True) if share < LITTLE_TRUSTED]
    if poor:
        warnings.append(
            f"VGGT trusts less than {LITTLE_TRUSTED:.0%} of the depth of {_list(poor)}: little texture, little "
            "overlap with the others, or things that move."
        )
    if len(frames) == 1:
        return tuple(warnings)
    shares = dict(zip(frames.names, agreed.shares(), strict=True))
    alone = [name for name, share in shares.items() if share is None]
    if alone:
        what = (
            "anything of another"
            if len(alone) == len(frames)
            else f"anything of {_list(alone)}, or the other way round"
        )
        warnings.append(f"No frame sees {what}, by VGGT's cameras and depth: the views do not make one scene.")
    if agreed.share is not None and agreed.share < LOW_AGREEMENT:
        warnings.append(
            f"The frames agree on only {agreed.share:.0%} of the depth that they share; in a good scene it is "
            f"{LOW_AGREEMENT:.0%} or more. Expect surfaces to appear twice; frames that overlap more may help."
        )
    else:
        odd = [name for name, share in shares.items() if share is not None and share < LOW_AGREEMENT]
        if odd:
            warnings.append(
                f"The depth of {_list(odd)} does not fit that of the other frames: less than {LOW_AGREEMENT:.0%} of "
                "what they share agrees. Leaving it out may give a truer scene."
            )
    return tuple(warnings)


def _list(names: list[str]) -> str:
    """Names for a sentence; of many the first ones."""
    most = 5
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[:most])} and {len(names) - most} more"
