"""What TensorRT makes plans of: every network as an ONNX graph, in the types that it has on a GPU, made without one.

`gen3c-export build --target tensorrt` makes such graphs itself, where it makes the plans. `gen3c-export onnx` leaves
them, for whoever looks into one or gives it to another builder, such as `trtexec`:

<out>/<preset>-tensorrt-onnx/graphs.json                 what they were made from, and the ranges of their open sizes
<out>/<preset>-tensorrt-onnx/<program>/model.onnx, model.onnx.data
"""

import json
import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from gen3c.geometry.vggt.weights import find_vggt
from gen3c.networks import Network, WeightSource, networks_of
from gen3c.program import Signature
from gen3c_export.onnx_stream import OPSET, export_onnx_streamed
from gen3c_export.plans import GraphPlan, engine_plan, graph_plans
from gen3c_export.tensorrt_engine import Profile

logger = logging.getLogger(__name__)

DTYPE = torch.bfloat16  # of the weights; what VGGT and the statistics keep in float32 stays so
RECORD = "graphs.json"


def export_graph(network: Network, source: WeightSource, plan: GraphPlan, path: Path) -> None:
    """Write the graph to `path`, its weights beside it. Raises InvalidInputError for weights that do not fit."""
    streamed = network.streamed(source, DTYPE)
    sizes, dynamic = plan.example_sizes(), list(plan.dynamic)
    export_onnx_streamed(
        streamed.module, network.signature, sizes, path, weights=streamed.weights, dynamic=dynamic, opset=OPSET
    )


def profile_of(plan: GraphPlan) -> Profile:
    """The ranges of its open sizes, as a plan is made for them."""
    return {symbol: (open_.least, open_.usual, open_.most) for symbol, open_ in plan.dynamic.items()}


def export_graphs(source: WeightSource, out: Path) -> Path:
    """Write the graphs of all networks below `out`; returns their folder.

    The record is written last and removed first: where there is one, the graphs are whole and of one run. Raises
    InvalidInputError for weights that cannot be used, or if the disk is too small.
    """
    folder = out / f"{source.preset.name}-tensorrt-onnx"
    (folder / RECORD).unlink(missing_ok=True)
    vggt = find_vggt(source.vggt, source.checkpoints).config
    graphs: dict[str, Any] = {}
    networks = networks_of(source)
    for number, (name, network) in enumerate(networks.items(), 1):
        plan = engine_plan(graph_plans(name, source.preset, vggt))
        path = folder / name / f"{plan.stem}.onnx"
        export_graph(network, source, plan, path)
        size = sum(file.stat().st_size for file in (path, path.with_name(f"{path.name}.data")))
        logger.info("[%d/%d] %s: %.1f MB", number, len(networks), name, size / 1e6)
        graphs[name] = {
            "file": path.relative_to(folder).as_posix(),
            "weights": str(network.provenance(source)),
            "sizes": dict(plan.sizes),
            "dynamic": {symbol: open_.model_dump() for symbol, open_ in plan.dynamic.items()},
            "trtexec": " ".join(_trtexec(network.signature, plan, path.relative_to(folder))),
        }
    record = {"preset": source.preset.name, "gen3c": version("gen3c-triton"), "opset": OPSET, "graphs": graphs}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return folder


def _trtexec(signature: Signature, plan: GraphPlan, path: Path) -> Iterator[str]:
    """A command that makes the plan that `build` makes, to be run in the folder."""
    yield f"trtexec --stronglyTyped --noTF32 --onnx={path} --saveEngine={path.with_suffix('.plan')}"
    ranges = profile_of(plan)
    for k, flag in enumerate(("minShapes", "optShapes", "maxShapes") if ranges else ()):
        sizes: Mapping[str, int] = {**plan.sizes, **{symbol: three[k] for symbol, three in ranges.items()}}
        shapes = [
            f"{spec.name}:{'x'.join(map(str, spec.sizes(sizes)))}"
            for spec in signature.inputs
            if any(size in ranges for size in spec.shape)
        ]
        yield f"--{flag}={','.join(shapes)}"
