"""What built repositories hold, and what of the artifacts beside them nobody needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import MANIFEST, REPOSITORY, VERSION_FOLDER, Artifact, Manifest, check_files
from gen3c_export.compare import described
from gen3c_export.store import BUSY, ArtifactStore, locked


def lines(manifest: Manifest) -> Iterator[str]:
    """A description for a person."""
    gpu = "any CPU" if manifest.gpu is None else f"{manifest.gpu.name} (compute capability {manifest.gpu.capability})"
    yield f"preset {manifest.preset}, target {manifest.target}, for {gpu}, by gen3c-triton {manifest.gen3c}"
    for name, artifact in manifest.artifacts.items():
        yield f"{name}: {_kind(artifact)}, {sum(file.size for file in artifact.files) / 1e6:.1f} MB"
        yield f"  weights: {artifact.weights}"
        for tensor, arrow in [*((t, "<-") for t in artifact.inputs), *((t, "->") for t in artifact.outputs)]:
            wire = "" if tensor.wire == tensor.name else f" (called {tensor.wire})"
            yield f"  {arrow} {tensor.name}{wire} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
        for graph in artifact.graphs:
            sizes = [f"{symbol}={size}" for symbol, size in graph.sizes.items()]
            sizes += [f"{symbol}={open_.least}..{open_.most}" for symbol, open_ in graph.dynamic.items()]
            yield f"  {described(graph)}; {' '.join(sizes)}"


def check_all_files(manifest: Manifest, folder: Path) -> None:
    """Read every file; raises InvalidInputError for the first that is not the one that was built."""
    for name, artifact in manifest.artifacts.items():
        check_files(artifact, folder / REPOSITORY / name / VERSION_FOLDER)


def remove_unused(out: Path, *, everything: bool) -> list[Path]:
    """Delete what no build in `out` uses; with `everything` the builds, too. Returns what went.

    Raises InvalidInputError while a build is under way, and for a build whose manifest cannot be read.
    """
    if not out.is_dir():
        raise InvalidInputError(f"{out} is no folder; legal is one that `gen3c-export build` wrote to.", field="out")
    if not (out / BUSY).exists():  # nothing was ever built here, and nothing is to be left here either
        return _remove_unused(out, everything=everything)
    try:
        with locked(out / BUSY, wait=False):
            return _remove_unused(out, everything=everything)
    except BlockingIOError:
        raise InvalidInputError(f"Something is being built in {out}; clean it afterwards.", field="out") from None


def _remove_unused(out: Path, *, everything: bool) -> list[Path]:
    # Converted checkpoints have a file of that name, too.
    builds = sorted(path.parent for path in out.glob(f"*/{MANIFEST}") if (path.parent / REPOSITORY).is_dir())
    removed = []
    for lock in sorted(out.glob(".*.lock")):
        removed += _removed([*out.glob(f"{lock.name.removesuffix('.lock')}.*.partial")])
    if everything:
        removed += _removed(builds)
        builds = []
    store = ArtifactStore(out)
    manifests = [Manifest.read(build) for build in builds]
    kept = {store.place(a.program, a.key) for manifest in manifests for a in manifest.artifacts.values()}
    return removed + store.remove_except(kept)


def _removed(folders: list[Path]) -> list[Path]:
    for folder in folders:
        # Its manifest first: without one it is no build any more.
        (folder / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return folders


def _kind(artifact: Artifact) -> str:
    words = {
        "onnx": "ONNX Runtime",
        "aoti": "AOTInductor",
        "tensorrt": "TensorRT",
        "pytorch": "PyTorch, not exported",
    }[artifact.kind]
    parts = [words if artifact.platform == "python" else f"{words} by {artifact.platform}", artifact.dtype]
    parts += [artifact.quantised] if artifact.quantised != "no" else []
    return ", ".join(parts) + (f" ({artifact.reason})" if artifact.reason else "")
