"""Artifacts as programs: each graph behind the same named tensors as the network it was made from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Artifact, Graph, check_files
from gen3c.program import Program, Signature

Runner = Callable[[Sequence[Tensor]], Sequence[Tensor]]  # a loaded graph: inputs and outputs in the signature's order


class ExportedProgram:
    """Graphs of one network as a `Program`; each call goes to the graph that was made for its sizes."""

    def __init__(self, signature: Signature, graphs: Sequence[tuple[Graph, Runner]]) -> None:
        self._signature = signature
        self._graphs = list(graphs)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once. Raises InvalidInputError if `inputs` do not fit the signature, or no graph has their sizes."""
        arguments = self._signature.arguments(inputs)
        run = self._runner(sizes_of(self._signature, arguments))
        outputs = run(arguments)
        return {spec.name: output for spec, output in zip(self._signature.outputs, outputs, strict=True)}

    def _runner(self, sizes: Mapping[str, int]) -> Runner:
        for graph, run in self._graphs:
            if takes(graph, sizes):
                return run
        given = {symbol: size for symbol, size in sizes.items() if any(symbol in _open(g) for g, _ in self._graphs)}
        legal = " or ".join(_described(graph, given) for graph, _ in self._graphs)
        raise InvalidInputError(
            f"Program {self._signature.name} was called with {_listed(given)}; it was built for {legal}."
        )


def takes(graph: Graph, sizes: Mapping[str, int]) -> bool:
    """Whether a graph was made for inputs of these sizes."""
    fixed = all(graph.sizes.get(symbol, size) == size for symbol, size in sizes.items())
    return fixed and all(
        range_.least <= sizes[symbol] <= range_.most for symbol, range_ in graph.dynamic.items() if symbol in sizes
    )


def sizes_of(signature: Signature, arguments: Sequence[Tensor]) -> dict[str, int]:
    """The size of every symbol of the inputs, which fit the signature."""
    return {
        symbol: size
        for spec, tensor in zip(signature.inputs, arguments, strict=True)
        for symbol, size in zip(spec.shape, tensor.shape, strict=True)
        if isinstance(symbol, str)
    }


def open_artifact(
    artifact: Artifact, signature: Signature, folder: Path, device: torch.device, threads: int
) -> Program:
    """The artifact whose files lie in `folder`, loaded; `threads` are a CPU's.

    Raises InvalidInputError for a file that is not the one that was built, or that its runtime refuses, and for a kind
    that a python model cannot run.
    """
    check_files(artifact, folder)
    loaders: dict[str, Callable[[Path], Runner]] = {
        "onnx": lambda path: onnx_runner(path, threads),
        "aoti": lambda path: aoti_runner(path, device, signature),
    }
    if artifact.kind not in loaders:
        raise InvalidInputError(f"{artifact.program} is {artifact.kind}, which has no runtime of its own here.")
    graphs = []
    for graph in artifact.graphs:
        try:
            graphs.append((graph, loaders[artifact.kind](folder / graph.file)))
        except Exception as error:  # a runtime's own types have no common one
            first = str(error).partition("\n")[0]
            raise InvalidInputError(
                f"{artifact.program}: {graph.file} cannot be loaded: {first}", "artifact"
            ) from error
    return ExportedProgram(signature, graphs)


def onnx_runner(path: Path, threads: int) -> Runner:
    """An ONNX file in ONNX Runtime, on `threads` cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Several models share the cores: threads that spin while they wait take them from whoever works.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    types = {value.name: _ONNX_TYPES[value.type] for value in session.get_inputs()}

    def run(arguments: Sequence[Tensor]) -> list[Tensor]:
        feeds = {
            name: tensor.detach().to("cpu", types[name]).contiguous().numpy()
            for name, tensor in zip(names, arguments, strict=True)
        }
        return [torch.from_numpy(output) for output in session.run(None, feeds)]

    return run


_ONNX_TYPES = {"tensor(float)": torch.float32, "tensor(uint8)": torch.uint8, "tensor(int64)": torch.int64}


def aoti_runner(path: Path, device: torch.device, signature: Signature) -> Runner:
    """An AOTInductor package on `device`, the kind of device that it was compiled for."""
    index = device.index if device.type == "cuda" and device.index is not None else -1
    package = torch._inductor.aoti_load_package(str(path), device_index=index)
    types = [spec.cpu_dtype if device.type == "cpu" else spec.gpu_dtype for spec in signature.inputs]

    def run(arguments: Sequence[Tensor]) -> Sequence[Tensor]:
        placed = [tensor.to(device, dtype).contiguous() for tensor, dtype in zip(arguments, types, strict=True)]
        outputs: Tensor | Sequence[Tensor] = package(*placed)
        return [outputs] if isinstance(outputs, Tensor) else outputs

    return run


def _open(graph: Graph) -> set[str]:
    return {*graph.sizes, *graph.dynamic}


def _described(graph: Graph, given: Mapping[str, int]) -> str:
    parts = [f"{symbol}={size}" for symbol, size in graph.sizes.items() if symbol in given]
    parts += [f"{symbol}={r.least}..{r.most}" for symbol, r in graph.dynamic.items() if symbol in given]
    return " ".join(parts)


def _listed(sizes: Mapping[str, int]) -> str:
    return " ".join(f"{symbol}={size}" for symbol, size in sizes.items())
