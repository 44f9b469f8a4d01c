"""Geometry from photos alone: COLMAP's poses and sparse points, then a plane sweep of our own for depth.

Needs no checkpoint. Structure from motion: Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry.plane_sweep import SweepOptions, sweep
from gen3c.geometry.sparse import SparseScene
from gen3c.geometry.types import Frames, Geometry, Watch

MATCHED_LONG_SIDE = 1280
MOST_FRAMES = 64  # 2016 pairs, some ten minutes on two cores
POLL_SECONDS = 0.1
LEAST_PARALLAX = 0.5  # degrees; below it depth is noise
ADVICE = "more overlap between neighbouring frames, more texture, more frames or another selection may help"


def estimate(
    frames: Frames, watch: Watch | None = None, *, seed: int = 0, options: SweepOptions | None = None
) -> Geometry:
    """Cameras and dense depth of every frame, in COLMAP's world frame and unit.

    The same frames and seed give the same result, bit for bit, on one machine and thread count.

    Args:
        frames: at least two pictures of a static scene, taken from different places.
        watch: polled several times a second.
        seed: of COLMAP's random choices.
        options: of the plane sweep.

    Raises:
        InvalidInputError: fewer than two frames, no parallax, or frames that do not fit the others (named).
        CancelledError: `watch` said so.
    """
    watch = watch or Watch()
    scene = reconstruct(frames, watch, seed=seed)
    depth, confidence = sweep(frames, scene, watch, options or SweepOptions())
    warnings: tuple[str, ...] = ()
    if len(frames) == 2:
        warnings = (
            "Two frames do not determine the focal length; it was assumed to be 1.2 times the long side. "
            "Three or more frames give truer geometry.",
        )
    info: dict[str, object] = {
        "provider": "sfm",
        "points": len(scene.points),
        "reprojection_error": round(float(scene.error.mean()), 3),
        "focal_lengths": sorted({round(float(focal), 2) for focal in scene.K[:, 0, 0]}),
        "confident_fraction": round(float((confidence >= 0.5).float().mean()), 4),
    }
    return Geometry(depth, confidence, scene.w2c.float(), scene.K.float(), info, warnings)


def reconstruct(frames: Frames, watch: Watch, *, seed: int = 0) -> SparseScene:
    """Poses of all frames and the sparse points between them (errors as in `estimate`)."""
    _check_frames(frames)
    with tempfile.TemporaryDirectory(prefix="gen3c-sfm-") as folder:
        scales = _write_pictures(frames, Path(folder) / "images", watch)
        result = _run_worker(Path(folder), seed, watch)
    _check_registration(frames, result["registered"], result["inliers"])
    K = _intrinsics(torch.from_numpy(result["camera"]), scales)
    scene = SparseScene(
        torch.from_numpy(result["w2c"]),
        K,
        torch.from_numpy(result["points"]),
        torch.from_numpy(result["seen"]),
        torch.from_numpy(result["error"]),
    )
    _check_parallax(frames, scene)
    return scene


def _check_frames(frames: Frames) -> None:
    if len(frames) < 2:
        raise InvalidInputError(
            f"Geometry from motion needs at least 2 frames taken from different places, better 3 or more; "
            f"got {len(frames)}."
        )
    if len(frames) > MOST_FRAMES:
        raise InvalidInputError(
            f"Structure from motion takes {MOST_FRAMES} frames at most, for it matches every pair; got {len(frames)}. "
            "Select fewer.",
            "MEDIA",
        )
    first = frames.frame(0)
    if all(torch.equal(first, frames.frame(i)) for i in range(1, len(frames))):
        raise InvalidInputError(
            f"All {len(frames)} frames are identical ({frames.names[0]}): there is no parallax to measure depth "
            f"from. Give frames taken from different places."
        )


def _write_pictures(frames: Frames, folder: Path, watch: Watch) -> Tensor:
    """Save what COLMAP matches, and return each picture's size relative to its frame, [n,2] (x, y)."""
    scales = []
    for i in range(len(frames)):
        watch.step("sfm.pictures", i, len(frames))
        picture = Image.fromarray(frames.frame(i).numpy()).convert("L")
        width, height = picture.size
        shrink = min(1.0, MATCHED_LONG_SIDE / max(width, height))
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        if size != picture.size:
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        target = folder / f"{size[0]}x{size[1]}"
        target.mkdir(parents=True, exist_ok=True)
        picture.save(target / f"{i:06d}.png", compress_level=1)
        scales.append((size[0] / width, size[1] / height))
    return torch.tensor(scales, dtype=torch.float64)


