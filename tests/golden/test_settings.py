"""Settings that no array holds are read off the arrays, whatever their values and the order of the file.

The vectors here are our own code's: what is at stake is whether the harness finds the settings, not the parity.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from gen3c.cache3d import UPSTREAM_CALL, bounded_depth, cache_view, render_all
from gen3c.cameras import camera_path
from gen3c.fusion import choose_views
from gen3c.generator.rope import RotaryAngles
from tests.golden.networks import DIT_FPS, frame_rate
from tests.golden.report import FileReport, lines, run_file
from tests.golden.selector import check_selector
from tests.golden.trajectories import KINDS, ROTATIONS, check_trajectories, sequence_settings
from tests.golden.vectors import Vectors

SIZE = (16, 24)
K = torch.tensor([[20.0, 0, 12], [0, 20, 8], [0, 0, 1]])


def write(path: Path, arrays: dict[str, Tensor]) -> Path:
    np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    return path


def text(report: FileReport) -> str:
    return "\n".join(lines(report))


def cameras(n: int) -> Tensor:
    """n cameras that differ in place and direction, [n,4,4]."""
    return camera_path("clockwise", n, torch.eye(4), distance=0.4, center_depth=2.5)


def trajectories(path: Path, distance: float, center_depth: float, kinds: tuple[str, ...] = tuple(KINDS)) -> Path:
    starts = cameras(6)
    arrays = {"initial_w2c": starts[2], "initial_w2c_seq": starts, "distance": torch.tensor(0.2)}
    arrays |= {"initial_K": K, "initial_K_seq": K.expand(6, 3, 3), "K_out": K.expand(1, 6, 3, 3)}
    for kind in kinds:
        arrays[f"w2cseq__{kind}"] = camera_path(
            KINDS[kind], 6, starts, distance=distance, center_depth=center_depth, reference=True
        )[None]
        for rotation in ROTATIONS:
            single = camera_path(
                KINDS[kind],
                6,
                starts[2],
                rotation=ROTATIONS[rotation],
                distance=float(arrays["distance"]),
                reference=True,
            )
            arrays[f"w2c__{kind}__{rotation}"] = single[None]
    return write(path, arrays)


@pytest.mark.parametrize("settings", [(0.25, 2.0), (0.4, 3.0), (0.1, 0.8)])
@pytest.mark.parametrize("kinds", [tuple(KINDS), ("down", "clockwise"), ("right",)])
def test_per_frame_paths_tell_their_distance_and_centre_depth(tmp_path, settings, kinds) -> None:
    path = trajectories(tmp_path / "trajectories.npz", *settings, kinds)
    report = run_file(path, check_trajectories)
    assert not report.failures, text(report)
    found = sequence_settings(Vectors(path), cameras(6))
    assert found == pytest.approx(settings, rel=1e-4)


def test_paths_that_do_not_turn_are_judged_with_the_usual_centre_depth(tmp_path) -> None:
    path = trajectories(tmp_path / "trajectories.npz", 0.4, 3.0, ("zoom_in",))
    assert not run_file(path, check_trajectories).failures
    assert sequence_settings(Vectors(path), cameras(6)) == pytest.approx((0.6, 2.0), rel=1e-4)


@pytest.mark.parametrize("kind", ["left", "up", "zoom_out", "counterclockwise"])
def test_one_wrong_per_frame_path_fails_alone(tmp_path, kind: str) -> None:
    path = trajectories(tmp_path / "trajectories.npz", 0.4, 3.0)
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    arrays[f"w2cseq__{kind}"] = arrays[f"w2cseq__{kind}"] * 1.01
    report = run_file(write(path, arrays), check_trajectories)
    assert [result.name.rpartition("/")[2] for result in report.results if result.failed] == [f"w2cseq__{kind}"]


def test_paths_to_the_wrong_side_fail(tmp_path) -> None:
    path = trajectories(tmp_path / "trajectories.npz", 0.4, 3.0, ("left", "right"))
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    arrays["w2cseq__left"], arrays["w2cseq__right"] = arrays["w2cseq__right"], arrays["w2cseq__left"]
    assert run_file(write(path, arrays), check_trajectories).failures == 2


@pytest.mark.parametrize("fps", [12.0, 24.0, 30.0])
def test_angles_tell_the_frame_rate(tmp_path, fps: float) -> None:
    path = write(tmp_path / "dit.npz", {"mid_rope_angles": RotaryAngles(32).angles((3, 2, 4), fps)})
    assert frame_rate(Vectors(path), (3, 2, 4)) == pytest.approx(fps, rel=1e-6)


def test_one_latent_frame_tells_no_frame_rate(tmp_path) -> None:
    path = write(tmp_path / "dit.npz", {"mid_rope_angles": RotaryAngles(32).angles((1, 2, 4), 30.0)})
    assert frame_rate(Vectors(path), (1, 2, 4)) == DIT_FPS


def selector(path: Path, reliability: float | None, far: float = 3.0) -> Path:
    """Two key frames and two cases; the foreground vectors show the first one's targets, the other is stored last."""
    generator = torch.Generator().manual_seed(5)
    poses, targets = cameras(2), cameras(5)
    rows = torch.linspace(2.5, 3.1, SIZE[0])[:, None].expand(SIZE)
    noise = torch.linspace(0, 1, SIZE[1]) * torch.rand(SIZE, generator=generator)  # every threshold draws another line
    depth = torch.stack((rows, rows + noise))
    depth[:, :4, :6] = far
    arrays = {"images": torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1, "depths": depth[:, None]}
    arrays |= {"masks": torch.ones(2, 1, *SIZE), "w2cs": poses, "Ks": K.expand(2, 3, 3)}
    arrays["target_Ks"] = K.expand(1, 2, 3, 3)
    bounded = bounded_depth(depth, reference=True)

    def views(threshold: float | None) -> list:
        return [
            cache_view(
                arrays["images"][i], bounded[i], torch.ones(SIZE), poses[i], K, reliability=threshold, reference=True
            )
            for i in range(2)
        ]

    def shown(pictures: Tensor, empty: float, choice) -> Tensor:
        return ((pictures[:, list(choice.views)] - empty) * choice.keep.T[:, :, None, None, None] + empty)[None]

    def render(w2c: Tensor, threshold: float | None, foreground: bool) -> SimpleNamespace:
        warp = render_all(
            views(threshold), w2c, K.expand(2, 3, 3), SIZE, foreground_masking=foreground, call_size=UPSTREAM_CALL
        )
        image, mask = (x.reshape(2, 2, *x.shape[1:]) for x in (warp.image, warp.coverage))
        return SimpleNamespace(image=image, mask=mask, choice=choose_views(mask.mean((2, 3, 4)).T))

    for case, w2c in (("t60", targets[1:3]), ("t90", targets[3:5])):
        arrays[f"w2cs_{case}"] = w2c[None]
        warp = render(w2c, reliability, foreground=False)
        choice = choose_views(warp.mask.mean((2, 3, 4)).T, int(case[1:]) / 100)
        arrays |= {f"all_pix_{case}": warp.image[None], f"all_mask_{case}": warp.mask[None]}
        arrays |= {f"pix_{case}": shown(warp.image, -1.0, choice), f"mask_{case}": shown(warp.mask, 0.0, choice)}
    warp = render(targets[1:3], None, foreground=True)
    arrays["pix_fg2"], arrays["mask_fg2"] = shown(warp.image, -1.0, warp.choice), shown(warp.mask, 0.0, warp.choice)
    return write(path, arrays)


