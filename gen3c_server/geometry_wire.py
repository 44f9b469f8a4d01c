"""How a call of the `geometry` model looks as named tensors; written once, for the caller and the model.

The model is decoupled: responses with INFO alone report progress, the last one carries the geometry.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from gen3c.geometry.types import Frames, Geometry

Wire = dict[str, Tensor | list[bytes]]

OUTPUTS = ("INFO", "DEPTH", "CONFIDENCE", "W2C", "K")


@dataclass(frozen=True)
class GeometryOptions:
    """What to do, beside the frames."""

    provider: str
    seed: int = 0
    cancel_token: str = ""  # name of a file in the server's cancel directory; once it exists, the model stops


@dataclass(frozen=True)
class GeometryProgress:
    """`step` of `total` of a part of the work."""

    part: str
    step: int
    total: int


def pack_call(frames: Frames, options: GeometryOptions, file: bytes | None) -> Wire:
    """The inputs of one call; `file` is the npz of provider `file`."""
    names = [name.encode() for name in frames.names]
    inputs: Wire = {
        "FRAMES": frames.pixels,
        "SIZES": frames.sizes,
        "NAMES": names,
        "OPTIONS": [json.dumps(asdict(options)).encode()],
    }
    return inputs if file is None else inputs | {"GEOMETRY": [file]}


def unpack_call(wire: Mapping[str, Tensor | list[bytes]]) -> tuple[Frames, GeometryOptions, bytes | None]:
    """The arguments of one call."""
    pixels, sizes, names, options = (wire[name] for name in ("FRAMES", "SIZES", "NAMES", "OPTIONS"))
    if not isinstance(pixels, Tensor) or not isinstance(sizes, Tensor):
        raise TypeError("FRAMES and SIZES are numeric")
    frames = Frames(pixels, sizes, tuple(bytes(name).decode() for name in names))
    file = wire.get("GEOMETRY")
    return frames, GeometryOptions(**json.loads(bytes(options[0]))), bytes(file[0]) if file is not None else None


def pack_progress(progress: GeometryProgress) -> Wire:
    """A response on the way."""
    return {"INFO": [json.dumps(asdict(progress)).encode()]}


def pack_result(geometry: Geometry) -> Wire:
    """The last response."""
    info = {"info": geometry.info, "warnings": list(geometry.warnings)}
    return {
        "INFO": [json.dumps(info).encode()],
        "DEPTH": geometry.depth,
        "CONFIDENCE": geometry.confidence,
        "W2C": geometry.w2c,
        "K": geometry.K,
    }


def unpack_response(wire: Mapping[str, Tensor | list[bytes]]) -> GeometryProgress | Geometry:
    """One response of the stream."""
    info = json.loads(bytes(wire["INFO"][0]))
    if "DEPTH" not in wire:
        return GeometryProgress(**info)
    depth, confidence, w2c, K = (wire[name] for name in OUTPUTS[1:])
    return Geometry(depth, confidence, w2c, K, info["info"], tuple(info["warnings"]))  # type: ignore[arg-type]
