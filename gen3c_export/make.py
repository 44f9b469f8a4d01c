"""How an artifact is made: a network with its weights in, the files of its graphs out, each compared with its twin."""

import hashlib
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import gen3c_export
from gen3c.errors import InvalidInputError
from gen3c.exported.machine import code_digest, digest_of, gpu_here, installed
from gen3c.exported.manifest import Artifact, Graph, Kind, Platform, files_of, tensors_of
from gen3c.exported.program import Runner, aoti_runner, onnx_runner
from gen3c.generator.dit import Dit
from gen3c.generator.fp8 import quantise
from gen3c.networks import Network, WeightSource, in_one_piece, network
from gen3c.program import Signature
from gen3c_export.compare import compare, described, tolerance_of
from gen3c_export.plans import GraphPlan, example_inputs
from gen3c_export.tensorrt_engine import build_engine, plan_name
from gen3c_export.tensorrt_flavours import load_tensorrt
from gen3c_export.tensorrt_runner import tensorrt_runner

logger = logging.getLogger(__name__)

_NETWORKS = ("torch", "diffusers", "transformers")  # whose layers the networks are made of
ENDINGS: dict[Kind, str] = {"onnx": ".onnx", "aoti": ".pt2"}
PACKAGES: dict[Kind, tuple[str, ...]] = {
    "onnx": (*_NETWORKS, "onnx", "onnx-ir", "onnxscript", "onnxruntime"),
    "aoti": (*_NETWORKS, "triton"),
    "tensorrt": (*_NETWORKS, "onnx", "onnx-ir", "onnxscript"),
    "pytorch": _NETWORKS,
}


