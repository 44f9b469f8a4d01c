"""VGGT's weights: released files as they are, ways in which a file can be wrong, and where files are looked for."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.geometry.vggt import weights
from gen3c.geometry.vggt.model import Vggt
from gen3c.geometry.vggt.official import tracker_shapes
from gen3c.geometry.vggt.pose import quaternion_to_matrix
from gen3c.geometry.vggt.weights import CAMERA_TOKEN, FILES, UNTRAINED_FOV, VggtSource, find_vggt, load_vggt
from gen3c.presets import VGGT_1B, VGGT_TINY, VggtConfig

State = dict[str, Tensor]

SAFETENSORS, PICKLED = FILES

PROJECTION = "aggregator.frame_blocks.2.attn.proj.weight"  # a linear layer of the aggregator
NORM = "camera_head.token_norm.weight"
POINTS = "point_head.norm.weight"
TRACKER = "track_head.tracker.updateformer.virual_tracks"


@pytest.fixture(autouse=True)
def nothing_packaged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether the package ships weights must not decide these tests."""
    monkeypatch.setattr(weights, "PACKAGED", tmp_path / "package")


@pytest.fixture(autouse=True)
def small_is_known(monkeypatch: pytest.MonkeyPatch, config: VggtConfig) -> None:
    monkeypatch.setattr(weights, "CONFIGS", (*weights.CONFIGS, config))


@pytest.fixture
def state(vggt: Vggt) -> State:
    """Of the small network, with its point head."""
    return dict(vggt.state_dict())


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a file of each kind may be written."""
    return tmp_path / str(request.param)


def write(path: Path, content: Mapping[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(dict(content), path)
    else:
        torch.save(dict(content), path)


def is_read(name: str) -> bool:
    return not name.startswith(("point_head.", "track_head."))


def assert_loaded(network: Vggt, saved: Mapping[str, Tensor]) -> None:
    """The network has what is read of `saved`, and nothing else."""
    loaded = network.state_dict()
    assert set(loaded) == {name for name in saved if is_read(name)}
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.items())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def refused(path: Path, *parts: str) -> None:
    """Loading says no, and says why."""
    with pytest.raises(InvalidInputError) as error:
        load_vggt(find_vggt(path))
    assert error.value.field == "checkpoint"
    for part in (str(path), *parts):
        assert part in str(error.value)


def test_a_whole_released_file_is_taken_and_it_is_said_what_is_left_out(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the tiny size, which the tracker's 46 million parameters, zeros here, hardly know of."""
    network = Vggt(VGGT_TINY)
    with torch.no_grad():
        for i, parameter in enumerate(network.parameters()):
            parameter.normal_(generator=torch.Generator().manual_seed(i))
    saved = dict(network.state_dict())
    tracker = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in tracker_shapes(VGGT_TINY).items()}
    write(path, saved | tracker)
    with caplog.at_level(logging.INFO, logger=weights.__name__):
        loaded = load_vggt(find_vggt(path))
    assert loaded.config is VGGT_TINY
    assert_loaded(loaded, saved)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path.name}: 394 tensors of the tracker and 62 of the point head are not used."
    ]
    path.unlink()  # 111 MB


def test_a_file_without_point_head_and_tracker_is_taken(
    path: Path, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, {name: tensor for name, tensor in state.items() if is_read(name)})
    with caplog.at_level(logging.INFO, logger=weights.__name__):
        assert_loaded(load_vggt(find_vggt(path)), state)
    assert not caplog.records


def test_the_loaded_network_is_the_one_that_was_saved(path: Path, vggt: Vggt, state: State, images: Tensor) -> None:
    write(path, state)
    loaded, expected = load_vggt(find_vggt(path))(images), vggt(images)
    assert torch.equal(loaded.pose, expected.pose)
    assert torch.equal(loaded.depth, expected.depth)
    assert torch.equal(loaded.depth_confidence, expected.depth_confidence)


def test_what_was_loaded_does_not_hang_on_the_file(path: Path, state: State) -> None:
    write(path, state)
    loaded = load_vggt(find_vggt(path))
    with path.open("r+b") as file:
        file.write(b"\1" * path.stat().st_size)  # a mapped file would show it
    assert_loaded(loaded, state)


def test_parameters_are_as_good_as_tensors(tmp_path: Path, vggt: Vggt) -> None:
    torch.save(vggt.requires_grad_().state_dict(keep_vars=True), tmp_path / PICKLED)
    assert_loaded(load_vggt(find_vggt(tmp_path / PICKLED)), dict(vggt.state_dict()))


