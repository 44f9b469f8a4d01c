"""Encoded pictures and videos <-> tensors. Knows nothing of geometry's methods, jobs or the wire."""

from gen3c.media.load import load_frames
from gen3c.media.mosaic import Mosaic
from gen3c.media.types import LoadedMedia, MediaItem, MediaLimits, Selection
from gen3c.media.video_in import decode_video
from gen3c.media.video_out import VideoWriter, encode_video

__all__ = [
    "LoadedMedia",
    "MediaItem",
    "MediaLimits",
    "Mosaic",
    "Selection",
    "VideoWriter",
    "decode_video",
    "encode_video",
    "load_frames",
]
