"""ONNX files as TensorRT plans, for Triton's tensorrt backend.

How plans are built, and why:
- **Strongly typed.** Types are those of the graph, which the network chose: bfloat16 products, float32 norms, angles
  and statistics. TensorRT's own choice among 16-bit types would differ from the eager network in ways no test has
  seen; and from TensorRT 11 on there is nothing else.
- **No TF32**, so that float32 in the graph is float32, as in PyTorch's products.
- **One GPU architecture a plan.** Plans for "Ampere and later" leave out kernels of Hopper, which is what TensorRT is
  for here. Files are called after the architecture, as Triton's `cc_model_filenames` has them.
- **One version.** Triton reads plans of its own TensorRT alone. Version-compatible plans carry a lean runtime, are
  slower, and Triton loads them only where it is told to trust them; so build in the container that serves.
- **Weights are in the plan, and stay as they are.** Refittable plans give up folding weights, and plans without
  weights, which are 100 times smaller, need someone who refits them on loading: Triton's backend does not. Weights
  change with a checkpoint, not in service, so a new checkpoint is a new build.
- **No weight streaming.** It runs networks that are larger than the GPU, for time; gen3c-7b has 14.5 GB of weights.

The host holds the weights about three times while a plan is built: expect 48 GB for gen3c-7b. Its plan is 1.8 GB larger
than the weights, for the learned positions of all patches are folded into it. `tensorrt` is not among this package's
extras: its version must be the serving Triton's (24.10 has 10.4), and pip would take the newest. `load_tensorrt` tells
what to install.
"""

import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from gen3c.errors import InvalidInputError
from gen3c.weight_files import listing
from gen3c_export.tensorrt_flavours import (
    Capability,
    aim,
    load_tensorrt,
    network_flags,
    process_logger,
    target,
    use_timing_cache,
    write_plan,
)

logger = logging.getLogger(__name__)

Sizes = tuple[int, int, int]  # least, usual (what a plan is made fast for) and most
Profile = Mapping[str, Sizes]  # of every open size of a graph, by its name there
_MOST_ERRORS = 5  # in a message; TensorRT reports one cause at every level above it


@dataclass(frozen=True)
class Engine:
    """A plan that was built."""

    path: Path
    capability: Capability
    version: str  # TensorRT's
    layers: int  # of the network before fusion
    size: int  # bytes
    seconds: float


def plan_name(stem: str, capability: Capability) -> str:
    """model_sm90.plan"""
    return f"{stem}_sm{capability[0]}{capability[1]}.plan"


def cc_model_filenames(stem: str, capabilities: Sequence[Capability]) -> dict[str, str]:
    """Triton's `cc_model_filenames`: {"9.0": "model_sm90.plan"}."""
    return {f"{major}.{minor}": plan_name(stem, (major, minor)) for major, minor in capabilities}