def test_half_precision_files_become_float32(path: Path, state: State) -> None:
    halves = {name: tensor.to((torch.float16, torch.bfloat16)[i % 2]) for i, (name, tensor) in enumerate(state.items())}
    write(path, halves)
    loaded = load_vggt(find_vggt(path))
    assert_loaded(loaded, {name: tensor.float() for name, tensor in halves.items()})


def test_a_narrow_network_is_the_saved_one_made_narrow(path: Path, vggt: Vggt, state: State) -> None:
    write(path, state)
    loaded = load_vggt(find_vggt(path), dtype=torch.bfloat16).state_dict()
    expected = vggt.narrow(torch.bfloat16).state_dict()
    assert {tensor.dtype for tensor in loaded.values()} == {torch.float32, torch.bfloat16}
    for name, tensor in loaded.items():
        assert tensor.dtype == expected[name].dtype
        assert torch.equal(tensor, expected[name])


def test_values_count_only_where_they_are_read(path: Path, state: State) -> None:
    state[POINTS] = torch.full_like(state[POINTS], torch.nan)
    state[TRACKER] = torch.full((1, 64, 1, 384), torch.inf)
    state["track_head.tracker.fmap_norm.bias"] = torch.zeros(128, dtype=torch.int32)
    write(path, state)
    assert_loaded(load_vggt(find_vggt(path)), {name: tensor for name, tensor in state.items() if is_read(name)})


Spoil = Callable[[State], object]

SPOILT: dict[str, tuple[Spoil, str]] = {
    "missing": (lambda s: s.pop(NORM), f"{NORM} is missing"),
    "unknown": (lambda s: s.update(extra=torch.zeros(1)), "extra is unknown"),
    "unknown of the tracker": (
        lambda s: s.update({"track_head.tracker.virtual_tracks": torch.zeros(1, 64, 1, 384)}),
        "track_head.tracker.virtual_tracks is unknown",
    ),
    "shape": (lambda s: s.update({NORM: torch.ones(63)}), f"{NORM} has shape [63], legal is [64]"),
    "shape of the same number": (
        lambda s: s.update({PROJECTION: torch.ones(16, 64)}),
        f"{PROJECTION} has shape [16, 64], legal is [32, 32]",
    ),
    "shape of the tracker": (
        lambda s: s.update({TRACKER: torch.zeros(1, 63, 1, 384)}),
        f"{TRACKER} has shape [1, 63, 1, 384], legal is [1, 64, 1, 384]",
    ),
    "shape of the point head": (
        lambda s: s.update({POINTS: torch.ones(32)}),
        f"{POINTS} has shape [32], legal is [64]",
    ),
    "not a number": (lambda s: s[PROJECTION][3, 5].fill_(torch.nan), f"{PROJECTION} has values that are not finite"),
    "infinite in float16": (
        lambda s: s.update({NORM: torch.full((64,), -torch.inf, dtype=torch.float16)}),
        f"{NORM} has values that are not finite",
    ),
    "integers": (lambda s: s.update({NORM: torch.ones(64, dtype=torch.int64)}), f"{NORM} is "),
    "doubles": (lambda s: s.update({NORM: torch.ones(64, dtype=torch.float64)}), "legal are F32, F16, BF16"),
}


# The kinds of files differ in how shapes, types and values are told.
CASES = [(SAFETENSORS, key) for key in SPOILT] + [(PICKLED, key) for key in ("shape", "not a number", "integers")]


@pytest.mark.parametrize(("file", "key"), CASES)
def test_a_file_with_one_wrong_tensor_is_refused_before_the_gpu_is_touched(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, file: str, key: str
) -> None:
    path, (spoil, message) = tmp_path / file, SPOILT[key]
    spoil(state)
    write(path, state)
    touched: list[str] = []
    monkeypatch.setattr(torch.cuda, "_lazy_init", lambda: touched.append("CUDA"))  # what every use of CUDA begins with
    monkeypatch.setattr(weights, "place", lambda *_: touched.append("place"))
    with pytest.raises(InvalidInputError) as error:
        load_vggt(find_vggt(path), device="cuda")
    assert error.value.field == "checkpoint"
    assert f"{path} does not fit VGGT-tiny (1 problem):" in str(error.value)
    assert message in str(error.value)
    assert not touched


@pytest.mark.skipif(torch.cuda.is_available(), reason="a good file gets as far as CUDA, which is there")
def test_a_good_file_gets_as_far_as_the_gpu(path: Path, state: State) -> None:
    write(path, state)
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        load_vggt(find_vggt(path), device="cuda")


