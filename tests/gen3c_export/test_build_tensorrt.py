"""A repository of TensorRT plans: what Triton's backend is told of them, made with stand-ins for TensorRT and the GPU.

What a plan computes shows only on a GPU of its own kind, so none is run here.
"""

import dataclasses
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fake_tensorrt import FakeTensorRT
from google.protobuf import text_format  # type: ignore[import-untyped]
from tritonclient.grpc import model_config_pb2 as pb

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import REPOSITORY, VERSION_FOLDER, Artifact, Gpu, Kind, Manifest
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.geometry.vggt.signature import VGGT
from gen3c.networks import WeightSource, network, networks_of
from gen3c.presets import TINY, VaeConfig
from gen3c_export import build as build_module
from gen3c_export import make as make_module
from gen3c_export import tensorrt_engine, tensorrt_flavours
from gen3c_export.build import BuildOptions, build, parse_kinds, requests_of
from gen3c_export.cli import main
from gen3c_server.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*axis name:UserWarning")

# The sizes of `tiny` with less in between, which is sooner exported.
SMALL = dataclasses.replace(
    TINY,
    dit=dataclasses.replace(TINY.dit, layers=1),
    vae=VaeConfig((16, 16, 16, 16), (16, 16, 16, 16), layers_per_block=1),
)
PLANS = (DIT.name, VIDEO_ENCODER.name, VIDEO_DECODER.name)
HOPPER = (9, 0)
ADA = (8, 9)

Pretend = Callable[[Any, tuple[int, int]], None]


@pytest.fixture(scope="module")
def pretend() -> Iterator[Pretend]:
    """Sets the package and the GPU that there are; what is on the GPU is not, as nothing is run."""
    with pytest.MonkeyPatch.context() as patch:

        def there_are(trt: Any, capability: tuple[int, int]) -> None:
            patch.setattr(torch.cuda, "is_available", lambda: False)
            patch.setattr(build_module, "_device", lambda options: torch.device("cuda", 0))
            patch.setattr(tensorrt_flavours, "capability_here", lambda: capability)
            gpu = Gpu(name="a stand-in", capability=".".join(map(str, capability)))
            for module in (build_module, make_module):
                patch.setattr(module, "gpu_here", lambda device: gpu)
            for module in (make_module, tensorrt_engine):
                patch.setattr(module, "load_tensorrt", lambda: trt)

        yield there_are


@dataclasses.dataclass(frozen=True)
class Built:
    """A repository, and who made its plans."""

    options: BuildOptions
    folder: Path
    fake: FakeTensorRT

    @property
    def manifest(self) -> Manifest:
        return Manifest.read(self.folder)

    def config(self, model: str) -> Any:
        return config_of(self.folder, model)


def serving(manifest: Manifest, folder: Path) -> Any:
    """What the models of a server with that repository see of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", ModuleType("only in the server"))
        module = importlib.import_module("gen3c_server.serving")
    for name in ("bls", "serving"):  # which keep the stand-in
        sys.modules.pop(f"gen3c_server.{name}")
    return module.Serving(Settings.from_environment(), manifest, folder / REPOSITORY)


def config_of(folder: Path, model: str) -> Any:
    text = (folder / REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, pb.ModelConfig())


@pytest.fixture(scope="module")
def built(pretend: Pretend, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """VGGT, which takes longest to export, is PyTorch's; the slow test has a plan of it."""
    fake = FakeTensorRT()
    pretend(fake, HOPPER)
    kinds: dict[str, Kind] = {VGGT.name: "pytorch"}
    options = BuildOptions(WeightSource(SMALL), "tensorrt", tmp_path_factory.mktemp("out"), kinds=kinds)
    return Built(options, build(options), fake)


