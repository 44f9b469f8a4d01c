"""Networks as ONNX files whose weights are never all in memory: gen3c-7b's 14.5 GB pass through 1.4 GB.

The network is built on PyTorch's meta device and traced with fake tensors, which have shapes and no values; so neither
weights nor activations take memory, however large. Optimisation, which torch cannot do on fake weights, follows with
weights of unknown value: nothing is folded that depends on one, and each keeps the checkpoint's layout. Then they are
read one by one, cast to the network's types and written to the file beside the graph, which is in the form that
TensorRT builds. Needs the optional extra `serve`.
"""

import copy
import logging
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import RemoveUnusedOpsetsPass
from onnxscript import ir, optimizer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from gen3c.errors import InvalidInputError
from gen3c.program import Signature
from gen3c.weight_files import LazyTensor, listing, value_problem
from gen3c_export.onnx_file import _check_fits, _checked_sizes, _resized, _without_collector
from gen3c_export.tensorrt_rewrites import rewrite

logger = logging.getLogger(__name__)

# The first in which convolutions take bfloat16 and group norms are one node. From 23 on attention is one too, which
# TensorRT for RTX builds in 16-bit types alone, and not of the VAE's single head.
OPSET = 22
ALIGNMENT = 4096  # bytes, of every weight's place in the file: the ONNX specification's for mapping it into memory
_SPARE_BYTES = 100_000_000  # for the graph itself


def export_onnx_streamed(
    module: nn.Module,
    signature: Signature,
    example_sizes: Mapping[str, int],
    path: Path,
    *,
    weights: Mapping[str, LazyTensor],
    dynamic: Collection[str] = (),
    gpu: bool = True,
    opset: int = OPSET,
) -> None:
    """Write `module` as an ONNX graph to `path`, with its weights in a file beside it: that name and `.data`.

    As `export_onnx`, for a module on the meta device: that one is left as it is, and is called as the signature says.
    `example_sizes` has the signature's symbols. The inputs have the types for a GPU, else those for a CPU. `weights`
    has every name of the module's state dict; floats are cast to the module's own type of that name. Both files appear
    when they are complete; after an exception what was there before is there still. From `opset` 23 on attention is
    one node, so that TensorRT must fuse it, or refuse the graph.

    Raises InvalidInputError as `export_onnx` does; if `module` is not on the meta device; with all names and shapes of
    `weights` that are not the module's; for the first one with values that are not finite, or not so in its type; or
    if the disk is too small. A module that fixes a size which is to be dynamic, or has tensors that are neither
    parameters nor buffers, fails with torch's own error.
    """
    parameters = module.state_dict()
    _check_meta(module, parameters)
    _check_weights(parameters, weights)
    model = _graph(module, signature, _fake_inputs(signature, example_sizes, gpu), dynamic, opset)
    found = set(model.graph.initializers) & set(parameters)
    for name in sorted(set(parameters) - found):
        logger.info("%s: no output depends on %s, which is left out.", path.name, name)
    needed = sum(_up(parameters[name].nbytes) for name in found) + _SPARE_BYTES
    with _replaced([path, path.with_name(f"{path.name}.data")], needed) as (graph_file, data_file):
        _write_weights(model.graph, {name: parameters[name].dtype for name in parameters}, weights, data_file)
        onnx.save(ir.to_proto(model), graph_file)