def _intrinsics(camera: Tensor, scales: Tensor) -> Tensor:
    """K of each frame at its own size, integer pixel centres, from COLMAP's (f, cx, cy) of the matched pictures.

    COLMAP's coordinates are scaled plainly, because its pixel centres are at .5.
    """
    K = torch.eye(3, dtype=torch.float64).repeat(len(camera), 1, 1)
    K[:, 0, 0] = camera[:, 0] / scales[:, 0]
    K[:, 1, 1] = camera[:, 0] / scales[:, 1]
    K[:, :2, 2] = camera[:, 1:] / scales - 0.5
    return K


def _python() -> str:
    """The interpreter of this environment; inside an embedding server sys.executable is that server."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in (f"python{version}", "python3"):
        own = Path(sys.prefix) / "bin" / name
        if own.exists():
            return str(own)
    return sys.executable


def _run_worker(folder: Path, seed: int, watch: Watch) -> dict[str, npt.NDArray[Any]]:
    """Run COLMAP in a child process on `folder/images`; kill it as soon as `watch` cancels."""
    # An embedding server may have set its own search path; the worker must find the same packages.
    path = os.pathsep.join(dict.fromkeys([str(Path(__file__).resolve().parents[2]), *(p for p in sys.path if p)]))
    command = [_python(), "-m", "gen3c.geometry.sfm_worker", str(folder), str(seed), str(os.getpid())]
    log_path = folder / "log.txt"
    with log_path.open("wb") as log:
        worker = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            while worker.poll() is None:
                _report(folder / "progress.txt", watch)
                time.sleep(POLL_SECONDS)
        finally:
            worker.kill()
            worker.wait()
    result = folder / "result.npz"
    if not result.exists():
        tail = log_path.read_text(errors="replace").strip().splitlines()[-5:]
        raise RuntimeError(f"COLMAP's process ended with status {worker.returncode}: {' | '.join(tail)}")
    with np.load(result, allow_pickle=False) as arrays:
        return dict(arrays)


def _report(progress: Path, watch: Watch) -> None:
    if progress.exists():
        stage, step, total = progress.read_text().split()
        watch.step(f"sfm.{stage}", int(step), int(total))
    elif watch.is_cancelled():
        raise CancelledError("cancelled during sfm")


def _check_registration(frames: Frames, registered: npt.NDArray[np.bool_], inliers: npt.NDArray[np.int64]) -> None:
    """Raise a sentence that names the frames that COLMAP could not place."""
    if registered.all():
        return
    if not registered.any():
        strongest = int(inliers.max())
        reason = (
            f"the best pair of frames has only {strongest} matching points"
            if strongest < 100
            else "the frames match, but the camera seems to have turned on the spot or not to have moved"
        )
        raise InvalidInputError(
            f"None of the {len(frames)} frames could be placed relative to another ({', '.join(frames.names)}): "
            f"{reason}. The camera must move through a static scene; {ADVICE}."
        )
    lost = [frames.names[i] for i in np.flatnonzero(~registered)]
    raise InvalidInputError(
        f"{len(lost)} of {len(frames)} frames could not be placed relative to the others: {', '.join(lost)}. "
        f"Leave them out, or {ADVICE}."
    )


def _check_parallax(frames: Frames, scene: SparseScene) -> None:
    """Raise if no pair of views sees its shared points under a useful angle."""
    widest = 0.0
    for i in range(len(scene)):
        for j in range(i + 1, len(scene)):
            angles = scene.ray_angles(i, j)
            if len(angles) >= 8:
                widest = max(widest, float(angles.median()))
    if widest < LEAST_PARALLAX:
        raise InvalidInputError(
            f"The camera hardly moves between the {len(frames)} frames: the widest angle between two views of the "
            f"same points is {widest:.2f} degrees, and depth needs {LEAST_PARALLAX} or more. Choose frames that "
            f"are farther apart."
        )
