"""COLMAP in a process of its own: `python -m gen3c.geometry.sfm_worker FOLDER SEED PARENT_PID`.

FOLDER holds `images/<width>x<height>/<index>.png`. The worker leaves `result.npz` there, and while it works
`progress.txt` ("stage step total"). It is a process because a COLMAP call cannot be interrupted from Python:
the caller kills it. One thread and fixed seeds make the result repeat exactly.

Arrays of result.npz, for n images and p points: registered [n] bool, w2c [n,4,4], camera [n,3] (focal length
and principal point in COLMAP's convention: the centre of the first pixel is at 0.5), points [p,3], error [p],
seen [p,n] bool, inliers [n,n] int (verified matches of each pair).
"""

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) to kill this process when its parent ends, however that happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the kernel was asked
        sys.exit("the parent process has ended")


class Progress:
    """Writes what the worker is doing to a file that the parent polls."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, stage: str, step: int, total: int) -> None:
        draft = self._path.with_suffix(".new")
        draft.write_text(f"{stage} {step} {total}")
        draft.replace(self._path)


def mapper_options(images: int, seed: int) -> Iterator[pycolmap.IncrementalPipelineOptions]:
    """COLMAP's defaults first; then, for short baselines and few matches, thresholds that ask for less."""
    for relaxed in (False, True):
        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = 1
        options.random_seed = seed
        options.multiple_models = False
        options.min_model_size = 2
        options.extract_colors = False
        # With few images most tracks have two views; without them there would be too few points.
        options.triangulation.ignore_two_view_tracks = images > 3
        # Two views rarely hold their focal length; a wrong one found there is worse than the usual guess.
        options.ba_refine_focal_length = images > 2
        options.mapper.num_threads = 1
        options.mapper.random_seed = seed
        options.triangulation.random_seed = seed
        if relaxed:
            options.mapper.init_min_tri_angle = 2.0
            options.mapper.init_min_num_inliers = 30
            options.mapper.abs_pose_min_num_inliers = 15
            options.mapper.abs_pose_min_inlier_ratio = 0.15
            options.mapper.filter_min_tri_angle = 0.5
            options.triangulation.min_angle = 0.5
            options.triangulation.ignore_two_view_tracks = False
        yield options


def find_matches(database: Path, images: Path, names: list[str], seed: int, progress: Progress) -> None:
    """Features of every image, and verified matches of every pair, into COLMAP's database."""
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "SIMPLE_PINHOLE"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = 1
    extraction.sift.max_num_features = 4096
    progress("features", 0, 1)
    # All in one call, folder by folder: only so do the images of a folder, that is of a size, share a camera.
    pycolmap.extract_features(
        database,
        images,
        image_names=sorted(names),
        camera_mode=pycolmap.CameraMode.PER_FOLDER,
        reader_options=reader,
        extraction_options=extraction,
        device=pycolmap.Device.cpu,
    )
    progress("matching", 0, 1)
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = seed
    pycolmap.match_exhaustive(
        database, matching_options=matching, verification_options=verification, device=pycolmap.Device.cpu
    )


def count_inliers(database: Path, names: list[str]) -> npt.NDArray[np.int64]:
    """Verified matches of each pair of images, [n,n]."""
    inliers = np.zeros((len(names), len(names)), np.int64)
    with pycolmap.Database.open(database) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for i, j in combinations(range(len(names)), 2):
            if names[i] in ids and names[j] in ids and db.exists_two_view_geometry(ids[names[i]], ids[names[j]]):
                geometry = db.read_two_view_geometry(ids[names[i]], ids[names[j]])
                inliers[i, j] = inliers[j, i] = len(geometry.inlier_matches)
    return inliers


def map_scene(
    database: Path, folder: Path, names: list[str], seed: int, progress: Progress
) -> pycolmap.Reconstruction | None:
    """The reconstruction that holds most images; None if no pair of images could start one."""
    best: pycolmap.Reconstruction | None = None
    for options in mapper_options(len(names), seed):
        registered = [2]  # the first pair comes without a callback of its own

        def count(registered: list[int] = registered) -> None:
            registered[0] += 1
            progress("mapping", min(registered[0], len(names)), len(names))

        progress("mapping", 0, len(names))
        found = pycolmap.incremental_mapping(
            database, folder / "images", folder / "models", options, next_image_callback=count
        )
        for model in found.values():
            if best is None or model.num_reg_images() > best.num_reg_images():
                best = model
        if best is not None and best.num_reg_images() == len(names):
            break
    return best


def arrays_of(model: pycolmap.Reconstruction | None, names: list[str]) -> dict[str, npt.NDArray[np.generic]]:
    """The reconstruction as the arrays of result.npz."""
    n = len(names)
    registered = np.zeros(n, bool)
    w2c = np.tile(np.eye(4), (n, 1, 1))
    camera = np.zeros((n, 3))
    points: list[pycolmap.Point3D] = [] if model is None else [model.points3D[k] for k in sorted(model.points3D)]
    seen = np.zeros((len(points), n), bool)
    if model is not None:
        view_of = {}
        for i, name in enumerate(names):
            image = model.find_image_with_name(name)
            if image is None or not image.has_pose:
                continue
            view_of[image.image_id] = i
            registered[i] = True
            w2c[i, :3] = image.cam_from_world().matrix()
            camera[i] = model.cameras[image.camera_id].params
        for k, point in enumerate(points):
            for element in point.track.elements:
                seen[k, view_of[element.image_id]] = True
    return {
        "registered": registered,
        "w2c": w2c,
        "camera": camera,
        "points": np.array([point.xyz for point in points]).reshape(-1, 3),
        "error": np.array([point.error for point in points]),
        "seen": seen,
    }


def main(folder: Path, seed: int) -> None:
    """Reconstruct the images under `folder` and write result.npz."""
    pycolmap.logging.minloglevel = 3
    pycolmap.logging.stderrthreshold = 3
    pycolmap.set_random_seed(seed)
    progress = Progress(folder / "progress.txt")
    images = folder / "images"
    names = sorted((str(p.relative_to(images)) for p in images.rglob("*.png")), key=lambda name: Path(name).stem)
    database = folder / "database.db"
    (folder / "models").mkdir()
    find_matches(database, images, names, seed, progress)
    inliers = count_inliers(database, names)
    model = map_scene(database, folder, names, seed, progress)
    np.savez(folder / "result.npz", inliers=inliers, **arrays_of(model, names))


if __name__ == "__main__":
    die_with_parent(int(sys.argv[3]))
    main(Path(sys.argv[1]), int(sys.argv[2]))
