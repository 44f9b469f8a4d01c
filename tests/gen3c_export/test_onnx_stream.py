"""Streamed ONNX files hold a checkpoint's weights, each once and in place, and compute what PyTorch does with them."""

import dataclasses
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from onnxscript import ir
from safetensors.torch import load_file
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, VIDEO_ENCODER
from gen3c.generator.vae import Vae, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import TINY, VaeConfig
from gen3c.program import Signature, TensorSpec
from gen3c.weight_files import HeldWeight, LazyTensor, stored_weights
from gen3c_export.onnx_file import export_onnx
from gen3c_export.onnx_stream import ALIGNMENT, OPSET, export_onnx_streamed
from gen3c_export.writer import Weight, write_component

# A warning of torch about its own code.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")

PRESET = dataclasses.replace(TINY, dit=dataclasses.replace(TINY.dit, layers=1))
SIZES = {"batch": 2, "t": 2, "h": 8, "w": 12, "text_tokens": 8, "text_dim": PRESET.dit.text_dim}
PREFIX = "transformer."  # of the names of the program's weights before those of the checkpoint

SMALL = Signature("small", (TensorSpec("X", ("n", 3)),), (TensorSpec("Y", ("n", 2)),))


def example(signature: Signature, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sizes.get("batch", 0))
    inputs = {spec.name: torch.randn(spec.sizes(sizes), generator=generator) for spec in signature.inputs}
    return inputs | ({"FPS": torch.full_like(inputs["FPS"], 12.0)} if "FPS" in inputs else {})


def run(path: Path, inputs: Mapping[str, Tensor]) -> Tensor:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0])


def as_numpy(tensor: Tensor) -> np.ndarray:
    """An array of the tensor's type, which numpy itself need not know."""
    if tensor.dtype != torch.bfloat16:
        return tensor.numpy()
    return tensor.view(torch.int16).numpy().view(ir.DataType.BFLOAT16.numpy())


def relative(found: Tensor, wanted: Tensor) -> float:
    """Relative L2 distance."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def on_meta(dtype: torch.dtype = torch.float32) -> Dit:
    with torch.device("meta"):
        return Dit(PRESET.dit).to(dtype)


@dataclasses.dataclass(frozen=True)
class Written:
    """A tensor that `write_component` takes."""

    tensor: Tensor

    @property
    def numel(self) -> int:
        return self.tensor.numel()

    def read(self) -> Tensor:
        return self.tensor


@pytest.fixture(scope="module")
def dit() -> Dit:
    """Random weights with which every part matters."""
    dit = load_dit(PRESET, untrained_seed=3)[0]
    generator = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        if parameter.ndim == 1:  # gains
            parameter.mul_(1 + 0.2 * torch.randn(parameter.shape, generator=generator))
    return dit


@pytest.fixture(scope="module")
def shards(dit: Dit, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A checkpoint of more than one file."""
    root: Path = tmp_path_factory.mktemp("checkpoint")
    weights = {key: Weight(Written(tensor), torch.float32) for key, tensor in dit.transformer.state_dict().items()}
    write_component(root, "transformer", {}, weights, shard_bytes=1_000_000)
    files = sorted((root / "transformer").glob("*.safetensors"))
    assert len(files) > 2
    return files


