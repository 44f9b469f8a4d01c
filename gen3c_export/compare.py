"""An artifact beside its PyTorch twin: how far apart they are, and how long each takes."""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from gen3c.exported.manifest import Check, Graph
from gen3c.exported.program import Runner
from gen3c.program import Signature
from gen3c_export.plans import example_inputs

# Of |artifact - twin| / |twin|. In bfloat16 two right answers differ by their roundings.
TOLERANCES = {"float32": 1e-4, "bfloat16": 1e-2}
FP8_TOLERANCE = 1e-1  # float8 has three bits after the first one
ROUNDS = 3
MOST_WIDENED = 2_000_000_000  # parameters


def compare(
    run: Runner,
    twin: Callable[..., Tensor | Sequence[Tensor]],
    signature: Signature,
    sizes: Mapping[str, int],
    device: torch.device,
    tolerance: float,
    seed: int,
) -> Check:
    """Both on the same random inputs, in turns; in bfloat16 also beside the twin in float32, if that is small enough.

    Raises nothing of its own: whoever asks judges the error.
    """
    inputs = example_inputs(signature, sizes, torch.Generator().manual_seed(seed), device)
    arguments = signature.arguments(inputs)
    with torch.inference_mode():
        found, expected = _sequence(run(arguments)), _sequence(twin(*arguments))
        error = relative_error(found, expected)
        exact = _in_float32(twin, arguments) if tolerance == TOLERANCES["bfloat16"] else None
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for seconds, call in ((taken[0], lambda: run(arguments)), (taken[1], lambda: twin(*arguments))):
                seconds.append(_seconds(call, device))
    known = {symbol: size for symbol, size in sizes.items() if symbol in _symbols(signature)}
    return Check(
        sizes=known,
        error=error,
        tolerance=tolerance,
        seconds=statistics.median(taken[0]),
        eager_seconds=statistics.median(taken[1]),
        float32_error=None if exact is None else relative_error(found, exact),
        eager_float32_error=None if exact is None else relative_error(expected, exact),
    )


def relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """|found - expected| / |expected|, Euclidean, of the worst pair; infinite if one is not finite."""
    errors = []
    for ours, theirs in zip(found, expected, strict=True):
        reference = theirs.double().cpu()
        off = (ours.double().cpu() - reference).norm() / reference.norm().clamp(min=1e-30)
        errors.append(float(off) if off.isfinite() else float("inf"))
    return max(errors)


def tolerance_of(dtype: str, quantised: str) -> float:
    """How far an artifact of these types may be from its twin."""
    return FP8_TOLERANCE if quantised == "fp8" else TOLERANCES[dtype]


def described(graph: Graph) -> str:
    """A graph's checks in a few words: the worst error, and how much faster than eager it is."""
    if not graph.checks:
        return f"{graph.file}: not run"
    worst = max(graph.checks, key=lambda check: check.error / check.tolerance)
    usual = graph.checks[0]
    speed = usual.eager_seconds / usual.seconds
    verdict = "ok" if all(check.ok for check in graph.checks) else "FAILED"
    return (
        f"{graph.file}: error {worst.error:.1e} of {worst.tolerance:.0e}, {verdict}; "
        f"{usual.seconds:.3f} s, PyTorch {usual.eager_seconds:.3f} s ({speed:.2f}x)"
    )


def _sequence(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else outputs


def _in_float32(twin: Callable[..., Tensor | Sequence[Tensor]], arguments: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """What the twin gives with its weights and inputs in float32; None for one that is too large to hold twice."""
    if not isinstance(twin, nn.Module) or sum(p.numel() for p in twin.parameters()) > MOST_WIDENED:
        return None
    wide = [x.float() if x.is_floating_point() else x for x in arguments]
    return [x.cpu() for x in _sequence(copy.deepcopy(twin).float()(*wide))]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _symbols(signature: Signature) -> set[str]:
    return {symbol for spec in signature.inputs for symbol in spec.shape if isinstance(symbol, str)}
