"""Which check judges which file."""

from tests.golden import buffers, encodings, networks, sampling, selector, trajectories, warp
from tests.golden.vectors import Check

_GEN3C = (warp, selector, buffers, trajectories, networks, encodings, sampling)

# By folder and file, without the suffix: gen3c/warp.
CHECKS: dict[str, Check] = {f"gen3c/{stem}": check for module in _GEN3C for stem, check in module.CHECKS.items()}
