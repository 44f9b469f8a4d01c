"""The files of a result, as bytes."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np
from gen3c_client.contract import ARTIFACT_FILES, Artifact, ArtifactName, CameraFile, Pose
from torch import Tensor

from gen3c.conditioning import Cameras
from gen3c.geometry.types import Frames, Geometry
from gen3c.media import Mosaic, decode_video
from gen3c.ply import write_ply
from gen3c.scene import Scene, point_cloud


def in_parts(name: ArtifactName, data: bytes, part_bytes: int) -> Iterator[tuple[Artifact, bytes]]:
    """An artifact as the responses that carry it."""
    file_name, media_type = ARTIFACT_FILES[name]
    digest = hashlib.sha256(data).hexdigest()
    parts = max(1, -(-len(data) // part_bytes))
    for k in range(parts):
        event = Artifact(name=file_name, media_type=media_type, sha256=digest, size=len(data), part=k + 1, parts=parts)
        yield event, data[k * part_bytes : (k + 1) * part_bytes]


def warps(previews: Sequence[Sequence[bytes]], fps: float) -> bytes:
    """What each view contributes, side by side: one video a view (of consecutive chunks) -> one mp4."""
    views = [chain.from_iterable(_new_frames(part, k) for k, part in enumerate(parts)) for parts in previews]
    return Mosaic(views, labels=[f"view {i}" for i in range(len(views))]).encode(fps)


def _new_frames(part: bytes, chunk: int) -> Iterator[Tensor]:
    """The pictures of one chunk's preview; a later chunk starts with the last picture of the one before."""
    # One thread a decoder: each thread would hold a picture of its own.
    return islice(decode_video(part, threads=1), 0 if chunk == 0 else 1, None)


def points(scene: Scene, min_confidence: float) -> bytes:
    """The cache as a point cloud, in the frame and unit of camera paths."""
    return write_ply(*point_cloud(scene, min_confidence))


def cameras(path: Cameras, size: tuple[int, int], fps: float) -> bytes:
    """The camera of every output frame, in the form that `gen3c generate --cameras` takes."""
    poses = [Pose(w2c=w2c.tolist(), K=K.tolist()) for w2c, K in zip(path.w2c, path.K, strict=True)]
    height, width = size
    return CameraFile(poses=poses, width=width, height=height, fps=fps).model_dump_json(exclude_none=True).encode()


def geometry(result: Geometry, frames: Frames) -> bytes:
    """Depth and cameras in the layout that provider `file` reads (gen3c.geometry.files)."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        depth=result.depth.numpy(),
        confidence=result.confidence.numpy(),
        w2c=result.w2c.numpy(),
        K=result.K.numpy(),
        sizes=frames.sizes.numpy(),
    )
    return buffer.getvalue()
