"""Artifacts as programs: each call goes to the graph that was made for it."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Artifact, Graph, Manifest, Range, files_of
from gen3c.exported.program import ExportedProgram, Runner, aoti_runner, open_artifact, sizes_of, takes
from gen3c.generator.signatures import VIDEO_DECODER, symbols
from gen3c.presets import TINY
from gen3c.program import Signature, TensorSpec
from tests.gen3c.exported.samples import artifact

CPU = torch.device("cpu")
SCALE = Signature(
    "scale",
    (TensorSpec("X", ("batch", "width")), TensorSpec("BY", ("batch", 1))),
    (TensorSpec("Y", ("batch", "width")),),
)


def graph(width: int, least: int = 1, most: int = 4) -> Graph:
    return Graph(
        file=f"{width}.onnx",
        sizes={"width": width},
        dynamic={"batch": Range(least=least, usual=least, most=most)},
        checks=[],
    )


def runner(number: float) -> Runner:
    """Tells by its answer who ran."""

    def run(arguments: Sequence[Tensor]) -> list[Tensor]:
        return [torch.full_like(arguments[0], number)]

    return run


TWO = ExportedProgram(SCALE, [(graph(4), runner(1)), (graph(6, least=2), runner(2))])


def called(program: ExportedProgram, batch: int, width: int) -> Tensor:
    return program({"X": torch.ones(batch, width), "BY": torch.ones(batch, 1)})["Y"]


@pytest.mark.parametrize(("batch", "width", "who"), [(1, 4, 1), (4, 4, 1), (2, 6, 2), (4, 6, 2)])
def test_a_call_goes_to_the_graph_of_its_sizes(batch: int, width: int, who: int) -> None:
    assert called(TWO, batch, width).unique().tolist() == [who]


@pytest.mark.parametrize(("batch", "width"), [(1, 5), (5, 4), (1, 6), (5, 6)])
def test_sizes_that_no_graph_has_are_refused_with_the_legal_ones(batch: int, width: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        called(TWO, batch, width)
    assert str(caught.value) == (
        f"Program scale was called with batch={batch} width={width}; it was built for width=4 batch=1..4 or width=6 "
        "batch=2..4."
    )


def test_what_is_no_call_of_the_program_is_refused_before() -> None:
    with pytest.raises(InvalidInputError, match="BY is missing"):
        TWO({"X": torch.ones(1, 4)})


def test_sizes_of_outputs_alone_do_not_matter() -> None:
    """A decoder's graph is found by its latent; how many pixels come of it is the graph's own business."""
    latent = torch.zeros(VIDEO_DECODER.inputs[0].sizes(symbols(TINY)))
    made = Graph(file="model.onnx", sizes=symbols(TINY), dynamic={}, checks=[])
    assert takes(made, sizes_of(VIDEO_DECODER, (latent,)))
    assert not takes(made, sizes_of(VIDEO_DECODER, (latent[:, :, 1:],)))


def test_a_built_decoder_runs_and_gives_bytes(built: Path) -> None:
    made = Manifest.read(built).artifacts[VIDEO_DECODER.name]
    program = open_artifact(made, VIDEO_DECODER, built / "model_repository" / VIDEO_DECODER.name / "1", CPU, 2)
    latent = torch.zeros(VIDEO_DECODER.inputs[0].sizes(symbols(TINY)))
    video = program({"LATENT": latent})["VIDEO"]
    assert (video.dtype, list(video.shape)) == (torch.uint8, [1, TINY.chunk_frames, TINY.height, TINY.width, 3])
    with pytest.raises(InvalidInputError, match=r"was called with batch=2 t=4 .*; it was built for .*batch=1"):
        program({"LATENT": latent.repeat(2, 1, 1, 1, 1)})


def test_a_file_that_its_runtime_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph at all")
    broken = artifact().model_copy(update={"files": files_of(tmp_path, ["model.onnx"])})
    with pytest.raises(InvalidInputError, match=r"dit: model\.onnx cannot be loaded: ") as caught:
        open_artifact(broken, SCALE, tmp_path, CPU, 1)
    assert "\n" not in str(caught.value)


def test_a_kind_without_a_runtime_here_is_named(tmp_path: Path) -> None:
    plan: Artifact = artifact(kind="tensorrt").model_copy(update={"files": []})
    with pytest.raises(InvalidInputError, match="dit is tensorrt, which has no runtime of its own here"):
        open_artifact(plan, SCALE, tmp_path, CPU, 1)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, by: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) * by


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor compiles with g++")
def test_an_aotinductor_package_computes_what_its_module_does(tmp_path: Path) -> None:
    from gen3c_export.aoti_file import export_aoti

    torch.manual_seed(0)
    module, path = Scaled(), tmp_path / "model.pt2"
    export_aoti(module, SCALE, {"X": torch.rand(2, 4), "BY": torch.rand(2, 1)}, path, dynamic=["batch"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pt2"], "the compiler's cache stays with nobody"
    program = ExportedProgram(SCALE, [(graph(4), aoti_runner(path, CPU, SCALE))])
    for batch in (1, 2, 4):
        inputs = {"X": torch.randn(batch, 4), "BY": torch.randn(batch, 1)}
        expected = module(inputs["X"], inputs["BY"])
        torch.testing.assert_close(program(inputs)["Y"], expected, rtol=1e-6, atol=1e-6)
        # As on a GPU, where callers send what they have.
        torch.testing.assert_close(program({n: t.double() for n, t in inputs.items()})["Y"], expected)
    with pytest.raises(InvalidInputError, match=r"batch=5 width=4; it was built for width=4 batch=1\.\.4"):
        called(program, 5, 4)
