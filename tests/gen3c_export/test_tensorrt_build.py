"""TensorRT takes our ONNX files: its parser has no complaint, and its builder makes a plan, for which it needs no GPU.

What a plan computes shows only on a GPU that TensorRT for RTX knows. The tests are skipped where its wheels (0.1 GB,
0.25 GB unpacked, under NVIDIA's licence) are not installed; this installs them:

    .venv/bin/python -m pip install --constraint constraints.txt --editable ".[tensorrt-rtx]"
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gen3c.generator.dit import Dit
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER, symbols
from gen3c.generator.vae import AnyVae, VideoDecoder, VideoEncoder, build_vae
from gen3c.geometry.vggt.block import Block
from gen3c.geometry.vggt.model import Vggt, VggtProgram
from gen3c.geometry.vggt.rope import patch_positions, rope_tables
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import GEN3C_7B, TINY, VGGT_1B, VGGT_TINY, DitConfig, LightVaeConfig, VaeConfig
from gen3c.program import Signature, TensorSpec
from gen3c.weight_files import HeldWeight, LazyTensor
from gen3c_export.onnx_file import export_onnx
from gen3c_export.onnx_stream import OPSET, export_onnx_streamed
from gen3c_export.tensorrt_engine import Engine, Profile, build_engine, plan_name
from tests.cosmos import COSMOS_VAE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")]

ADA = (8, 9)  # built for whatever GPU is here
FRAMES = (1, 3, 12)  # least, typical and most that a plan is made for
BATCH = (1, 1, 2)  # without and with guidance
TOKENIZERS = pytest.mark.parametrize("config", [TINY.vae, COSMOS_VAE], ids=["light", "cosmos"])

ROWS, COLUMNS = 12, 20  # patches
TOKENS = VGGT_1B.special_tokens + ROWS * COLUMNS
LAYER = Signature(
    "layer",
    (TensorSpec("TOKENS", ("s", TOKENS, "c"), gpu_dtype=torch.float32),),
    (TensorSpec("OUT", ("s", TOKENS, "c"), gpu_dtype=torch.float32),),
)


class Layer(nn.Module):
    """A frame block and a global one of the aggregator, at the released network's width and in its arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Block(VGGT_1B.width, VGGT_1B.heads, VGGT_1B.mlp_ratio, qk_norm=True) for _ in range(2)]
        self.blocks = nn.ModuleList(blocks)
        # As `Vggt.narrow` does. Plans are strongly typed, so these layers run in bfloat16 and the rest in float32:
        # that builds without a GPU, as float32 everywhere does.
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.to(torch.bfloat16)

    def forward(self, tokens: Tensor) -> Tensor:
        frames = tokens.shape[0]
        tables = rope_tables(
            patch_positions(ROWS, COLUMNS, VGGT_1B.special_tokens), VGGT_1B.width // VGGT_1B.heads, VGGT_1B.rope_base
        )
        within = self.blocks[0](tokens, tables)
        everywhere = tuple(table.repeat(frames, 1, 1) for table in tables)
        over_all: Tensor = self.blocks[1](within.reshape(1, frames * TOKENS, -1), everywhere)
        return over_all.reshape(tokens.shape)


@pytest.fixture(scope="module")
def trt() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")


def build(trt: Any, path: Path, profiles: Sequence[Profile] = ()) -> Engine:
    """A plan of the graph, which holds its weights."""
    plan = path.with_name(plan_name(path.stem, ADA))
    engine = build_engine(path, plan, profiles=profiles, capability=ADA, trt=trt)
    print(f"{engine.layers} layers, {engine.size / 1e6:.1f} MB, {engine.seconds:.1f} s")
    assert engine.path == plan
    assert engine.size == plan.stat().st_size
    assert engine.size > 0.9 * path.with_name(f"{path.name}.data").stat().st_size
    return engine


