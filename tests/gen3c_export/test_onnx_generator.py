"""The generator's programs as ONNX files compute what PyTorch does, for both runtimes."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import AnyVae, Vae, VideoDecoder, VideoEncoder
from gen3c.generator.weights import load_dit, load_vae
from gen3c.presets import TINY
from gen3c.program import LocalProgram, Signature, TensorSpec
from gen3c_export.onnx_file import FUSED_OPSET, OPSET, export_onnx
from tests.cosmos import TINY_COSMOS

# Warnings of torch about its own code.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*will not be used, since it shares the same shape constraints:UserWarning"),
]

# Relative L2. Sums in another order, over some 100 layers.
TOLERANCE = 1e-5
ONE_FRAME = {"T": 1, "t": 1}


def inputs(signature: Signature, sizes: dict[str, int], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = {spec.name: torch.randn(spec.sizes(sizes), generator=generator).clamp(-1, 1) for spec in signature.inputs}
    return {name: torch.full_like(value, 24.0 + seed) if name == "FPS" else value for name, value in values.items()}


def run(path: Path, feed: dict[str, Tensor]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in feed.items()})
    return output


def difference(module: nn.Module, signature: Signature, path: Path, sizes: dict[str, int], seed: int = 1) -> float:
    """|ONNX - PyTorch| / |PyTorch| for fresh inputs."""
    feed = inputs(signature, sizes, seed)
    (expected,) = LocalProgram(module, signature)(feed).values()
    output = torch.from_numpy(run(path, feed))
    assert (output.shape, output.dtype) == (expected.shape, expected.dtype)
    assert expected.double().std() > 0.03  # a constant would agree with anything
    return float((output.double() - expected.double()).norm() / expected.double().norm())


def operators(path: Path) -> Counter[str]:
    """How often a file has each; it must be a valid one, of the standard's operators alone."""
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    assert {node.domain for node in graph.node} == {""}
    return Counter(node.op_type for node in graph.node)


def opset(path: Path) -> list[tuple[str, int]]:
    return [(entry.domain, entry.version) for entry in onnx.load(path, load_external_data=False).opset_import]


@pytest.fixture(scope="module")
def dit() -> nn.Module:
    return load_dit(TINY, untrained_seed=0)[0]


@pytest.fixture(scope="module", params=[TINY, TINY_COSMOS], ids=["light", "cosmos"])
def vae(request: pytest.FixtureRequest) -> AnyVae:
    return load_vae(request.param, untrained_seed=0)[0]


def attentions(vae: AnyVae) -> int:
    """Of either half: Cosmos has one in space and one in time."""
    return 2 if isinstance(vae, Vae) else 0


@pytest.fixture(scope="module")
def dit_file(dit: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "dit.onnx"
    example = inputs(DIT, symbols(TINY, 2), seed=0)
    export_onnx(dit, DIT, example, path, dynamic=["batch"], runtime="onnxruntime")
    return path


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_transformer_takes_any_batch(batch: int, dit: nn.Module, dit_file: Path) -> None:
    assert difference(dit, DIT, dit_file, symbols(TINY, batch), seed=batch) < TOLERANCE


def test_the_transformer_is_made_of_whole_operators(dit_file: Path) -> None:
    found = operators(dit_file)
    layers = TINY.dit.layers
    assert opset(dit_file) == [("", FUSED_OPSET)]
    assert found["Attention"] == found["RotaryEmbedding"] == 2 * layers
    assert found["RMSNormalization"] == 4 * layers
    assert found["LayerNormalization"] == 3 * layers + 1
    assert found["Transpose"] == 2  # patches in and out: heads stay where linear layers have them
    assert found["Softmax"] == 0


@pytest.mark.parametrize(
    ("sizes", "runtime"), [({}, "onnxruntime"), (ONE_FRAME, "onnxruntime"), (ONE_FRAME, "tensorrt")]
)
def test_the_encoder(sizes: dict[str, int], runtime: str, vae: AnyVae, tmp_path: Path) -> None:
    path, encoder = tmp_path / "encoder.onnx", VideoEncoder(vae)
    example = inputs(VIDEO_ENCODER, symbols(TINY) | sizes, seed=0)
    export_onnx(encoder, VIDEO_ENCODER, example, path, runtime=runtime)  # type: ignore[arg-type]
    assert difference(encoder, VIDEO_ENCODER, path, symbols(TINY) | sizes) < TOLERANCE
    assert opset(path) == [("", OPSET if runtime == "tensorrt" else FUSED_OPSET)]
    found = operators(path)
    assert found["Attention"] == (0 if runtime == "tensorrt" else attentions(vae))
    assert found["GroupNormalization"] == 0


def test_the_decoder(vae: AnyVae, tmp_path: Path) -> None:
    path, decoder = tmp_path / "decoder.onnx", VideoDecoder(vae)
    export_onnx(decoder, VIDEO_DECODER, inputs(VIDEO_DECODER, symbols(TINY), seed=0), path, runtime="onnxruntime")
    # Bytes: one in ten thousand falls on the other side of a whole number.
    assert difference(decoder, VIDEO_DECODER, path, symbols(TINY)) < 1e-4
    assert operators(path)["Attention"] == attentions(vae)


class Modulated(nn.Module):
    """What looks like an adaptive norm and is none, because the shift is one for each token."""

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift


class Groups(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 6, eps=1e-2)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.norm(x)
        return normed + F.group_norm(x, 3)


@pytest.mark.parametrize(("tokens", "norms"), [("one", ("LayerNormalization",)), ("n", ("LayerNormalization", "Add"))])
def test_a_norm_takes_the_shift_that_it_can(tokens: str, norms: tuple[str, ...], tmp_path: Path) -> None:
    sizes = {"b": 2, "one": 1, "n": 5, "c": 8}
    signature = Signature(
        "modulated",
        (
            TensorSpec("X", ("b", "n", "c")),
            TensorSpec("SCALE", ("b", "one", "c")),
            TensorSpec("SHIFT", ("b", tokens, "c")),
        ),
        (TensorSpec("OUT", ("b", "n", "c")),),
    )
    path = tmp_path / "modulated.onnx"
    export_onnx(Modulated(), signature, inputs(signature, sizes, seed=0), path, runtime="onnxruntime")
    assert difference(Modulated(), signature, path, sizes) < 1e-6
    found = operators(path)
    assert found["Mul"] == len(norms) - 1
    assert found["LayerNormalization"] == 1


def test_groups_are_normed(tmp_path: Path) -> None:
    sizes = {"n": 2, "h": 4, "w": 5}
    signature = Signature("groups", (TensorSpec("X", ("n", 6, "h", "w")),), (TensorSpec("OUT", ("n", 6, "h", "w")),))
    path, module = tmp_path / "groups.onnx", Groups()
    export_onnx(module, signature, inputs(signature, sizes, seed=0), path, runtime="onnxruntime")
    assert difference(module, signature, path, sizes) < 1e-6
    assert operators(path)["InstanceNormalization"] == 2
