"""Networks apart from their weights, and the folder of graphs that is made of them without a GPU."""

import dataclasses
import json
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import PROGRAMS
from gen3c.generator.checkpoint import STATISTICS, statistics_config, transformer_config, vae_config
from gen3c.generator.signatures import DIT, VIDEO_ENCODER
from gen3c.generator.weights import load_dit, load_vae
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt, load_vggt
from gen3c.networks import NETWORKS, Streamed, WeightSource, network
from gen3c.presets import TINY, VaeConfig
from gen3c.program import Signature, TensorSpec
from gen3c.weight_files import HeldWeight, StoredWeight
from gen3c_export import tensorrt_graphs
from gen3c_export.cli import main
from gen3c_export.onnx_file import export_onnx
from gen3c_export.tensorrt_graphs import RECORD, export_graphs
from gen3c_export.writer import Weight, write_component

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*axis name:UserWarning")

SMALL = dataclasses.replace(
    TINY,
    dit=dataclasses.replace(TINY.dit, layers=1),
    vae=VaeConfig((16, 16, 16, 16), (16, 16, 16, 16), layers_per_block=1),
)


@dataclasses.dataclass(frozen=True)
class Written:
    """A tensor that `write_component` takes."""

    tensor: Tensor

    @property
    def numel(self) -> int:
        return self.tensor.numel()

    def read(self) -> Tensor:
        return self.tensor


def weights_of(tensors: dict[str, Tensor]) -> dict[str, Weight]:
    return {name: Weight(Written(tensor), torch.float32) for name, tensor in tensors.items() if name not in STATISTICS}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all networks, the transformer's more than one."""
    root: Path = tmp_path_factory.mktemp("checkpoint")
    dit, vae = (load(SMALL, untrained_seed=3)[0] for load in (load_dit, load_vae))
    tensors = weights_of(dit.transformer.state_dict())
    write_component(root, "transformer", transformer_config(SMALL.dit), tensors, shard_bytes=1_000_000)
    statistics = statistics_config(torch.full_like(vae.latents_mean, 0.1), torch.full_like(vae.latents_std, 0.123))
    write_component(root, "vae", vae_config(SMALL.vae) | statistics, weights_of(vae.state_dict()))
    (root / "vggt").mkdir()
    vggt = load_vggt(find_vggt(), untrained_seed=3).state_dict()
    save_file(vggt, root / "vggt" / "model.safetensors")
    return root


def check_streamed(streamed: Streamed, source: WeightSource, name: str) -> None:
    """The module is empty and has the types of the loaded one, the weights have its values."""
    loaded = network(name).load(source, torch.device("cpu"), torch.bfloat16).state_dict()
    empty = streamed.module.state_dict()
    assert {key: tensor.dtype for key, tensor in empty.items()} == {key: t.dtype for key, t in loaded.items()}
    assert all(tensor.is_meta for tensor in empty.values())
    assert streamed.weights.keys() == loaded.keys()
    for key, tensor in loaded.items():
        assert tuple(streamed.weights[key].shape) == tuple(tensor.shape)
        assert streamed.weights[key].read().to(tensor.dtype).equal(tensor)


@pytest.mark.parametrize("name", PROGRAMS)
def test_weights_of_a_checkpoint_are_read_one_by_one(name: str, checkpoints: Path) -> None:
    source = WeightSource(SMALL, checkpoints)
    streamed = network(name).streamed(source, torch.bfloat16)
    check_streamed(streamed, source, name)
    kinds = {type(weight) for weight in streamed.weights.values()}
    assert kinds == ({StoredWeight} if name in (DIT.name, VGGT.name) else {HeldWeight})
    if name == VIDEO_ENCODER.name:  # in no file of weights, and not rounded
        (std,) = (weight.read() for key, weight in streamed.weights.items() if key.endswith("latents_std"))
        assert std.unique().tolist() == [pytest.approx(0.123, rel=1e-7)]


@pytest.mark.parametrize("name", PROGRAMS)
def test_untrained_weights_are_those_that_are_loaded(name: str) -> None:
    check_streamed(network(name).streamed(WeightSource(SMALL), torch.bfloat16), WeightSource(SMALL), name)