def noise(module: nn.Module) -> dict[str, LazyTensor]:
    """Weights for a module on the meta device: zeros would be folded away."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: HeldWeight(torch.randn(tensor.shape, generator=generator).mul_(0.02).to(tensor.dtype))
        for name, tensor in module.state_dict().items()
    }


def empty_vae(config: VaeConfig | LightVaeConfig) -> AnyVae:
    """A tokenizer as it is on a GPU; call it on the meta device."""
    vae = build_vae(config, TINY.latent_shape[0]).to(torch.bfloat16)
    vae.latents_mean, vae.latents_std = vae.latents_mean.float(), vae.latents_std.float()
    return vae


def test_vggt_builds_for_any_number_of_frames(trt: Any, tmp_path: Path) -> None:
    program = VggtProgram(Vggt(VGGT_TINY, points=False), frames_at_once=None)
    example = torch.zeros(3, VGGT_TINY.patch * ROWS, VGGT_TINY.patch * COLUMNS, 3, dtype=torch.uint8)
    export_onnx(program, VGGT, {"IMAGES": example}, tmp_path / "vggt.onnx", dynamic=["s"])
    build(trt, tmp_path / "vggt.onnx", [{"s": FRAMES}])


def test_vggt_builds_in_the_types_of_a_gpu(trt: Any, tmp_path: Path) -> None:
    with torch.device("meta"):
        vggt = Vggt(VGGT_TINY, points=False).narrow(torch.bfloat16)
    program = VggtProgram(vggt, frames_at_once=None)
    sizes = {"s": 3, "H": VGGT_TINY.patch * ROWS, "W": VGGT_TINY.patch * COLUMNS}
    export_onnx_streamed(program, VGGT, sizes, tmp_path / "vggt.onnx", weights=noise(program), dynamic=["s"])
    build(trt, tmp_path / "vggt.onnx", [{"s": FRAMES}])


def test_a_layer_of_the_released_width_builds_in_bfloat16(trt: Any, tmp_path: Path) -> None:
    example = torch.zeros(3, TOKENS, VGGT_1B.width)
    export_onnx(Layer(), LAYER, {"TOKENS": example}, tmp_path / "layer.onnx", dynamic=["s"])
    build(trt, tmp_path / "layer.onnx", [{"s": FRAMES}])


def export_dit(path: Path, config: DitConfig, sizes: dict[str, int], opset: int) -> None:
    with torch.device("meta"):
        dit = Dit(config).to(torch.bfloat16)
    export_onnx_streamed(dit, DIT, sizes, path, weights=noise(dit), dynamic=["batch"], opset=opset)


@pytest.mark.parametrize("opset", [OPSET, 23])  # with attention as nodes of their own
def test_the_diffusion_transformer_builds_for_one_and_two_rows(opset: int, trt: Any, tmp_path: Path) -> None:
    export_dit(tmp_path / "dit.onnx", TINY.dit, symbols(TINY, batch=2), opset)
    build(trt, tmp_path / "dit.onnx", [{"batch": BATCH}])


@pytest.mark.parametrize("opset", [OPSET, 23])
def test_a_block_of_the_released_width_builds_with_both_ends_of_the_network(
    opset: int, trt: Any, tmp_path: Path
) -> None:
    one_block = dataclasses.replace(GEN3C_7B.dit, layers=1)
    export_dit(tmp_path / "dit.onnx", one_block, symbols(GEN3C_7B, batch=2) | {"t": 2, "h": 16, "w": 24}, opset)
    build(trt, tmp_path / "dit.onnx", [{"batch": BATCH}])


@TOKENIZERS
def test_the_encoder_builds(config: VaeConfig | LightVaeConfig, trt: Any, tmp_path: Path) -> None:
    with torch.device("meta"):
        encoder = VideoEncoder(empty_vae(config))
    path = tmp_path / "encoder.onnx"
    export_onnx_streamed(encoder, VIDEO_ENCODER, symbols(TINY), path, weights=noise(encoder))
    build(trt, path)


@TOKENIZERS
def test_the_decoder_builds_and_gives_bytes(config: VaeConfig | LightVaeConfig, trt: Any, tmp_path: Path) -> None:
    with torch.device("meta"):
        decoder = VideoDecoder(empty_vae(config))
    path = tmp_path / "decoder.onnx"
    export_onnx_streamed(decoder, VIDEO_DECODER, symbols(TINY), path, weights=noise(decoder))
    build(trt, path)
