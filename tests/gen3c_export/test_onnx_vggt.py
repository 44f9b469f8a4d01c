"""ONNX files compute what PyTorch does: VGGT for any number of frames, and what no longer is the network is refused."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt.model import Vggt, VggtProgram
from gen3c.geometry.vggt.signature import VGGT
from gen3c.presets import VGGT_TINY
from gen3c.program import LocalProgram, Program, Signature, TensorSpec
from gen3c_export.onnx_file import OPSET, export_onnx

# A warning of torch about its own code.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")]

SIZE = (168, 280)  # px: 12 x 20 patches, so the position table, which has 20 x 20, is resized
FRAMES = (1, 2, 3, 5, 9, 12)

RESIZE = Signature("resize", (TensorSpec("IMAGE", ("n", 3, "h", "w")),), (TensorSpec("RESIZED", ("n", 3, "H", "W")),))


class Resize(nn.Module):
    def __init__(self, size: tuple[int, int], align_corners: bool) -> None:
        super().__init__()
        self.size, self.align_corners = size, align_corners

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image, self.size, mode="bicubic", antialias=True, align_corners=self.align_corners)


def network() -> VggtProgram:
    """Random weights with which every part matters and outputs are of order 1.

    Gains near 1, also of LayerScale; tokens that begin so small that the norms' eps shows. The last layer of the maps
    is halved, for noise this rough shows how coordinates are rounded when a map is enlarged: both PyTorch and ONNX
    Runtime are up to 4e-5 from the result in float64 then, where the map has a deviation of 1.
    """
    generator = torch.Generator().manual_seed(7)
    vggt = Vggt(VGGT_TINY, points=False)
    with torch.no_grad():
        for name, parameter in vggt.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.copy_(0.1 * noise + (0 if name.endswith("bias") else 1))
            elif name.endswith(("token", "tokens")):
                parameter.copy_(0.02 * noise)
            elif name.endswith("pos_embed"):
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        vggt.depth_head.scratch.output_conv2[2].weight.mul_(0.5)
        vggt.camera_head.pose_branch.fc2.weight.mul_(0.3)  # poses are sums over the iterations
    return VggtProgram(vggt, frames_at_once=None)


def images(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (frames, *SIZE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def program() -> Program:
    return LocalProgram(network(), VGGT)


@pytest.fixture(scope="module")
def vggt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "vggt.onnx"
    export_onnx(network(), VGGT, {"IMAGES": images(3)}, path, dynamic=["s"])
    return path


@pytest.fixture(scope="module")
def vggt_session(vggt_file: Path) -> onnxruntime.InferenceSession:
    return session(vggt_file)


@pytest.mark.parametrize("frames", FRAMES)
def test_every_number_of_frames_agrees(
    frames: int, program: Program, vggt_session: onnxruntime.InferenceSession
) -> None:
    pictures = images(frames, seed=frames)
    outputs = vggt_session.run(None, {"IMAGES": pictures.numpy()})
    expected = program({"IMAGES": pictures})
    assert 0.5 < expected["POSE"].abs().max() < 4
    for spec, output in zip(VGGT.outputs, outputs, strict=True):
        wanted = expected[spec.name].numpy()
        assert output.shape == wanted.shape
        assert 0.03 < wanted.std() < 2  # a constant would agree with anything
        error = np.abs(output - wanted).max()
        print(f"{frames} frames: {spec.name} differs by {error:.1e} at most")
        assert error <= 1e-5, spec.name


def test_the_graph_is_called_as_the_signature_says(vggt_file: Path) -> None:
    graph = onnx.load(vggt_file, load_external_data=False).graph
    height, width = SIZE
    shapes = {
        "IMAGES": ["s", height, width, 3],
        "POSE": ["s", 9],
        "DEPTH": ["s", height, width],
        "CONFIDENCE": ["s", height, width],
    }
    for specs, values in ((VGGT.inputs, graph.input), (VGGT.outputs, graph.output)):
        assert [value.name for value in values] == [spec.name for spec in specs]
        for spec, value in zip(specs, values, strict=True):
            tensor = value.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            assert torch.from_numpy(np.zeros(1, dtype)).dtype == spec.cpu_dtype
            assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == shapes[spec.name]


def test_the_file_is_valid_and_tells_nothing_of_this_machine(vggt_file: Path) -> None:
    onnx.checker.check_model(vggt_file, full_check=True)
    model = onnx.load(vggt_file, load_external_data=False)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    content = vggt_file.read_bytes()
    assert b"vggt.aggregator" in content
    assert str(Path(__file__).parents[2]).encode() not in content
    # The weights are in the other file; those of both heads and the aggregator are 19 MB.
    assert len(content) < 1e6 < vggt_file.with_name("vggt.onnx.data").stat().st_size
    assert {path.name for path in vggt_file.parent.iterdir()} == {"vggt.onnx", "vggt.onnx.data"}


@pytest.mark.parametrize(("size", "align_corners"), [((5, 13), False), ((9, 4), True)])
def test_an_antialiased_resize_needs_no_operator_that_tensorrt_lacks(
    size: tuple[int, int], align_corners: bool, tmp_path: Path
) -> None:
    module = Resize(size, align_corners)
    generator = torch.Generator().manual_seed(0)
    export_onnx(
        module, RESIZE, {"IMAGE": torch.randn(2, 3, 7, 10, generator=generator)}, tmp_path / "r.onnx", dynamic={"n"}
    )
    image = torch.randn(4, 3, 7, 10, generator=generator)
    (resized,) = session(tmp_path / "r.onnx").run(None, {"IMAGE": image.numpy()})
    # PyTorch has the filter's weights in float32.
    np.testing.assert_allclose(resized, module(image).numpy(), rtol=0, atol=5e-6)
    nodes = onnx.load(tmp_path / "r.onnx", load_external_data=False).graph.node
    assert {node.op_type for node in nodes} == {"MatMul"}


@pytest.mark.parametrize(
    ("example", "dynamic", "message"),
    [
        (
            torch.zeros(2, 28, 28, 3, dtype=torch.uint8),
            "t",
            "No input of vggt has the dynamic size 't'; legal: s, H, W",
        ),
        (torch.zeros(1, 28, 28, 3, dtype=torch.uint8), "s", "The example's s is 1; a dynamic size must be 2 or more"),
        (torch.zeros(2, 28, 28, 3, dtype=torch.int64), "s", "IMAGES is torch.int64, legal is torch.uint8"),
        (torch.zeros(2, 28, 28, dtype=torch.uint8), "s", r"IMAGES has shape \[2, 28, 28\], legal is \[s, H, W, 3\]"),
    ],
)
def test_an_example_that_does_not_fit_is_refused(example: Tensor, dynamic: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=message):
        export_onnx(nn.Identity(), VGGT, {"IMAGES": example}, tmp_path / "vggt.onnx", dynamic=[dynamic])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "output",
    [
        TensorSpec("RESIZED", ("n", 4, "H", "W")),
        TensorSpec("RESIZED", ("n", 3, "h", "W")),
        TensorSpec("RESIZED", ("n", 3, "H", "W"), torch.uint8, torch.uint8),
    ],
)
def test_a_network_that_is_not_the_signatures_is_refused(output: TensorSpec, tmp_path: Path) -> None:
    signature = Signature("resize", RESIZE.inputs, (output,))
    with pytest.raises(InvalidInputError, match=r"has RESIZED float32 \[n, 3, 5, 6\]; legal for resize: RESIZED"):
        export_onnx(
            Resize((5, 6), False), signature, {"IMAGE": torch.zeros(2, 3, 7, 10)}, tmp_path / "r.onnx", dynamic=["n"]
        )
    assert not list(tmp_path.iterdir())
