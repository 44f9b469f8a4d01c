"""Structure from motion on scenes of known cameras, and how it says no."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import torch
from scenes import Shot, camera, shoot

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry import sfm
from gen3c.geometry.plane_sweep import SweepOptions
from gen3c.geometry.sparse import SparseScene
from gen3c.geometry.types import Frames, Geometry, Watch

CLIP = Path(__file__).resolve().parents[4] / "shared" / "data" / "bg_arena"
POSES = [camera(-0.8, 0.0, -8), camera(-0.3, 0.1, -3), camera(0.3, 0.0, 3), camera(0.8, -0.1, 8)]


@pytest.fixture(scope="module")
def shot() -> Shot:
    return shoot(POSES, (240, 320), 300.0)


@pytest.fixture(scope="module")
def scene(shot: Shot) -> SparseScene:
    return sfm.reconstruct(shot.frames, Watch())


def only(frames: Frames, views: list[int]) -> Frames:
    return Frames(frames.pixels[views], frames.sizes[views], tuple(frames.names[i] for i in views))


def worker_processes() -> list[str]:
    """Command lines of the workers that run now, as far as this process may see them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in lines if "gen3c.geometry.sfm_worker" in line]


def turn_between(a: torch.Tensor, b: torch.Tensor) -> float:
    """Angle in degrees between two rotations."""
    return float(torch.rad2deg(torch.acos((((a.T @ b).trace() - 1) / 2).clamp(-1, 1))))


def test_cameras_are_true_up_to_a_similarity(shot: Shot, scene: SparseScene) -> None:
    for i in range(1, 4):
        found = scene.w2c[i] @ torch.linalg.inv(scene.w2c[0])
        true = shot.w2c[i] @ torch.linalg.inv(shot.w2c[0])
        assert turn_between(found[:3, :3], true[:3, :3]) < 0.5
        cosine = torch.nn.functional.cosine_similarity(found[:3, 3], true[:3, 3], dim=0)
        assert cosine > 0.995  # the direction of motion, within 6 degrees
    lengths = (scene.centres - scene.centres[0]).norm(dim=1) / (scene.centres[3] - scene.centres[0]).norm()
    true_centres = torch.linalg.inv(shot.w2c)[:, :3, 3]
    expected = (true_centres - true_centres[0]).norm(dim=1) / (true_centres[3] - true_centres[0]).norm()
    assert torch.allclose(lengths, expected, atol=0.02)


def test_intrinsics_have_integer_pixel_centres(scene: SparseScene) -> None:
    assert torch.allclose(scene.K[:, 0, 2], torch.tensor(159.5, dtype=torch.float64))
    assert torch.allclose(scene.K[:, 1, 2], torch.tensor(119.5, dtype=torch.float64))
    assert torch.equal(scene.K[:, 0, 0], scene.K[:, 1, 1])
    assert (scene.K[:, 0, 0] - 300).abs().max() < 15  # 5%: four views of little turn hold it no better
    assert (scene.K[0] == scene.K).all()  # one camera


def test_points_project_to_where_they_were_seen(scene: SparseScene) -> None:
    assert len(scene.points) > 100
    assert scene.error.mean() < 1.0
    for i in range(4):
        assert (scene.depths(i) > 0).all()
        assert len(scene.depths(i)) == scene.seen[:, i].sum()


def test_the_same_frames_give_the_same_cameras(shot: Shot, scene: SparseScene) -> None:
    again = sfm.reconstruct(shot.frames, Watch())
    assert torch.equal(again.w2c, scene.w2c)
    assert torch.equal(again.points, scene.points)


def test_subset_forgets_points_that_one_view_is_left_with(scene: SparseScene) -> None:
    seen = torch.tensor([[True, True, False, False], [True, False, False, True], [False, True, True, True]])
    small = SparseScene(scene.w2c, scene.K, scene.points[:3], seen, scene.error[:3])
    rest = small.subset([1, 2, 3])
    assert torch.equal(rest.points, scene.points[2:3])
    assert torch.equal(rest.w2c, scene.w2c[1:])


def test_estimate_gives_true_depth(shot: Shot) -> None:
    stages: list[str] = []

    def note(stage: str, step: int, total: int) -> None:
        assert 0 <= step <= total
        if stage not in stages:
            stages.append(stage)

    options = SweepOptions(long_side=160, planes=48, offsets=12)
    geometry = sfm.estimate(shot.frames, Watch(on_progress=note), options=options)
    assert isinstance(geometry, Geometry)
    assert geometry.depth.shape == geometry.confidence.shape == (4, 240, 320)
    assert (geometry.depth > 0).all()
    sure = geometry.confidence > 0.5
    ratio = geometry.depth[sure] / shot.depth[sure]
    assert sure.float().mean() > 0.6
    assert ((ratio / ratio.median() - 1).abs() < 0.05).float().mean() > 0.95  # one scale for all views
    assert geometry.info["provider"] == "sfm"
    assert geometry.warnings == ()
    assert "sfm.features" in stages
    assert "sweep.fine" in stages


def test_two_frames_work_with_a_warning(shot: Shot) -> None:
    options = SweepOptions(long_side=160, planes=32, offsets=8)
    geometry = sfm.estimate(only(shot.frames, [1, 2]), Watch(), options=options)
    assert "focal length" in geometry.warnings[0]
    assert geometry.K[0, 0, 0] == pytest.approx(1.2 * 320)
    assert (geometry.confidence > 0.5).float().mean() > 0.3


