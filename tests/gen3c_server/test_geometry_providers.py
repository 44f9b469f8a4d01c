"""Which provider answers, and what the user is told of the choice."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from gen3c_client import contract as contract_module
from torch import Tensor

from gen3c.errors import CancelledError, InvalidInputError
from gen3c.geometry import sfm
from gen3c.geometry.types import Geometry, Watch
from gen3c.geometry.vggt.provider import VggtOptions
from gen3c.geometry.vggt.weights import VggtSource
from gen3c.presets import VGGT_1B, VGGT_TINY, VggtConfig
from gen3c_server.geometry_providers import GeometryProviders, VggtModel
from gen3c_server.geometry_wire import GeometryOptions
from tests.gen3c.geometry.vggt.test_provider import Oracle, pictures

WATCH = Watch()
FRAMES = pictures((168, 280), (168, 280))
ONES, EYES = torch.ones(2, 4, 4), [torch.eye(n).repeat(2, 1, 1) for n in (4, 3)]
SFM_ANSWER = Geometry(ONES, ONES, *EYES)


def providers(config: VggtConfig, *, weights: bool, may_be_untrained: bool = True) -> GeometryProviders:
    source = VggtSource(config, Path("model.pt") if weights else None)
    return GeometryProviders(VggtModel(Oracle(), source, lambda: "of a test", may_be_untrained), max_pixels=10**6)


def answer(*_: object, **__: object) -> Geometry:
    return SFM_ANSWER


def fail(*_: object, **__: object) -> Geometry:
    raise InvalidInputError("None of the frames could be placed.", "MEDIA")


@pytest.fixture
def sfm_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sfm, "estimate", answer)


@pytest.fixture
def sfm_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sfm, "estimate", fail)


@pytest.mark.usefixtures("sfm_works")
def test_released_weights_are_taken_by_themselves() -> None:
    geometry = providers(VGGT_1B, weights=True).estimate(FRAMES, GeometryOptions("auto"), None, WATCH)
    assert geometry.info["provider"] == "vggt"
    assert geometry.info["weights"] == "of a test"
    assert geometry.notes == ("Geometry by vggt: the server has weights of VGGT-1B.",)
    assert geometry.warnings == ()


@pytest.mark.usefixtures("sfm_works")
@pytest.mark.parametrize("weights", [True, False])
def test_without_released_weights_it_is_structure_from_motion(weights: bool) -> None:
    geometry = providers(VGGT_TINY, weights=weights).estimate(FRAMES, GeometryOptions("auto"), None, WATCH)
    assert geometry.depth is SFM_ANSWER.depth
    assert geometry.notes == ("Geometry by sfm (structure from motion): the server has no weights of VGGT-1B.",)


@pytest.mark.usefixtures("sfm_works")
def test_more_frames_than_the_network_takes_go_to_structure_from_motion() -> None:
    many = pictures(*[(16, 16)] * 201)
    geometry = providers(VGGT_1B, weights=True).estimate(many, GeometryOptions("auto"), None, WATCH)
    assert geometry.notes == ("Geometry by sfm (structure from motion): VGGT-1B takes 200 frames at most.",)


@pytest.mark.usefixtures("sfm_fails")
def test_a_trained_lesser_network_takes_over_where_structure_from_motion_fails() -> None:
    geometry = providers(VGGT_TINY, weights=True).estimate(FRAMES, GeometryOptions("auto"), None, WATCH)
    assert geometry.info["provider"] == "vggt"
    (note,) = geometry.notes
    assert note == (
        "Geometry by vggt (VGGT-tiny), because structure from motion failed: None of the frames could be placed."
    )
    assert not any("untrained" in warning for warning in geometry.warnings)


@pytest.mark.usefixtures("sfm_fails")
def test_an_untrained_network_never_takes_over() -> None:
    with pytest.raises(InvalidInputError) as caught:
        providers(VGGT_TINY, weights=False).estimate(FRAMES, GeometryOptions("auto"), None, WATCH)
    assert str(caught.value) == (
        "None of the frames could be placed. (That is geometry by sfm, structure from motion: the server has no "
        "weights of VGGT-1B. VGGT's weights on the server, or a geometry file, need no matching.)"
    )
    assert caught.value.field == "MEDIA"


def test_being_stopped_is_no_failure_that_another_provider_mends() -> None:
    with pytest.raises(CancelledError):
        providers(VGGT_TINY, weights=True).estimate(FRAMES, GeometryOptions("auto"), None, Watch(lambda: True))


def test_untrained_weights_are_warned_of_or_refused() -> None:
    options = GeometryOptions("vggt")
    geometry = providers(VGGT_TINY, weights=False).estimate(FRAMES, options, None, WATCH)
    assert geometry.warnings[0] == "untrained weights: vggt. Depth and cameras mean nothing."
    with pytest.raises(InvalidInputError, match="this server has no weights of VGGT; legal: 'sfm', 'file'") as caught:
        providers(VGGT_TINY, weights=False, may_be_untrained=False).estimate(FRAMES, options, None, WATCH)
    assert caught.value.field == "spec.geometry.provider"


@pytest.mark.usefixtures("sfm_works")
@pytest.mark.parametrize("provider", ["vggt", "sfm"])
def test_the_source_is_told_also_where_it_was_asked_for(provider: str) -> None:
    (note,) = providers(VGGT_1B, weights=True).estimate(FRAMES, GeometryOptions(provider), None, WATCH).notes
    assert note.startswith(f"Geometry by {provider}")
    assert note.endswith("as asked for.")


def test_the_thresholds_of_the_job_reach_the_network_s_answer() -> None:
    with pytest.raises(InvalidInputError, match="reaches 10, 1 being none, and 11 is asked for"):
        providers(VGGT_1B, weights=True).estimate(FRAMES, GeometryOptions("vggt", vggt_confidence=11.0), None, WATCH)
    half = GeometryOptions("vggt", vggt_drop_lowest=0.5)
    geometry = providers(VGGT_1B, weights=True).estimate(FRAMES, half, None, WATCH)
    assert geometry.info["vggt_drop_lowest"] == 0.5
    assert geometry.info["confident_fraction"] == 1.0  # all are the same: none is the lowest


@pytest.mark.parametrize(("provider", "file"), [("lidar", None), ("file", None), ("", b"npz")])
def test_what_is_no_provider_is_refused(provider: str, file: bytes | None) -> None:
    with pytest.raises(InvalidInputError, match="legal: 'auto', 'vggt', 'sfm', or 'file' with GEOMETRY"):
        providers(VGGT_1B, weights=True).estimate(FRAMES, GeometryOptions(provider), file, WATCH)


def broken(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    raise RuntimeError(f"no memory for {len(inputs)} inputs")


def test_a_failure_of_the_network_is_not_hidden_by_structure_from_motion() -> None:
    model = VggtModel(broken, VggtSource(VGGT_1B, Path("model.pt")), lambda: "of a test", True)
    with pytest.raises(RuntimeError, match="no memory"):
        GeometryProviders(model, 10**6).estimate(FRAMES, GeometryOptions("auto"), None, WATCH)


@pytest.mark.usefixtures("sfm_works")
def test_thresholds_that_have_no_effect_are_said_to_have_none() -> None:
    options = GeometryOptions("auto", vggt_drop_lowest=0.1)
    (note,) = providers(VGGT_TINY, weights=False).estimate(FRAMES, options, None, WATCH).notes
    assert note.endswith("The thresholds of vggt have no effect.")


def test_the_thresholds_have_the_same_defaults_everywhere() -> None:
    wire, contract, own = GeometryOptions("vggt"), contract_module.GeometryOptions(), VggtOptions()
    assert wire.vggt_confidence == contract.vggt_confidence == own.min_confidence
    assert wire.vggt_drop_lowest == contract.vggt_drop_lowest == own.drop_lowest