def test_all_that_is_wrong_is_listed(path: Path, state: State) -> None:
    for spoil in (SPOILT[key][0] for key in ("missing", "unknown", "unknown of the tracker", "not a number")):
        spoil(state)
    state[TRACKER] = torch.zeros(3)
    write(path, state)
    refused(path, "(5 problems)", NORM, "extra", "track_head.tracker.virtual_tracks", PROJECTION, TRACKER)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_values_must_fit_into_the_type_that_each_tensor_gets(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    path = tmp_path / SAFETENSORS
    too_large = {torch.float16: 1e5, torch.bfloat16: 3.4e38}[dtype]
    state[NORM][0] = too_large  # stays float32
    write(path, state)
    load_vggt(find_vggt(path), dtype=dtype)
    state[PROJECTION][0, 0] = too_large
    write(path, state)
    load_vggt(find_vggt(path))
    with pytest.raises(InvalidInputError) as error:
        load_vggt(find_vggt(path), dtype=dtype)
    assert "(1 problem)" in str(error.value)
    assert f"{PROJECTION} has values beyond the range of {str(dtype).removeprefix('torch.')}" in str(error.value)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.9999])
def test_a_file_that_was_cut_off_is_refused(path: Path, state: State, kept: float) -> None:
    write(path, state)
    with path.open("r+b") as file:
        file.truncate(int(kept * path.stat().st_size))
    refused(path)


