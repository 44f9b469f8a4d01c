"""TensorRT takes our ONNX files: its parser has no complaint, and its builder makes a plan, for which it needs no GPU.

What a plan computes shows only on a GPU that TensorRT for RTX knows. The tests are skipped where its wheels (0.1 GB,
0.25 GB unpacked, under NVIDIA's licence) are not installed; this installs them:

    .venv/bin/python -m pip install --constraint constraints.txt --editable ".[tensorrt-rtx]"
"""

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gen3c.geometry.vggt.block import Block
from gen3c.geometry.vggt.model import Vggt, VggtProgram
from gen3c.geometry.vggt.rope import patch_positions, rope_tables
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_1B, VGGT_TINY
from gen3c.program import Signature, TensorSpec
from gen3c_export.onnx_file import export_onnx

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")]

FRAMES = (1, 3, 12)  # least, typical and most that a plan is made for
MIB = 2**20

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


def check_that_it_builds(trt: Any, path: Path) -> None:
    """Parse, and build for an Ada GPU whatever GPU is here, with a profile over the first axis of the only input."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    assert network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse_from_file(str(path))
    problems = [f"{error.node_name()}: {error.desc()}" for error in map(parser.get_error, range(parser.num_errors))]
    assert parsed, problems
    assert not problems

    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    (tensor,) = (network.get_input(i) for i in range(network.num_inputs))
    assert tensor.shape[0] == -1
    profile = builder.create_optimization_profile()
    profile.set_shape(tensor.name, *((frames, *tensor.shape[1:]) for frames in FRAMES))
    config.add_optimization_profile(profile)
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    print(f"{network.num_layers} layers, {plan.nbytes / MIB:.1f} MiB, {time.perf_counter() - started:.1f} s")
    weights = path.with_name(f"{path.name}.data").stat().st_size
    assert plan.nbytes > 0.9 * weights  # a plan carries them


def test_vggt_builds_for_any_number_of_frames(trt: Any, tmp_path: Path) -> None:
    program = VggtProgram(Vggt(VGGT_TINY, points=False), frames_at_once=None)
    example = torch.zeros(3, VGGT_TINY.patch * ROWS, VGGT_TINY.patch * COLUMNS, 3, dtype=torch.uint8)
    export_onnx(program, VGGT, {"IMAGES": example}, tmp_path / "vggt.onnx", dynamic=["s"])
    check_that_it_builds(trt, tmp_path / "vggt.onnx")


def test_a_layer_of_the_released_width_builds_in_bfloat16(trt: Any, tmp_path: Path) -> None:
    example = torch.zeros(3, TOKENS, VGGT_1B.width)
    export_onnx(Layer(), LAYER, {"TOKENS": example}, tmp_path / "layer.onnx", dynamic=["s"])
    check_that_it_builds(trt, tmp_path / "layer.onnx")