@dataclass(frozen=True)
class Request:
    """An artifact that is wanted."""

    program: str
    kind: Kind
    source: WeightSource
    device: torch.device
    plans: tuple[GraphPlan, ...]
    fp8: bool = False
    native: bool = False  # run by Triton's own backend, not by a python model
    reason: str = ""
    timing_cache: Path | None = None  # what TensorRT has measured on this GPU; without it the same plan takes longer

    @property
    def network(self) -> Network:
        return network(self.program)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: what the released networks run in on a GPU, float32 on a CPU."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    @property
    def platform(self) -> Platform:
        """Who runs it in Triton."""
        if self.kind == "tensorrt":
            return "tensorrt_plan"
        return "torch_aoti" if self.native else "python"

    @property
    def packages(self) -> dict[str, str]:
        """Versions of what makes it. Raises InvalidInputError if that is TensorRT, and there is none."""
        found = installed(PACKAGES[self.kind])
        if self.kind == "tensorrt":  # whose wheels have many names
            found["tensorrt"] = str(load_tensorrt().__version__)
        return found

    def key(self, weights: str) -> str:
        """A digest of all that the artifact depends on; `weights` names their contents."""
        gpu = gpu_here(self.device) if self.kind in ("aoti", "tensorrt") else None
        parts = {
            "program": self.program,
            "kind": self.kind,
            "preset": asdict(self.source.preset),
            "plans": [asdict(plan) | {"dynamic": {k: dict(r) for k, r in plan.dynamic.items()}} for plan in self.plans],
            "dtype": str(self.dtype),
            "fp8": self.fp8,
            "native": self.native,
            "weights": weights,
            "packages": self.packages,
            "gpu": gpu and gpu.capability,
            "code": [code_digest(), digest_of(gen3c_export, ("*.py",))],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def make(request: Request, weights: str, key: str, folder: Path) -> Artifact:
    """Write the artifact's files into `folder`. Raises InvalidInputError if a graph is too far from its twin."""
    started = time.monotonic()
    signature = request.network.signature
    graphs: list[Graph] = []
    if request.kind != "pytorch":
        module = _module(request) if request.kind != "tensorrt" else None  # whose weights pass one by one
        for plan in request.plans:
            graph = _engine(request, plan, folder) if module is None else _graph(request, module, plan, folder)
            logger.info("  %s", described(graph))
            _refuse_failures(request.program, graph)
            graphs.append(graph)
    on_gpu = request.device.type == "cuda"
    inputs_wire, outputs_wire = _wire_names(signature) if request.native and request.kind == "aoti" else ({}, {})
    return Artifact(
        program=request.program,
        kind=request.kind,
        dtype=str(request.dtype).removeprefix("torch."),
        quantised="fp8" if request.fp8 else "no",
        platform=request.platform,
        key=key,
        weights=weights,
        inputs=tensors_of(signature.inputs, on_gpu=on_gpu, wire=inputs_wire),
        outputs=tensors_of(signature.outputs, on_gpu=on_gpu, wire=outputs_wire),
        graphs=graphs,
        files=files_of(folder, sorted(path.name for path in folder.iterdir())),
        packages=request.packages,
        build_seconds=round(time.monotonic() - started, 1),
        reason=request.reason,
    )


def twin_of(request: Request) -> nn.Module:
    """The network in PyTorch, in the artifact's types and on its device."""
    return in_one_piece(request.network.load(request.source, request.device, request.dtype))


def runner_of(request_kind: Kind, path: Path, device: torch.device, signature: Signature) -> Runner:
    """A graph's file, loaded as a server does it."""
    if request_kind == "onnx":
        return onnx_runner(path, torch.get_num_threads())
    if request_kind == "tensorrt":
        return tensorrt_runner(path, device, signature)
    return aoti_runner(path, device, signature)


def _module(request: Request) -> nn.Module:
    module = twin_of(request)
    if not request.fp8:
        return module
    if not isinstance(module, Dit):
        raise InvalidInputError(f"{request.program} has no fp8 form; legal: dit.", field="fp8")
    return quantise(module)


def _graph(request: Request, module: nn.Module, plan: GraphPlan, folder: Path) -> Graph:
    signature = request.network.signature
    name = f"{plan.stem}{ENDINGS[request.kind]}"
    logger.info("  %s: exporting %s", request.program, name)
    example = example_inputs(signature, plan.example_sizes(), torch.Generator().manual_seed(0), request.device)
    exporters: Mapping[Kind, Callable[[], None]] = {
        "onnx": lambda: _export_onnx(module, signature, example, folder / name, plan),
        "aoti": lambda: _export_aoti(module, signature, example, folder / name, plan),
    }
    try:
        exporters[request.kind]()
    except (InvalidInputError, OSError):
        raise
    except Exception as error:  # of compilers, whose types have nothing in common
        first = str(error).strip().partition("\n")[0]
        raise InvalidInputError(
            f"{request.program}: {name} could not be exported ({type(error).__name__}: {first}).", field="artifact"
        ) from error
    twin = twin_of(request) if request.fp8 else module
    return _compared(request, twin, plan, folder / name)


def _engine(request: Request, plan: GraphPlan, folder: Path) -> Graph:
    """A TensorRT plan, and the graph that it is made of only as long as that takes."""
    from gen3c_export.tensorrt_graphs import export_graph, profile_of

    with tempfile.TemporaryDirectory(dir=folder, prefix="onnx-") as work:
        graph = Path(work) / f"{plan.stem}.onnx"
        logger.info("  %s: exporting %s", request.program, graph.name)
        export_graph(request.network, request.source, plan, graph)
        logger.info("  %s: TensorRT makes a plan of it", request.program)
        engine = build_engine(
            graph, Path(work) / "plan", profiles=[profile_of(plan)], timing_cache=request.timing_cache
        )
        path = engine.path.rename(folder / plan_name(plan.stem, engine.capability))
    if not torch.cuda.is_available():
        return Graph(file=path.name, sizes=dict(plan.sizes), dynamic=dict(plan.dynamic), checks=[])
    return _compared(request, twin_of(request), plan, path)


def _compared(request: Request, twin: nn.Module, plan: GraphPlan, path: Path) -> Graph:
    """The graph in that file, and how far it is from its twin."""
    signature = request.network.signature
    run = runner_of(request.kind, path, request.device, signature)
    tolerance = tolerance_of(str(request.dtype).removeprefix("torch."), "fp8" if request.fp8 else "no")
    checks = [
        compare(run, twin, signature, sizes, request.device, tolerance, secrets.randbelow(2**31))
        for sizes in plan.check_sizes()
    ]
    return Graph(file=path.name, sizes=dict(plan.sizes), dynamic=dict(plan.dynamic), checks=checks)


def _export_onnx(
    module: nn.Module, signature: Signature, example: Mapping[str, Tensor], path: Path, plan: GraphPlan
) -> None:
    from gen3c_export.onnx_file import export_onnx

    export_onnx(module, signature, example, path, dynamic=list(plan.dynamic), runtime="onnxruntime")


def _export_aoti(
    module: nn.Module, signature: Signature, example: Mapping[str, Tensor], path: Path, plan: GraphPlan
) -> None:
    from gen3c_export.aoti_file import export_aoti

    export_aoti(module, signature, example, path, dynamic=list(plan.dynamic))


def _refuse_failures(program: str, graph: Graph) -> None:
    for check in graph.checks:
        if not check.ok:
            raise InvalidInputError(
                f"{program}: {graph.file} differs from PyTorch by {check.error:.1e} at {check.sizes}; legal is "
                f"{check.tolerance:.0e}.",
                field="artifact",
            )


def _wire_names(signature: Signature) -> tuple[dict[str, str], dict[str, str]]:
    """What Triton's PyTorch backend calls the tensors of a compiled package."""
    inputs = {spec.name: f"INPUT__{i}" for i, spec in enumerate(signature.inputs)}
    return inputs, {spec.name: f"OUTPUT__{i}" for i, spec in enumerate(signature.outputs)}