def _check_meta(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Raise InvalidInputError if a tensor of the module has a value that a state dict or the meta device would lose."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if not tensor.is_meta:
            raise InvalidInputError(f"{name} is on {tensor.device}; legal is a network on the meta device.")
        if name not in parameters:
            raise InvalidInputError(f"{name} is not in the state dict; legal are parameters and persistent buffers.")


def _check_weights(parameters: Mapping[str, Tensor], weights: Mapping[str, LazyTensor]) -> None:
    """Raise InvalidInputError with all that headers show to be wrong."""
    problems = [f"{name} is missing" for name in sorted(set(parameters) - set(weights))]
    problems += [f"{name} is unknown" for name in sorted(set(weights) - set(parameters))]
    for name in sorted(set(parameters) & set(weights)):
        shape, legal = list(weights[name].shape), list(parameters[name].shape)
        problems += [f"{name} has shape {shape}, legal is {legal}"] if shape != legal else []
    if problems:
        raise InvalidInputError(f"The weights do not fit the network {listing(problems)}", field="checkpoint")


def _fake_inputs(signature: Signature, sizes: Mapping[str, int], gpu: bool) -> tuple[Tensor, ...]:
    """Inputs without values; raises InvalidInputError if a symbol has no size."""
    symbols = {size for spec in signature.inputs for size in spec.shape if isinstance(size, str)}
    if lacking := sorted(symbols - set(sizes)):
        raise InvalidInputError(f"No size of {', '.join(lacking)} is given; {signature.name} needs all of them.")
    with FakeTensorMode():
        return tuple(torch.empty(s.sizes(sizes), dtype=s.gpu_dtype if gpu else s.cpu_dtype) for s in signature.inputs)


def _graph(
    module: nn.Module, signature: Signature, arguments: Sequence[Tensor], dynamic: Collection[str], opset: int
) -> ir.Model:
    """The network as a graph whose initializers have names, shapes and types, and no values."""
    sizes = _checked_sizes(signature, arguments, dynamic)
    dims = {symbol: torch.export.Dim(symbol) for symbol in dynamic}
    with _without_collector():
        program = torch.onnx.export(
            _faked(module, arguments),
            tuple(arguments),
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=tuple(
                {axis: dims[size] for axis, size in enumerate(spec.shape) if size in dims} for spec in signature.inputs
            ),
            opset_version=opset,
            custom_translation_table={torch.ops.aten._upsample_bicubic2d_aa.default: _resized},
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None  # only the other exporter returns None
    model: ir.Model = program.model
    parameters = set(module.state_dict())
    with _weights_as_inputs(model.graph, parameters):
        # Without the rewriting of `optimize_ir`, which takes minutes for what TensorRT does itself.
        for step in (optimizer.inline, optimizer.fold_constants, optimizer.remove_unused_nodes):
            step(model)
        rewrite(model)
        RemoveUnusedOpsetsPass()(model)
    _check_fits(signature, model.graph, sizes | {symbol: symbol for symbol in dynamic})
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with this machine's paths
    return model


@contextmanager
def _weights_as_inputs(graph: ir.Graph, names: Collection[str]) -> Iterator[None]:
    """Make weights inputs for a while, so that an optimiser takes their values for unknown; the unused ones go."""
    values = [graph.initializers.pop(name) for name in list(graph.initializers) if name in names]
    for value in values:
        value.const_value = None
    own = len(graph.inputs)
    graph.inputs.extend(values)
    yield
    del graph.inputs[own:]
    for value in values:
        if value.uses() or value.is_graph_output():
            graph.initializers.add(value)


def _faked(module: nn.Module, arguments: Sequence[Tensor]) -> nn.Module:
    """A copy of the module with tensors of the arguments' fake mode."""
    mode = next(argument.fake_mode for argument in arguments if isinstance(argument, FakeTensor))
    kinds = {name: (tensor.shape, tensor.dtype) for name, tensor in module.state_dict().items()}
    faked = copy.deepcopy(module).requires_grad_(False).eval()
    with mode:  # every name has a tensor of its own, so weights that were tied are written twice
        faked.load_state_dict({name: torch.empty(shape, dtype=d) for name, (shape, d) in kinds.items()}, assign=True)
    return faked


def _write_weights(
    graph: ir.Graph, dtypes: Mapping[str, torch.dtype], weights: Mapping[str, LazyTensor], path: Path
) -> None:
    """Write the initializers that have no value yet to `path`, one at a time, and let the graph point there."""
    with path.open("wb") as file:
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                continue
            tensor = _checked(name, weights[name], dtypes[name])
            file.write(bytes(_up(file.tell()) - file.tell()))
            offset = file.tell()
            tensor.reshape(-1).view(torch.uint8).numpy().tofile(file)
            value.const_value = ir.ExternalTensor(
                path.name, offset, tensor.nbytes, value.dtype, shape=value.shape, name=name, base_dir=path.parent
            )


def _checked(name: str, weight: LazyTensor, dtype: torch.dtype) -> Tensor:
    """The weight in the type that the graph has it in, contiguous; raises InvalidInputError if it cannot be."""
    tensor = weight.read()
    if tensor.shape != torch.Size(weight.shape):
        raise InvalidInputError(f"{name} has shape {list(tensor.shape)}, its file says {list(weight.shape)}.")
    if tensor.dtype != dtype and not (tensor.is_floating_point() and dtype.is_floating_point):
        raise InvalidInputError(f"{name} is {tensor.dtype}, legal is {dtype}.", field="checkpoint")
    if tensor.is_floating_point() and (problem := value_problem(tensor, dtype)):
        raise InvalidInputError(f"{name} {problem}.", field="checkpoint")
    return tensor.to(dtype).contiguous()


def _up(size: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@contextmanager
def _replaced(paths: Sequence[Path], needed: int) -> Iterator[list[Path]]:
    """Files of these names to write, which take their places at the end, the last one first; or vanish after a failure.

    Raises InvalidInputError if the disk has not `needed` bytes left.
    """
    folder = paths[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InvalidInputError(f"{paths[0].name} needs {needed / 1e9:.2f} GB, but {free / 1e9:.2f} GB are free.")
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{paths[0].name}.", suffix=".partial") as partial:
        written = [Path(partial) / path.name for path in paths]
        yield written
        for source, target in zip(reversed(written), reversed(paths), strict=True):
            source.replace(target)