def build_engine(
    onnx_path: Path,
    plan_path: Path,
    *,
    profiles: Sequence[Profile] = (),
    timing_cache: Path | None = None,
    workspace_bytes: int | None = None,
    optimization_level: int | None = None,
    capability: Capability | None = None,
    trt: Any = None,
) -> Engine:
    """Build a plan from an ONNX file whose weights may lie beside it, and write it to `plan_path`.

    `profiles` has the range of every open size, once or several times: one optimisation profile each, by its place
    there. `timing_cache` is read if it is there and written after a success. `workspace_bytes` limits the scratch
    memory of a layer, None: all of the GPU's. `optimization_level` is 0 (fast to build) to 5, None: TensorRT's default.
    `capability` is what GPUs the plan is for, None: the one that is here. `trt` is the package, None: `tensorrt`.

    Raises InvalidInputError if there is no TensorRT or not for that GPU; if ranges lack, are unknown or not least to
    most; and with TensorRT's own words if it cannot read the graph or make a plan. Nothing is written then.
    """
    trt = load_tensorrt() if trt is None else trt
    if not onnx_path.is_file():
        raise InvalidInputError(f"There is no file {onnx_path}.")
    aimed = target(trt, capability)  # before a builder, which fails without words where there is no GPU
    started = time.perf_counter()
    log = process_logger(trt)
    log.errors.clear()
    builder = trt.Builder(log)
    config = builder.create_builder_config()
    aim(trt, config, aimed)
    network = builder.create_network(network_flags(trt))
    parser = trt.OnnxParser(network, log)  # the network refers to weights that the parser holds
    _parse(trt, parser, network, onnx_path)
    for profile in _profiles(network, profiles):
        _add_profile(builder, config, network, profile)
    config.clear_flag(trt.BuilderFlag.TF32)
    if workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    if optimization_level is not None:
        config.builder_optimization_level = optimization_level
    caching = timing_cache is not None and use_timing_cache(trt, config, timing_cache)
    with _replacing(plan_path) as file:
        if not write_plan(trt, builder, network, config, file):
            raise InvalidInputError(f"TensorRT makes no plan of {onnx_path.name} {_told(log.errors)}")
    if caching and timing_cache is not None:
        with _replacing(timing_cache) as file:
            file.write(memoryview(config.get_timing_cache().serialize()))
    engine = Engine(
        plan_path,
        aimed,
        str(trt.__version__),
        network.num_layers,
        plan_path.stat().st_size,
        time.perf_counter() - started,
    )
    logger.info("%s: %d layers, %.1f MB, %.0f s", plan_path.name, engine.layers, engine.size / 1e6, engine.seconds)
    return engine


def _parse(trt: Any, parser: Any, network: Any, path: Path) -> None:
    """Read the graph into the network; raises InvalidInputError with the parser's errors."""
    parsed = parser.parse_from_file(str(path))
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not parsed or errors:
        told = [f"{error.node_name()} ({error.node_operator()}): {error.desc()}" for error in errors]
        raise InvalidInputError(f"TensorRT cannot read {path.name} {_told(told)}")
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    assert flag is None or network.get_flag(flag)


def _profiles(network: Any, profiles: Sequence[Profile]) -> Sequence[Profile]:
    """`profiles` if they fit the network; raises InvalidInputError with all that is wrong."""
    names = {name for tensor in _inputs(network) for name in _sizes(tensor) if isinstance(name, str)}
    if names and not profiles:
        raise InvalidInputError(f"The graph leaves {', '.join(sorted(names))} open; a profile must give their ranges.")
    problems = []
    for i, profile in enumerate(profiles):
        problems += [f"profile {i} has no range of {name}" for name in sorted(names - set(profile))]
        problems += [f"profile {i}: the graph has no open size {name}" for name in sorted(set(profile) - names)]
        for name, (least, usual, most) in profile.items():
            if not 1 <= least <= usual <= most:
                problems.append(f"profile {i}: {name} is {least}, {usual}, {most}; legal are rising sizes from 1 on")
    if problems:
        raise InvalidInputError(f"The profiles do not fit the graph {listing(problems)}")
    return profiles if names else ()


def _add_profile(builder: Any, config: Any, network: Any, ranges: Profile) -> None:
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        sizes = _sizes(tensor)
        if any(isinstance(size, str) for size in sizes):
            shapes = [[ranges[size][k] if isinstance(size, str) else size for size in sizes] for k in range(3)]
            profile.set_shape(tensor.name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise InvalidInputError(f"TensorRT refuses the profile {dict(ranges)}.")


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(i) for i in range(network.num_inputs)]


def _sizes(tensor: Any) -> list[int | str]:
    """The shape with the names of open sizes."""
    return [
        (tensor.get_dimension_name(axis) or f"{tensor.name}[{axis}]") if size < 0 else size
        for axis, size in enumerate(tensor.shape)
    ]


def _told(messages: Sequence[str]) -> str:
    """TensorRT's messages for the end of ours, each on a line of its own."""
    lines = list(dict.fromkeys(" ".join(message.split()) for message in messages))
    more = [f"and {len(lines) - _MOST_ERRORS} more"] if len(lines) > _MOST_ERRORS else []
    return listing([*lines[:_MOST_ERRORS], *more]) if lines else "(it does not tell why)."


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` at the end, or vanishes after a failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