@pytest.mark.parametrize("content", ["a model\n", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"])
def test_a_text_is_refused(path: Path, content: str) -> None:
    path.write_text(content)
    refused(path)


def test_what_is_no_file_is_refused(path: Path) -> None:
    refused(path, "No such file")
    path.mkdir()
    refused(path)


class Intruder:
    """Asks whoever unpickles it to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_does_not_run(tmp_path: Path, state: State) -> None:
    path, folder = tmp_path / PICKLED, tmp_path / "intruded"
    for content in (Intruder(folder), state | {"extra": Intruder(folder)}):
        torch.save(content, path)
        refused(path, "holds more than tensors")
        assert not folder.exists()
    torch.load(path, weights_only=False)
    assert folder.exists()  # it would have


def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path, vggt: Vggt, state: State) -> None:
    path = tmp_path / PICKLED
    for content in ({"model": state}, [*state.values()], state | {"epoch": 3}, {1: state[NORM]}, state[NORM]):
        torch.save(content, path)
        refused(path, "no state dict: legal are names of tensors alone")
    torch.save(vggt, path)
    refused(path, "holds more than tensors")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: torch.nested.nested_tensor([x]),
    ],
    ids=["sparse", "meta", "nested"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(
    tmp_path: Path, state: State, change: Callable[[Tensor], Tensor]
) -> None:
    path = tmp_path / PICKLED
    torch.save(state | {PROJECTION: change(state[PROJECTION])}, path)
    refused(path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({CAMERA_TOKEN: torch.zeros(1, 2, 1, 768)}, f"{CAMERA_TOKEN} has shape [1, 2, 1, 768]"),
        ({CAMERA_TOKEN: torch.zeros(144)}, f"{CAMERA_TOKEN} has shape [144]"),
        ({"patch_embed.cls_token": torch.zeros(1, 1, 144)}, f"{CAMERA_TOKEN} is missing"),
        ({}, f"{CAMERA_TOKEN} is missing"),
    ],
    ids=["width", "rank", "another", "empty"],
)
def test_another_network_is_refused_with_the_sizes_that_are_known(path: Path, content: State, found: str) -> None:
    write(path, content)
    with pytest.raises(InvalidInputError) as error:
        find_vggt(path)  # before anything is loaded
    assert error.value.field == "checkpoint"
    for part in (f"{path} is no VGGT", found, "[1, 2, 1, 1024] (VGGT-1B)", "[1, 2, 1, 160] (VGGT-tiny)"):
        assert part in str(error.value)


def test_the_size_is_told_by_the_camera_tokens_alone(path: Path) -> None:
    for config in (VGGT_1B, VGGT_TINY):
        write(path, {CAMERA_TOKEN: torch.full((1, 2, 1, config.width), torch.nan)})
        source = find_vggt(path)
        assert source.config is config
        assert source.is_of_released_size == (config is VGGT_1B)
    with pytest.raises(InvalidInputError, match=r"aggregator\.register_token is missing"):
        load_vggt(source)


def test_files_are_looked_for_in_one_order(tmp_path: Path, state: State) -> None:
    directory = tmp_path / "checkpoint"
    named, packaged = tmp_path / "named.pt", tmp_path / "package" / "tiny" / "vggt" / "model.safetensors"
    safetensors, pickled = (directory / "vggt" / name for name in ("model.safetensors", "model.pt"))
    for path in (named, packaged, safetensors, pickled):
        write(path, state)
    assert find_vggt(named, directory).path == named
    assert find_vggt(directory=directory).path == safetensors
    safetensors.unlink()
    assert find_vggt(directory=directory).path == pickled
    assert find_vggt().path == packaged
    pickled.unlink()
    with pytest.raises(InvalidInputError, match=r"holds neither model\.safetensors nor model\.pt") as error:
        find_vggt(directory=directory)  # an empty folder is a mistake, and none that the package's weights should hide
    assert error.value.field == "checkpoint"
    assert str(directory / "vggt") in str(error.value)
    pickled.parent.rmdir()
    assert find_vggt(directory=directory).path == packaged  # a checkpoint of the other networks alone
    packaged.unlink()
    with pytest.raises(InvalidInputError, match="holds neither"):
        find_vggt()
    packaged.parent.rmdir()
    for source in (find_vggt(), find_vggt(directory=directory)):
        assert source == VggtSource(VGGT_TINY, None)
        assert not source.is_of_released_size
    with pytest.raises(InvalidInputError, match=re.escape(f"{safetensors} cannot be read")):
        find_vggt(safetensors)  # a file that was named is that or none


def test_a_folder_of_a_files_name_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "vggt" / "model.pt").mkdir(parents=True)
    with pytest.raises(InvalidInputError, match="holds neither"):
        find_vggt(directory=tmp_path)


def test_provenance_has_the_hash_of_the_file(path: Path, state: State) -> None:
    write(path, state)
    provenance = find_vggt(path).provenance()
    assert provenance.source == f"VGGT-tiny, {path.name}"
    assert provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(provenance) == f"VGGT-tiny, {path.name} (sha256 {provenance.sha256})"
    assert str(find_vggt().provenance()) == "VGGT-tiny, untrained"


def test_a_seed_decides_untrained_weights_whatever_ran_before() -> None:
    source = find_vggt()
    first = load_vggt(source, untrained_seed=7)
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    second, other = (load_vggt(source, untrained_seed=seed) for seed in (7, 8))
    assert torch.equal(before, torch.random.get_rng_state())
    assert_loaded(first, dict(second.state_dict()))
    assert not torch.equal(first.state_dict()[PROJECTION], other.state_dict()[PROJECTION])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_weights_see_cameras_that_a_job_can_use(seed: int, images: Tensor) -> None:
    prediction = load_vggt(find_vggt(), untrained_seed=seed)(images)
    # The last layer has a hundredth of its weights, and four iterations add up.
    assert float((prediction.pose[..., 7:] - UNTRAINED_FOV).abs().max()) < 0.2
    assert float((quaternion_to_matrix(prediction.pose[..., 3:7]) - torch.eye(3)).abs().max()) < 0.3
    assert float(prediction.pose[..., :3].abs().max()) < 0.2
    for map_ in (prediction.depth, prediction.depth_confidence - 1):
        assert 1e-3 < float(map_.min()) < float(map_.max()) < 1e3
    # Frames are told apart, or the network would be a constant.
    assert float((prediction.pose[:, 0] - prediction.pose[:, 1]).abs().max()) > 1e-5


def test_untrained_weights_may_be_narrow() -> None:
    narrow = load_vggt(find_vggt(), dtype=torch.bfloat16).state_dict()
    wide = load_vggt(find_vggt()).state_dict()
    assert narrow[PROJECTION].dtype == torch.bfloat16
    assert narrow[NORM].dtype == torch.float32
    assert all(torch.equal(narrow[name], tensor.to(narrow[name].dtype)) for name, tensor in wide.items())


def test_the_folder_of_a_file_is_as_good_as_the_file(tmp_path: Path) -> None:
    """Which is what a download makes."""
    with pytest.raises(InvalidInputError, match=r"holds neither model\.safetensors nor model\.pt"):
        find_vggt(tmp_path)
    torch.save({"aggregator.camera_token": torch.zeros(1, 2, 1, VGGT_TINY.width)}, tmp_path / "model.pt")
    assert find_vggt(tmp_path).path == tmp_path / "model.pt"
