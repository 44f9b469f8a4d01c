"""Which check judges which file."""

from tests.golden import (
    buffers,
    encodings,
    networks,
    sampling,
    selector,
    trajectories,
    vggt_geometry,
    vggt_networks,
    warp,
)
from tests.golden.vectors import Check

_GEN3C = (warp, selector, buffers, trajectories, networks, encodings, sampling)
_VGGT = (vggt_networks, vggt_geometry)

# By folder and file, without the suffix: gen3c/warp.
CHECKS: dict[str, Check] = {
    f"{folder}/{stem}": check
    for folder, modules in (("gen3c", _GEN3C), ("vggt", _VGGT))
    for module in modules
    for stem, check in module.CHECKS.items()
}