@pytest.mark.parametrize("far", [3.0, 500.0, float("nan")])
def test_foreground_vectors_find_the_case_whose_cameras_they_share(tmp_path, far: float) -> None:
    """`t60` is not the last of the file; depth that the caches bound changes nothing."""
    report = run_file(selector(tmp_path / "cache_selector.npz", 0.3, far), check_selector)
    assert not report.failures, text(report)
    assert "reliability" not in text(report)


@pytest.mark.parametrize("reliability", [0.1, 0.2, None])
def test_another_reliability_is_found_and_named(tmp_path, reliability: float | None) -> None:
    path = selector(tmp_path / "cache_selector.npz", reliability, far=30.0)
    report = run_file(path, check_selector)
    assert not report.failures, text(report)
    assert f"[other poses, reliability {reliability or 'off'}]" in text(report)


def test_coverage_that_no_reliability_explains_fails(tmp_path) -> None:
    path = selector(tmp_path / "cache_selector.npz", 0.3)
    with np.load(path) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    mask = cast(Tensor, arrays["all_mask_t90"])
    mask[..., 0, 8, 12] = 1 - mask[..., 0, 8, 12]
    report = run_file(write(path, arrays), check_selector)
    assert any(result.failed and "all_mask_t90" in result.name for result in report.results), text(report)