def check_plan(artifact: Artifact, folder: Path, file: str) -> None:
    """The artifact is one plan and nothing else, for Triton's own backend."""
    assert (artifact.kind, artifact.platform, artifact.dtype) == ("tensorrt", "tensorrt_plan", "bfloat16")
    assert [entry.name for entry in artifact.files] == [file]
    assert [(graph.file, graph.checks) for graph in artifact.graphs] == [(file, [])]
    model = folder / REPOSITORY / artifact.program
    assert sorted(path.relative_to(model).as_posix() for path in model.rglob("*")) == [
        VERSION_FOLDER,
        f"{VERSION_FOLDER}/{file}",
        "config.pbtxt",
    ]


def test_every_leaf_is_one_plan(built: Built) -> None:
    assert built.folder == built.options.out / "tiny-tensorrt"
    manifest = built.manifest
    assert manifest.gpu is not None
    assert (manifest.target, manifest.gpu.capability) == ("tensorrt", "9.0")
    for name in PLANS:
        artifact = manifest.artifacts[name]
        check_plan(artifact, built.folder, "model_sm90.plan")
        assert artifact.packages["tensorrt"] == "10.7.0"
    assert manifest.artifacts[VGGT.name].platform == "python"


def test_graphs_are_not_kept_and_timings_are(built: Built) -> None:
    assert not [path for path in built.options.out.rglob("*") if "onnx" in path.name]
    assert (built.options.out / "timing" / "9.0.cache").read_bytes() == b"same GPU"


def test_triton_is_told_the_plan_for_the_gpu(built: Built) -> None:
    for name in PLANS:
        config = built.config(name)
        assert (config.backend, config.platform) == ("tensorrt", "tensorrt_plan")
        assert dict(config.cc_model_filenames) == {"9.0": "model_sm90.plan"}
        assert config.default_model_filename == ""
        assert [(group.kind, list(group.gpus)) for group in config.instance_group] == [
            (pb.ModelInstanceGroup.KIND_GPU, [0])
        ]
    for name in (VGGT.name, "gen3c", "geometry", "conditioner"):
        assert (built.config(name).backend, dict(built.config(name).cc_model_filenames)) == ("python", {})


def test_triton_is_told_the_tensors_of_the_graphs(built: Built) -> None:
    names = {name: [tensor.name for tensor in (*c.input, *c.output)] for name in PLANS for c in [built.config(name)]}
    assert list(names.values()) == built.fake.parsed
    dit, encoder, decoder = (built.config(name) for name in PLANS)
    latent, timestep = dit.input[0], dit.input[1]
    assert (latent.data_type, list(latent.dims)) == (pb.DataType.Value("TYPE_BF16"), [-1, 16, 4, 24, 40])
    assert (timestep.data_type, list(timestep.dims)) == (pb.DataType.Value("TYPE_FP32"), [-1, 1])
    assert list(encoder.input[0].dims) == [1, 3, 25, 192, 320]
    video = decoder.output[0]
    # What no input tells is open in the configuration, which Triton takes for whatever the plan has.
    assert (video.data_type, list(video.dims)) == (pb.DataType.Value("TYPE_UINT8"), [1, -1, -1, -1, 3])


def test_a_plan_is_made_for_the_rows_of_a_step(built: Built) -> None:
    (profile,) = built.fake.config.profiles  # the other networks leave nothing open
    assert profile["LATENT"] == [[rows, 16, 4, 24, 40] for rows in (1, 1, 2)]
    assert profile.keys() == {spec.name for spec in DIT.inputs}


def test_the_first_picture_is_not_encoded_by_itself(built: Built) -> None:
    seen = serving(built.manifest, built.folder)
    assert seen.seed_frames is None
    assert seen.least_sizes(VIDEO_ENCODER.name)["T"] == SMALL.chunk_frames


def test_what_did_not_change_is_not_built_again(built: Built) -> None:
    before = len(built.fake.parsed)
    assert build(built.options) == built.folder
    assert len(built.fake.parsed) == before