@pytest.fixture(scope="module")
def streamed(shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "dit.onnx"
    export_onnx_streamed(
        on_meta(), DIT, SIZES, path, weights=stored_weights(shards, PREFIX), dynamic=["batch"], gpu=False
    )
    return path


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_it_computes_what_pytorch_does(batch: int, dit: Dit, streamed: Path) -> None:
    inputs = example(DIT, SIZES | {"batch": batch})
    with torch.inference_mode():
        wanted = dit(*DIT.arguments(inputs))
    error = relative(run(streamed, inputs), wanted)
    print(f"batch {batch}: {error:.1e}")
    assert error < 1e-5  # rounding: 6e-7 here


def test_it_computes_what_the_file_of_a_network_in_memory_does(dit: Dit, streamed: Path, tmp_path: Path) -> None:
    inputs = example(DIT, SIZES)
    export_onnx(dit, DIT, inputs, tmp_path / "dit.onnx", dynamic=["batch"])
    assert relative(run(streamed, inputs), run(tmp_path / "dit.onnx", inputs)) < 1e-5


def check_weights(path: Path, wanted: Mapping[str, Tensor]) -> None:
    """Every tensor of `wanted` lies in the data file, aligned, apart from the others, with these bytes."""
    onnx.checker.check_model(path, full_check=True)
    graph = ir.load(path).graph
    outside = {
        name: v.const_value for name, v in graph.initializers.items() if isinstance(v.const_value, ir.ExternalTensor)
    }
    assert outside.keys() == wanted.keys()
    end = 0
    for name, tensor in sorted(outside.items(), key=lambda item: item[1].offset):
        assert tensor.location == f"{path.name}.data"
        assert end <= tensor.offset < end + ALIGNMENT
        assert tensor.offset % ALIGNMENT == 0
        assert tensor.length == wanted[name].nbytes
        assert tuple(tensor.shape) == tuple(wanted[name].shape)
        assert tensor.tobytes() == wanted[name].contiguous().view(torch.uint8).numpy().tobytes()
        end = tensor.offset + tensor.length
    assert end == path.with_name(f"{path.name}.data").stat().st_size


def test_every_weight_is_in_the_file_as_in_the_checkpoint(shards: list[Path], streamed: Path) -> None:
    stored = {PREFIX + name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    check_weights(streamed, stored)
    assert sorted(path.name for path in streamed.parent.iterdir()) == ["dit.onnx", "dit.onnx.data"]


def test_the_file_is_plain_and_tells_nothing_of_this_machine(streamed: Path) -> None:
    model = onnx.load(streamed, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    content = streamed.read_bytes()
    for path in (__file__, torch.__file__, str(streamed.parent)):
        assert str(Path(path).parent).encode() not in content
    assert len(content) < 300_000


def test_a_graph_for_a_gpu_has_the_types_of_the_signature_and_the_network(
    dit: Dit, shards: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "dit.onnx"
    weights = stored_weights(shards, PREFIX)
    export_onnx_streamed(on_meta(torch.bfloat16), DIT, SIZES, path, weights=weights, dynamic=["batch"])
    check_weights(path, {name: weight.read().bfloat16() for name, weight in weights.items()})
    graph = onnx.load(path, load_external_data=False).graph
    types = {torch.float32: onnx.TensorProto.FLOAT, torch.bfloat16: onnx.TensorProto.BFLOAT16}
    for specs, values in ((DIT.inputs, graph.input), (DIT.outputs, graph.output)):
        assert [value.type.tensor_type.elem_type for value in values] == [types[spec.gpu_dtype] for spec in specs]
    # ONNX Runtime's CPU kernels lack bfloat16 ("Could not find an implementation for Add(14)"); ONNX's own have it.
    inputs = example(DIT, SIZES)
    typed = {spec.name: as_numpy(inputs[spec.name].to(spec.gpu_dtype)) for spec in DIT.inputs}
    output = torch.from_numpy(ReferenceEvaluator(str(path)).run(None, typed)[0].astype(np.float32))
    with torch.inference_mode():
        error = relative(output, dit(*DIT.arguments(inputs)))
    print(f"in bfloat16: {error:.1e}")
    assert 1e-4 < error < 0.03  # 8 bits: 0.016 here, PyTorch in bfloat16 is 0.008 away


def test_the_encoder_streams_with_its_statistics(tmp_path: Path) -> None:
    small = dataclasses.replace(TINY, vae=VaeConfig((16, 16, 16, 16), (16, 16, 16, 16), layers_per_block=1))
    vae, path = load_vae(small, untrained_seed=0)[0], tmp_path / "encoder.onnx"
    vae.latents_mean.copy_(torch.linspace(-1, 1, vae.latents_mean.numel()).view_as(vae.latents_mean))
    vae.latents_std.copy_(torch.linspace(0.5, 2, vae.latents_std.numel()).view_as(vae.latents_std))
    with torch.device("meta"):
        module = VideoEncoder(Vae(small.vae, small.latent_shape[0]))
    encoder, sizes = VideoEncoder(vae), {"batch": 1, "T": 9, "H": 32, "W": 48}
    weights = {name: HeldWeight(tensor) for name, tensor in encoder.state_dict().items()}
    export_onnx_streamed(module, VIDEO_ENCODER, sizes, path, weights=weights, gpu=False)
    inputs = example(VIDEO_ENCODER, sizes)
    with torch.inference_mode():
        assert relative(run(path, inputs), encoder(inputs["VIDEO"])) < 1e-5


class Two(nn.Module):
    """A weight that is used transposed, one that is used twice, one that no output depends on, and a buffer."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight
        self.last = nn.Parameter(torch.zeros(3, 2))
        self.unused = nn.Parameter(torch.zeros(5))
        self.register_buffer("table", torch.zeros(1, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()) @ self.last + self.table.T.T  # type: ignore[no-any-return]


@dataclasses.dataclass
class Counting:
    """Counts how often it is read."""

    name: str
    tensor: Tensor
    reads: Counter[str]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    def read(self) -> Tensor:
        self.reads[self.name] += 1
        return self.tensor


def two(**changed: Tensor | None) -> dict[str, LazyTensor]:
    """Weights of Two; `changed` replaces some, None takes one out."""
    shapes = {"first.weight": (3, 3), "first.bias": (3,), "second.weight": (3, 3), "second.bias": (3,)}
    shapes |= {"last": (3, 2), "unused": (5,), "table": (1, 2)}
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    changes = {name.replace("__", "."): tensor for name, tensor in changed.items()}
    return {name: HeldWeight(tensor) for name, tensor in (tensors | changes).items() if tensor is not None}


def empty_two() -> Two:
    with torch.device("meta"):
        return Two()


def export_two(path: Path, weights: Mapping[str, LazyTensor], module: nn.Module | None = None) -> None:
    export_onnx_streamed(module or empty_two(), SMALL, {"n": 2}, path, weights=weights, dynamic=["n"], gpu=False)


def test_each_weight_is_read_once_and_tied_ones_may_differ(tmp_path: Path) -> None:
    reads: Counter[str] = Counter()
    tensors = {name: weight.read() for name, weight in two().items()}
    export_two(tmp_path / "two.onnx", {name: Counting(name, tensor, reads) for name, tensor in tensors.items()})
    used = tensors.keys() - {"unused"}
    assert reads == dict.fromkeys(used, 1)
    check_weights(tmp_path / "two.onnx", {name: tensors[name] for name in used})
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    hidden = (x @ tensors["first.weight"].T + tensors["first.bias"]).relu()
    wanted = (hidden @ tensors["second.weight"].T + tensors["second.bias"]) @ tensors["last"] + tensors["table"]
    assert relative(run(tmp_path / "two.onnx", {"X": x}), wanted) < 1e-6


def test_the_module_stays_on_the_meta_device(tmp_path: Path) -> None:
    module = empty_two()
    export_two(tmp_path / "two.onnx", two(), module)
    assert module.training
    assert all(tensor.is_meta for tensor in module.state_dict().values())
    assert module.first.weight is module.second.weight


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            two(last=None, table=torch.zeros(2), more=torch.zeros(1)),
            r"3 problems\):\n  last is missing\n  more is unknown\n  table has shape \[2\], legal is \[1, 2\]",
        ),
        (two(last=torch.full((3, 2), float("nan"))), "last has values that are not finite"),
        (two(last=torch.zeros(3, 2, dtype=torch.int64)), "last is torch.int64, legal is torch.float32"),
        (two(last=torch.full((3, 2), 1e300, dtype=torch.float64)), "last has values beyond the range of float32"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_leave_nothing(
    weights: dict[str, LazyTensor], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        export_two(tmp_path / "two.onnx", weights)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    export_two(tmp_path / "two.onnx", two())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InvalidInputError):
        export_two(tmp_path / "two.onnx", two(last=torch.full((3, 2), float("inf"))))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(InvalidInputError, match=r"two.onnx needs 0.10 GB, but 0.00 GB are free"):
        export_two(tmp_path / "two.onnx", two())
    assert not list(tmp_path.iterdir())


class Constant(Two):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([1.5, 2.5])


class Hidden(Two):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("hidden", torch.zeros(2), persistent=False)


def test_a_network_with_values_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"last is on cpu; legal is a network on the meta device"):
        export_two(tmp_path / "two.onnx", two(), Two())
    with torch.device("meta"):
        hidden, constant = Hidden(), Constant()
    with pytest.raises(InvalidInputError, match="hidden is not in the state dict"):
        export_two(tmp_path / "two.onnx", two(), hidden)
    assert not list(tmp_path.iterdir())
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    export_two(tmp_path / "two.onnx", two())
    export_two(tmp_path / "constant.onnx", two(), constant)
    difference = run(tmp_path / "constant.onnx", {"X": x}) - run(tmp_path / "two.onnx", {"X": x})
    assert torch.allclose(difference, torch.tensor([1.5, 2.5]), atol=1e-6)


def test_sizes_that_lack_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="No size of n is given; small needs all of them"):
        export_onnx_streamed(empty_two(), SMALL, {"m": 1}, tmp_path / "two.onnx", weights=two())
    with pytest.raises(InvalidInputError, match="No input of small has the dynamic size 'm'"):
        export_onnx_streamed(empty_two(), SMALL, {"n": 2}, tmp_path / "two.onnx", weights=two(), dynamic=["m"])


def test_a_name_in_two_files_is_refused(tmp_path: Path, shards: list[Path]) -> None:
    shutil.copy(shards[0], tmp_path / "again.safetensors")
    with pytest.raises(InvalidInputError, match=r"is in again\.safetensors and in another file too"):
        stored_weights([*shards, tmp_path / "again.safetensors"])