def test_frames_of_two_sizes_get_a_camera_each(shot: Shot) -> None:
    other = shoot([POSES[1]], (180, 240), 225.0).frames
    pixels, sizes = shot.frames.pixels.clone(), shot.frames.sizes.clone()
    pixels[1] = 0
    pixels[1, :180, :240] = other.pixels[0]
    sizes[1] = torch.tensor([180, 240])
    scene = sfm.reconstruct(Frames(pixels, sizes, shot.frames.names), Watch())
    assert float(scene.K[1, 0, 2]) == 119.5
    assert float(scene.K[0, 0, 2]) == 159.5
    assert torch.equal(scene.K[0], scene.K[2])  # shared, though a frame of another size came between
    assert float(scene.K[1, 0, 0] / scene.K[0, 0, 0]) == pytest.approx(0.75, rel=0.1)


def test_one_frame_is_not_enough(shot: Shot) -> None:
    with pytest.raises(InvalidInputError, match="at least 2 frames"):
        sfm.estimate(only(shot.frames, [0]), Watch())


def test_more_frames_than_every_pair_of_can_be_matched_are_refused() -> None:
    frames = Frames(torch.zeros(65, 16, 16, 3, dtype=torch.uint8), torch.full((65, 2), 16), ("x.jpg",) * 65)
    with pytest.raises(InvalidInputError, match="64 frames at most, for it matches every pair; got 65"):
        sfm.estimate(frames)


def test_identical_frames_have_no_parallax(shot: Shot) -> None:
    with pytest.raises(InvalidInputError, match="identical"):
        sfm.estimate(only(shot.frames, [0, 0, 0]), Watch())


def test_a_camera_that_only_turns_is_refused() -> None:
    turning = shoot([camera(0, 0, a) for a in (-6, 0, 6)], (240, 320), 300.0)
    with pytest.raises(InvalidInputError, match=r"turned on the spot|hardly moves"):
        sfm.reconstruct(turning.frames, Watch())


def test_frames_that_share_nothing_are_refused() -> None:
    pixels = torch.cat([shoot([POSES[0]], (240, 320), 300.0, seed=s).frames.pixels for s in (1, 2, 3)])
    sizes = torch.tensor([[240, 320]] * 3, dtype=torch.int32)
    with pytest.raises(InvalidInputError, match=r"None of the 3 frames.*\(a, b, c\).*matching points.*overlap"):
        sfm.reconstruct(Frames(pixels, sizes, ("a", "b", "c")), Watch())


def test_the_frame_that_does_not_fit_is_named(shot: Shot) -> None:
    stranger = shoot([POSES[0]], (240, 320), 300.0, seed=9).frames.pixels
    sizes = torch.cat([shot.frames.sizes, shot.frames.sizes[:1]])
    frames = Frames(torch.cat([shot.frames.pixels, stranger]), sizes, (*shot.frames.names, "holiday.jpg"))
    with pytest.raises(InvalidInputError, match=r"1 of 5 frames.*: holiday.jpg\."):
        sfm.reconstruct(frames, Watch())


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_cancelling_kills_the_worker_within_a_second(
    shot: Shot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stop = threading.Event()
    asked: list[float] = []

    def note(stage: str, step: int, total: int) -> None:  # noqa: ARG001
        if stage == "sfm.matching":
            asked.append(time.perf_counter())
            stop.set()

    with pytest.raises(CancelledError):
        sfm.reconstruct(shot.frames, Watch(is_cancelled=stop.is_set, on_progress=note))
    assert time.perf_counter() - asked[0] < 1.0
    assert not [line for line in worker_processes() if str(tmp_path) in line]
    assert not list(tmp_path.iterdir())  # nothing stays behind


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, tempfile; tempfile.tempdir = sys.argv[1]; sys.path.insert(0, sys.argv[2])\n"
        "from scenes import camera, shoot; from gen3c.geometry import sfm; from gen3c.geometry.types import Watch\n"
        "shot = shoot([camera(0.1 * i) for i in range(12)], (480, 640), 600.0)\n"
        "sfm.reconstruct(shot.frames, Watch(on_progress=lambda *report: print(*report, flush=True)))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert parent.stdout is not None
    try:
        reports = iter(parent.stdout.readline, b"")
        assert any(report.startswith(b"sfm.features") for report in reports)  # the worker is at work
        assert [line for line in worker_processes() if str(tmp_path) in line]
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 5  # the kernel's signal is at once; a busy machine reaps later
    while time.monotonic() < deadline and [line for line in worker_processes() if str(tmp_path) in line]:
        time.sleep(0.05)
    assert not [line for line in worker_processes() if str(tmp_path) in line]


def test_the_interpreter_is_this_environments_even_when_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/tritonserver/backends/python/triton_python_backend_stub")
    command = [sfm._python(), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.check_output(command, text=True).strip() == sys.prefix


def test_a_crash_of_the_worker_is_reported_with_its_last_words(
    shot: Shot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho out of luck >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sfm, "_python", lambda: str(broken))
    with pytest.raises(RuntimeError, match="status 3: out of luck"):
        sfm.reconstruct(shot.frames, Watch())


@pytest.mark.slow
@pytest.mark.parametrize("hold_out", [4, 5])
def test_the_real_clip_is_re_rendered_from_its_other_views(hold_out: int) -> None:
    if not CLIP.exists():
        pytest.skip(f"the real clip is not next to this checkout (looked for {CLIP.parent.name}/{CLIP.name})")
    script = Path(__file__).resolve().parents[3] / "benchmarks" / "rerender.py"
    stills = sorted(str(p) for p in CLIP.glob("*.png"))
    command = [sys.executable, str(script), *stills, "--hold-out", str(hold_out)]
    last = subprocess.check_output(command, text=True).strip().splitlines()[-1]
    figures = dict(pair.split("=") for pair in last.split())
    # A simple plane sweep of one neighbour reaches 22 dB over 71%.
    assert float(figures["psnr"]) >= 24.5
    assert float(figures["coverage"]) >= 0.9
