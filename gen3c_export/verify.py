"""Artifacts of a built repository compared with PyTorch again, on inputs that nobody has seen."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from gen3c.errors import InvalidInputError
from gen3c.exported.machine import Machine, check_fits
from gen3c.exported.manifest import REPOSITORY, VERSION_FOLDER, Artifact, Check, Graph, Manifest
from gen3c.networks import WeightSource, network
from gen3c_export.compare import compare, tolerance_of
from gen3c_export.inspect import check_all_files
from gen3c_export.make import Request, runner_of, twin_of
from gen3c_export.plans import GraphPlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """One graph at one set of sizes."""

    program: str
    file: str
    check: Check

    @property
    def ok(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.check.ok

    def __str__(self) -> str:
        check = self.check
        sizes = " ".join(f"{symbol}={size}" for symbol, size in check.sizes.items())
        return (
            f"{'ok    ' if self.ok else 'FAILED'} {self.program} {self.file} ({sizes}): error {check.error:.2e}, legal "
            f"{check.tolerance:.0e}; {check.seconds:.4f} s, PyTorch {check.eager_seconds:.4f} s"
        )


def verify(folder: Path, source: WeightSource, seed: int) -> Iterator[Verdict]:
    """Compare every artifact of the repository in `folder` with its PyTorch twin, made from `source`.

    Raises InvalidInputError if the repository does not fit this machine, a file is not the one that was built, or
    `source` has other weights than the repository was built from.
    """
    manifest = Manifest.read(folder)
    check_fits(manifest, Machine.here(), source.preset.name)
    check_all_files(manifest, folder)
    device = torch.device("cpu" if manifest.target == "cpu" else "cuda")
    for name, artifact in manifest.artifacts.items():
        place = folder / REPOSITORY / name / VERSION_FOLDER
        found = str(network(name).provenance(source))
        if found != artifact.weights:
            raise InvalidInputError(
                f"{name} was built from {artifact.weights}, but the weights given are {found}; name those with "
                "--checkpoints and --vggt.",
                field="checkpoints",
            )
        if artifact.kind == "pytorch":
            logger.info("%s is served by PyTorch itself: %s.", name, artifact.reason)
            continue
        yield from _verdicts(name, artifact, place, source, device, seed)


def _verdicts(
    name: str, artifact: Artifact, place: Path, source: WeightSource, device: torch.device, seed: int
) -> Iterator[Verdict]:
    signature = network(name).signature
    request = Request(name, artifact.kind, source, device, ())
    tolerance = tolerance_of(artifact.dtype, artifact.quantised)
    twin = twin_of(request)
    for graph in artifact.graphs:
        run = runner_of(artifact.kind, place / graph.file, device, signature)
        for sizes in _plan(graph).check_sizes():
            yield Verdict(name, graph.file, compare(run, twin, signature, {**sizes}, device, tolerance, seed))


def _plan(graph: Graph) -> GraphPlan:
    return GraphPlan(Path(graph.file).stem, graph.sizes, graph.dynamic)