def test_a_state_dict_of_vggt_with_more_in_it_streams_too(tmp_path: Path, checkpoints: Path) -> None:
    source = find_vggt(checkpoints / "vggt")
    with torch.device("meta"):
        whole = Vggt(source.config).state_dict()
    tensors = {name: torch.zeros(tensor.shape) for name, tensor in whole.items()} | load_vggt(source).state_dict()
    torch.save(tensors, tmp_path / "model.pt")
    given = WeightSource(SMALL, checkpoints, tmp_path / "model.pt")
    check_streamed(network(VGGT.name).streamed(given, torch.bfloat16), given, VGGT.name)


def test_weights_that_do_not_fit_are_told_before_they_are_streamed(checkpoints: Path) -> None:
    source = WeightSource(dataclasses.replace(SMALL, dit=TINY.dit), checkpoints)
    with pytest.raises(InvalidInputError, match=r"num_layers is 1, legal is (?s:.)* is missing"):
        network(DIT.name).streamed(source, torch.bfloat16)


def test_a_folder_of_graphs_says_what_it_holds(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (DIT.name, VIDEO_ENCODER.name)  # the others take long and bring nothing new
    monkeypatch.setattr(tensorrt_graphs, "networks_of", lambda _source: {name: NETWORKS[name] for name in names})
    source = WeightSource(SMALL, checkpoints)
    folder = export_graphs(source, tmp_path)
    assert folder == tmp_path / "tiny-tensorrt-onnx"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {RECORD, *(f"{name}/model.onnx{end}" for name in names for end in ("", ".data"))}
    record = json.loads((folder / RECORD).read_text())
    assert (record["preset"], record["graphs"].keys()) == ("tiny", set(names))
    dit = record["graphs"][DIT.name]
    assert dit["weights"] == str(network(DIT.name).provenance(source))
    assert dit["dynamic"] == {"batch": {"least": 1, "usual": 1, "most": 2}}
    assert dit["trtexec"].startswith("trtexec --stronglyTyped --noTF32 --onnx=dit/model.onnx ")
    assert "--maxShapes=LATENT:2x16x4x24x40,TIMESTEP:2x1," in dit["trtexec"]
    assert "Shapes" not in record["graphs"][VIDEO_ENCODER.name]["trtexec"]
    (video,) = onnx.load(folder / VIDEO_ENCODER.name / "model.onnx", load_external_data=False).graph.input
    assert video.type.tensor_type.elem_type == onnx.TensorProto.BFLOAT16

    def fail(*_: object) -> None:
        raise InvalidInputError("no room")

    monkeypatch.setattr(tensorrt_graphs, "export_graph", fail)
    with pytest.raises(InvalidInputError, match="no room"):
        export_graphs(source, tmp_path)
    assert not (folder / RECORD).exists()


def test_a_network_in_memory_is_exported_in_operators_that_tensorrt_has(tmp_path: Path) -> None:
    signature = Signature("up", (TensorSpec("X", (1, 8, "h", "w")),), (TensorSpec("Y", (1, 3, "H", "W")),))
    module = nn.ConvTranspose2d(8, 3, kernel_size=4, stride=4, bias=False).bfloat16()
    export_onnx(module, signature, {"X": torch.zeros(1, 8, 5, 6, dtype=torch.bfloat16)}, tmp_path / "up.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "up.onnx").graph.node]
    assert "DepthToSpace" in operators
    assert "ConvTranspose" not in operators  # of bfloat16 there is none, see gen3c_export.tensorrt_rewrites


@pytest.mark.slow
def test_the_command_writes_the_graphs_of_tiny(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["onnx", "--preset", "tiny", "--out", f"{tmp_path}"])
    assert not ended.value.code
    folder = tmp_path / "tiny-tensorrt-onnx"
    assert capsys.readouterr().out.strip() == f"{folder}"
    graphs = json.loads((folder / RECORD).read_text())["graphs"]
    assert graphs.keys() == set(PROGRAMS)
    for entry in graphs.values():
        onnx.checker.check_model(folder / entry["file"], full_check=True)
