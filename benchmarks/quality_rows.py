"""Every row of the table for one scene: what is made of it, and how far that is from the truth.

Frame 0 is given, being view 0 itself, and counts in no figure.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from benchmarks import quality_metrics as metrics
from benchmarks.quality_case import Case, exact_geometry, frames_of, target_cameras
from benchmarks.quality_composite import RANKINGS, Warps, composites, filled, warps
from benchmarks.quality_perceptual import PerceptualDistance
from benchmarks.quality_served import SPEC, Served, estimate, make_video, scene_of, through_vae
from gen3c.conditioning import Cameras
from gen3c.errors import InvalidInputError
from gen3c.fusion import FUSION_MODES, FusionMode
from gen3c.geometry.types import Geometry
from gen3c.scene import Scene
from training.linear_code import LinearCode
from training.motion import motion
from training.scenes import as_float

PERCEPTUAL_EVERY = 3  # frames; the network's distance is the slowest of all measures
# Of every row, in this order: over all pixels, those that some view shows, those that none does; along correspondences,
# all of them and those that the raw warps cover.
KINDS = ("all", "seen", "unseen")
FIGURES = (*(f"{m}_{k}" for m in ("psnr", "ssim", "perceptual") for k in KINDS), "flicker", "flicker_on_warps")
Figures = list[float | None]
OTHER_STEPS = (1, 4, 10)  # of denoising, with the default fusion mode; the deployment's own has a row of its own
EIGHT_VIEWS = "8 views"  # the group of rows that stands for a user's job
Made = TypeVar("Made")


class Truth:
    """What videos of a case are measured against; `on_warps` [t-2,h,w] says how many raw warps last at a point."""

    def __init__(self, case: Case, perceptual: PerceptualDistance) -> None:
        self._perceptual = perceptual
        self.video = as_pictures(case.truth)[1:]
        self.moved = motion(case.depth[1:], case.w2c[1:], case.K)
        seen = case.seen[1:]
        self.kinds = {"all": torch.ones_like(seen), "seen": seen, "unseen": ~seen}
        self._features = perceptual.features(self.video[PERCEPTUAL_EVERY - 1 :: PERCEPTUAL_EVERY])
        self.on_warps = torch.zeros_like(self.moved.visible, dtype=torch.float32)

    def measure(self, video: Tensor, covered: Tensor | None = None) -> Figures:
        """FIGURES of a video [t,h,w,3] uint8; of a raw warp, `covered` [t,h,w] bool, flicker where it lasts."""
        pictures = as_pictures(video.to(self.video.device))[1:]
        error = metrics.squared_error(pictures, self.video)
        similarity = metrics.ssim(pictures, self.video)
        some = slice(PERCEPTUAL_EVERY - 1, None, PERCEPTUAL_EVERY)
        distance = self._perceptual(pictures[some], self._features)
        flicker = metrics.flicker_map(pictures, self.moved)
        lasting = self.moved.visible if covered is None else metrics.lasting(covered[1:], self.moved)
        figures = [metrics.decibel(metrics.mean_over(error, where)) for where in self.kinds.values()]
        figures += [metrics.mean_over(similarity, where) for where in self.kinds.values()]
        figures += [metrics.mean_over(distance, where[some]) for where in self.kinds.values()]
        figures += [metrics.mean_over(flicker, lasting), self._over_warps(flicker)]
        return [None if figure is None else round(figure, 4) for figure in figures]

    def measure_warps(self, warped: Warps) -> dict[str, Any]:
        """Flicker of the raw warps of all views: at the points of the column `flicker`, with holes in black, and where
        each warp lasts, which is where `flicker_on_warps` looks.
        """
        self.on_warps = torch.zeros_like(self.on_warps)
        everywhere, total = torch.zeros_like(self.on_warps), torch.zeros_like(self.on_warps)
        for image, covered in zip(warped.image, warped.covered, strict=True):
            lasting = metrics.lasting(covered[1:], self.moved)
            flicker = metrics.flicker_map((image[1:] + 1) / 2, self.moved)
            everywhere += flicker * self.moved.visible
            total += flicker * lasting
            self.on_warps += lasting
        points, visible = float(self.on_warps.double().sum()), float(self.moved.visible.sum()) * len(warped.image)
        return {
            "flicker": round(float(total.double().sum()) / max(points, 1), 5),
            "flicker_with_holes": round(float(everywhere.double().sum()) / max(visible, 1), 5),
        }

    def _over_warps(self, flicker: Tensor) -> float | None:
        points = float(self.on_warps.double().sum())
        return float((flicker.double() * self.on_warps).sum()) / points if points else None


@dataclass(frozen=True)
class Bench:
    """What all cases are measured with."""

    served: Served
    perceptual: PerceptualDistance
    linear: LinearCode
    exact_modes: tuple[FusionMode, ...]  # measured with exact geometry, too


@dataclass
class Measured:
    """One case, and pictures of it for the contact sheet."""

    figures: dict[str, Any]
    videos: dict[str, Tensor]  # name -> [t,h,w,3] uint8


@dataclass(frozen=True)
class Group:
    """Rows that are there together or not at all."""

    rows: dict[str, Figures]
    videos: dict[str, Tensor] = field(default_factory=dict)  # for the contact sheet
    figures: dict[str, Any] = field(default_factory=dict)  # of the case


def measure_case(case: Case, bench: Bench) -> Measured:
    """All rows. A group that the pipeline refuses is left out, and its sentence is in `refused` by the group's name."""
    served, truth = bench.served, Truth(case, bench.perceptual)
    rows: dict[str, Figures] = {}
    figures: dict[str, Any] = {
        "seed": case.seed,
        "path": case.path,
        "unseen": round(float(1 - case.seen[1:].double().mean()), 4),
        "vae": _vae_figures(case, bench, truth),
        "rows": rows,
    }
    videos = {"truth": case.truth}
    refused: dict[str, str] = {}

    def tried(name: str, make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except (InvalidInputError, FloatingPointError) as error:
            refused[name] = str(error)
            return None

    groups: dict[str, Callable[[], Group]] = {}
    found = tried(EIGHT_VIEWS, lambda: estimate(served, frames_of(case, len(case.views))))
    if found is not None:
        shared = Geometry(found.depth[:1], found.confidence[:1], found.w2c[:1], found.K[:1])
        groups["geometry"] = lambda: Group({}, figures={"geometry": _geometry_figures(case, found, served)})
        groups[EIGHT_VIEWS] = lambda: _views_rows("", case, found, FUSION_MODES, bench, truth)
        groups["1 view, geometry of 8"] = lambda: _one_view_row("one_shared", case, shared, served, truth)
    groups["1 view"] = lambda: _one_view_row("one", case, estimate(served, frames_of(case, 1)), served, truth)
    groups["truth"] = lambda: _truth_rows(case, served, truth)
    # Last: from here on `truth` looks where the warps of exact geometry do.
    exact = exact_geometry(case, len(case.views))
    groups["exact geometry"] = lambda: _views_rows("exact_", case, exact, bench.exact_modes, bench, truth)
    groups["1 view, exact geometry"] = lambda: _one_view_row("exact_one", case, exact_geometry(case, 1), served, truth)
    for name, make in groups.items():
        group = tried(name, make)
        if group is not None:
            rows |= group.rows
            videos |= group.videos
            figures |= group.figures
    if refused:
        figures["refused"] = refused
    return Measured(figures, videos)


def _views_rows(
    prefix: str, case: Case, geometry: Geometry, modes: tuple[FusionMode, ...], bench: Bench, truth: Truth
) -> Group:
    """Rows of all views with one geometry, their names behind `prefix`."""
    served = bench.served
    scene, cameras = _scene(case, geometry, len(case.views), served)
    warped = warps(scene, cameras, SPEC.geometry.min_confidence, served.device)
    of_warps = truth.measure_warps(warped)
    one, covered = as_bytes(warped.image[0]), warped.covered[0]
    rows = {f"{prefix}warp": truth.measure(one, covered)}
    of_warps["psnr_covered"] = _psnr_where(one, truth, covered)
    pictures, some = composites(warped)
    of_warps["covered"] = round(float(some[1:].double().mean()), 4)
    del warped
    whole = {name: as_bytes(picture) for name, picture in filled(pictures, some).items()}
    for name, video in whole.items():
        rows[f"{prefix}composite_{name}"] = truth.measure(video)
        if name in RANKINGS and not prefix:
            rows[f"composite_{name}_vae"] = truth.measure(through_vae(served, video))
    videos = {f"{prefix}warp": one} | {f"{prefix}composite_{name}": video for name, video in whole.items()}
    if not prefix:
        for steps in set(OTHER_STEPS) - {served.steps}:
            rows[f"steps_{steps}"] = truth.measure(make_video(served, scene, cameras, SPEC.fusion, steps))
    for mode in modes:
        video = make_video(served, scene, cameras, mode)
        rows[f"{prefix}views_{mode}"] = truth.measure(video)
        videos[f"{prefix}views_{mode}"] = video
    return Group(rows, videos, {f"{prefix}warps": of_warps})


def _one_view_row(name: str, case: Case, geometry: Geometry, served: Served, truth: Truth) -> Group:
    """A job of view 0 alone."""
    scene, cameras = _scene(case, geometry, 1, served)
    return Group({name: truth.measure(make_video(served, scene, cameras, SPEC.fusion))})


def _truth_rows(case: Case, served: Served, truth: Truth) -> Group:
    return Group({"truth": truth.measure(case.truth), "truth_vae": truth.measure(through_vae(served, case.truth))})


def _scene(case: Case, geometry: Geometry, views: int, served: Served) -> tuple[Scene, Cameras]:
    scene = scene_of(served, frames_of(case, views), geometry)
    return scene, target_cameras(case, geometry, scene)


def _geometry_figures(case: Case, trusted: Geometry, served: Served) -> dict[str, Any]:
    """Errors of what VGGT finds. Depth of all pixels, trusted or not; camera positions in units of centre depth."""
    everything = estimate(served, frames_of(case, len(case.views)), everything=True)
    true = case.view_depth.cpu()
    error, ratio = metrics.abs_rel(everything.depth, true)
    error_trusted, _ = metrics.abs_rel(trusted.depth, true)
    w2c = case.view_w2c.cpu()
    apart = (metrics.centres(trusted.w2c) / ratio - metrics.centres(w2c)).norm(dim=1)[1:] / case.unit
    focal = trusted.K[:, 0, 0] / case.K.cpu()[0, 0]
    return {
        "abs_rel": round(error, 4),
        "abs_rel_trusted": round(error_trusted, 4),
        "trusted": round(float((trusted.depth > 0).double().mean()), 4),
        "rotation": [round(v, 3) for v in metrics.rotation_error(trusted.w2c, w2c)[1:].tolist()],
        "true_rotation": [round(v, 3) for v in metrics.rotation_error(torch.eye(4).expand_as(w2c), w2c)[1:].tolist()],
        "translation": [round(v, 4) for v in apart.tolist()],
        "focal": round(float((focal - 1).abs().mean()), 4),
    }


def _vae_figures(case: Case, bench: Bench, truth: Truth) -> dict[str, Any]:
    """What is left of the true video after the autoencoder, and after the linear code."""
    video = as_float(case.truth[None])
    decoded = bench.linear.decode(bench.linear.encode(video))[0].permute(1, 2, 3, 0)
    everywhere = truth.kinds["all"]
    both: dict[str, Callable[[], Tensor]] = {
        "psnr": lambda: through_vae(bench.served, case.truth),
        "linear_psnr": lambda: ((decoded.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8),
    }
    return {name: _psnr_where(make(), truth, torch.cat((everywhere[:1], everywhere))) for name, make in both.items()}


def _psnr_where(video: Tensor, truth: Truth, where: Tensor) -> float | None:
    """dB of a video [t,h,w,3] uint8 over the pixels `where` [t,h,w]."""
    pictures = as_pictures(video.to(truth.video.device))[1:]
    value = metrics.decibel(metrics.mean_over(metrics.squared_error(pictures, truth.video), where[1:]))
    return None if value is None else round(value, 4)


def as_pictures(video: Tensor) -> Tensor:
    """[t,h,w,3] uint8 to [t,3,h,w] in [0,1]."""
    return video.permute(0, 3, 1, 2).float() / 255


def as_bytes(pictures: Tensor) -> Tensor:
    """[t,3,h,w] in [-1,1] to [t,h,w,3] uint8."""
    return ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