def test_a_plan_that_cannot_be_made_leaves_the_old_repository(built: Built, pretend: Pretend) -> None:
    class Failing(FakeTensorRT):
        __version__ = "10.8.0"  # so that all is made again

    before = (built.folder / "manifest.json").read_bytes()
    pretend(Failing(fails=True), HOPPER)
    try:
        with pytest.raises(InvalidInputError, match=r"TensorRT makes no plan of model.onnx \(1 problem\)"):
            build(built.options)
    finally:
        pretend(built.fake, HOPPER)
    assert (built.folder / "manifest.json").read_bytes() == before
    assert not list(built.options.out.rglob("*.partial"))


def test_a_plan_takes_the_two_rows_of_a_guided_step(pretend: Pretend, tmp_path: Path) -> None:
    pretend(FakeTensorRT(), HOPPER)
    options = BuildOptions(WeightSource(SMALL), "tensorrt", tmp_path / "out")
    most = {request.program: [plan.dynamic for plan in request.plans] for request in requests_of(options)}
    assert [dynamic["batch"].most for dynamic in most[DIT.name]] == [2]
    assert [dynamic["s"].most for dynamic in most[VGGT.name]] == [32]
    assert most[VIDEO_ENCODER.name] == [{}]  # one graph, not one for the first picture too


def test_triton_does_not_put_steps_of_several_frame_rates_together(pretend: Pretend, tmp_path: Path) -> None:
    pretend(FakeTensorRT(), HOPPER)
    deployment = tmp_path / "deployment.yaml"
    deployment.write_text("models: {dit: {batching: {max_batch_size: 2}}}")
    with pytest.raises(InvalidInputError, match="dit cannot have batching: it takes one FPS a call"):
        requests_of(BuildOptions(WeightSource(SMALL), "tensorrt", tmp_path / "out", deployment))


def test_kinds_are_those_of_the_target(pretend: Pretend, tmp_path: Path) -> None:
    pretend(FakeTensorRT(), HOPPER)
    for word, legal in (("dit=tensorrt", True), ("dit=pytorch", True), ("dit=aoti", False), ("dit=onnx", False)):
        options = BuildOptions(WeightSource(SMALL), "tensorrt", tmp_path, kinds=parse_kinds([word]))
        if legal:
            assert len(requests_of(options)) == len(networks_of(options.source))
        else:
            with pytest.raises(InvalidInputError, match="legal for target tensorrt: dit=tensorrt, dit=pytorch"):
                requests_of(options)


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_missing_package_is_told(
    pretend: Pretend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(None, HOPPER)
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for module in (make_module, tensorrt_engine):
        monkeypatch.setattr(module, "load_tensorrt", tensorrt_flavours.load_tensorrt)
    assert run(["build", "--target", "tensorrt", "--out", f"{tmp_path}"]) == 1
    error = capsys.readouterr().err
    assert "Error: tensorrt cannot be imported" in error
    assert "pip install tensorrt-cu12==VERSION" in error
    assert not (tmp_path / "tiny-tensorrt").exists()


@pytest.mark.slow
def test_tensorrt_for_rtx_builds_all_of_tiny(pretend: Pretend, tmp_path: Path) -> None:
    """Real plans, for a GPU that no Triton serves them on."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the extra tensorrt-rtx is not installed")
    pretend(trt, ADA)
    folder = build(BuildOptions(WeightSource(TINY), "tensorrt", tmp_path))
    manifest = Manifest.read(folder)
    for name in networks_of(WeightSource(TINY)):
        check_plan(manifest.artifacts[name], folder, "model_sm89.plan")
        assert manifest.artifacts[name].files[0].size > 1e6
        config = config_of(folder, name)
        assert dict(config.cc_model_filenames) == {"8.9": "model_sm89.plan"}
        assert [tensor.name for tensor in config.input] == [spec.name for spec in network(name).signature.inputs]
    assert list(config_of(folder, VGGT.name).input[0].dims) == [-1, 280, 280, 3]
    assert config_of(folder, VGGT.name).input[0].data_type == pb.DataType.Value("TYPE_UINT8")
    assert serving(manifest, folder).fixed_sizes(VGGT.name) == {"H": 280, "W": 280}
