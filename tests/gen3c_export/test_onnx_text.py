"""The text encoder as ONNX files computes what PyTorch does, for texts of any length and for both runtimes."""

from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from transformers import T5Config, T5EncoderModel

from gen3c.exported.program import onnx_runner
from gen3c.generator.text_program import TEXT_ENCODER, TextProgram, read_network
from gen3c.weight_files import HeldWeight
from gen3c_export.compare import relative_error
from gen3c_export.onnx_file import export_onnx
from gen3c_export.onnx_stream import export_onnx_streamed
from tests.tiny_t5 import WIDTH, WORDS, write_encoder

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # of torch about its own code

TOLERANCE = 1e-5  # relative L2; sums in another order
LENGTHS = (1, 2, 3, 8, 17, 130, 512)  # traced at 8; from 128 on pairs of tokens lie beyond any bucket
LAYERS = 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def network(folder: Path) -> TextProgram:
    return read_network(folder)


@pytest.fixture(scope="module", params=["onnxruntime", "tensorrt", "streamed"])
def exported(
    request: pytest.FixtureRequest, folder: Path, network: TextProgram, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    """How it was exported, and the file."""
    path: Path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    if request.param == "streamed":
        with torch.device("meta"):
            empty = TextProgram(T5EncoderModel(T5Config.from_pretrained(folder)))
        weights = {name: HeldWeight(tensor) for name, tensor in network.state_dict().items()}
        sizes = {"batch": 1, "tokens": 8, "text_dim": WIDTH}
        export_onnx_streamed(empty, TEXT_ENCODER, sizes, path, weights=weights, dynamic=["tokens"], gpu=False)
    else:
        export_onnx(network, TEXT_ENCODER, {"TOKENS": tokens(8)}, path, dynamic=["tokens"], runtime=request.param)
    return request.param, path


def tokens(n: int) -> torch.Tensor:
    return torch.randint(len(WORDS) + 3, (1, n), generator=torch.Generator().manual_seed(n))


def test_a_graph_takes_texts_of_any_length(exported: tuple[str, Path], network: TextProgram) -> None:
    run = onnx_runner(exported[1], threads=2)
    with torch.inference_mode():
        errors = {n: relative_error(run([tokens(n)]), [network(tokens(n))]) for n in LENGTHS}
    print(exported[0], errors)
    assert max(errors.values()) < TOLERANCE


def test_a_token_that_is_none_makes_the_states_nan(exported: tuple[str, Path]) -> None:
    run = onnx_runner(exported[1], threads=2)
    (states,) = run([torch.tensor([[4, len(WORDS) + 3, 1]])])
    assert states.isnan().all()


def test_a_graph_is_of_standard_operators_without_logarithms(exported: tuple[str, Path]) -> None:
    kind, path = exported
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path, load_external_data=False).graph
    assert {node.domain for node in graph.node} == {""}
    found = Counter(node.op_type for node in graph.node)
    assert found["Log"] == 0
    assert found["Attention"] == (LAYERS if kind == "onnxruntime" else 0)
    # The vocabulary is in the file once, though transformers has it by two names.
    assert sum(tensor.dims == [len(WORDS) + 3, WIDTH] for tensor in graph.initializer) == 1
