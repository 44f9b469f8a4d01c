"""Geometry by VGGT through the real server: what users send, what is wrong with it, and weights that are broken."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import tritonclient.grpc as triton
from gen3c_client.contract import Info, JobSpec
from gen3c_client.errors import JobError
from gen3c_client.transport import Client
from PIL import Image
from tritonclient.utils import InferenceServerException

from gen3c.geometry.vggt.weights import VggtSource, load_vggt
from gen3c.presets import VGGT_TINY
from gen3c_server.canary import check
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from gen3c_server.launcher.errors import ServerError
from gen3c_server.repository import default_model_repository
from tests.server.conftest import Result, Weighted, collect, picture, png, raw_job, vggt_weights

WHITE = png(Image.new("RGB", (320, 192), "white"))


def spec(provider: str = "vggt", **more: object) -> JobSpec:
    """A short job, of all that the network says: of noise it is sure of little."""
    geometry = {"provider": provider, "vggt_confidence": 1.0}
    return JobSpec.model_validate({"geometry": geometry, "steps": 2} | more)


def run(client: Client, media: list[bytes], provider: str = "vggt", **more: object) -> Result:
    return collect(client.generate(media, spec(provider, **more)))


def test_pictures_of_any_sizes_make_a_video(client: Client) -> None:
    sizes = [(192, 320), (320, 192), (200, 200), (64, 400)]
    media = [png(picture(seed=i, height=height, width=width)) for i, (height, width) in enumerate(sizes)]
    result = run(client, media, save=["video", "geometry", "points"])
    geometry = result.done.provenance["geometry"]
    assert isinstance(geometry, dict)
    assert geometry["provider"] == "vggt"
    assert str(geometry["weights"]).startswith("VGGT-tiny, model.safetensors (sha256 ")
    assert geometry["network_size"] == [280, 280]  # the longer sides, of a landscape and a portrait
    assert isinstance(geometry["agreement"], float)
    assert not any("untrained" in notice for notice in result.notices)
    arrays = np.load(io.BytesIO(result.files["geometry.npz"]))
    assert arrays["sizes"].tolist() == [list(size) for size in sizes]
    assert np.array_equal(arrays["w2c"][0], np.eye(4))
    for i, (height, width) in enumerate(sizes):
        assert (arrays["depth"][i, :height, :width] > 0).mean() > 0.5
        assert not arrays["depth"][i, height:].any()
        assert not arrays["confidence"][i, :, width:].any()


def test_one_picture_is_allowed_and_warned_of(client: Client) -> None:
    result = run(client, [png(picture())])
    assert "video.mp4" in result.files
    assert any("no parallax" in notice for notice in result.notices)


def test_white_pictures_do_no_harm(client: Client) -> None:
    """White is also what pictures are padded with."""
    result = run(client, [WHITE, WHITE], save=["video", "geometry"])
    arrays = np.load(io.BytesIO(result.files["geometry.npz"]))
    assert np.isfinite(arrays["depth"]).all()
    assert (arrays["depth"] > 0).mean() > 0.5  # where the network is not at all sure there is none


@pytest.mark.parametrize(("count", "said"), [(0, "MEDIA"), (201, "200 views")])
def test_no_frames_and_too_many_are_refused(server: EmbeddedServer, count: int, said: str) -> None:
    media = [png(Image.new("RGB", (32, 32), (i, i, i))) for i in range(count)]
    _, message = raw_job(server.grpc_url, spec().model_dump_json().encode(), media)
    assert message is not None
    assert message.startswith("INVALID_ARG(MEDIA)")
    assert said in message
    check(server.grpc_url)


def test_confidence_that_no_pixel_has_is_an_error_of_the_job_alone(server: EmbeddedServer, client: Client) -> None:
    with pytest.raises(JobError) as caught:
        run(client, [png(picture())], geometry={"provider": "vggt", "vggt_confidence": 1e6})
    assert caught.value.code == "INVALID_ARG"
    assert caught.value.field == "spec.geometry.vggt_confidence"
    assert "1e+06 is asked for" in str(caught.value)
    check(server.grpc_url)


@pytest.mark.parametrize(
    ("shape", "said"), [((0, 28, 28, 3), "at least 1"), ((1, 28, 30, 3), "30x28 px; legal: sides that are multiples")]
)
def test_the_leaf_refuses_what_the_network_cannot_take(
    server: EmbeddedServer, shape: tuple[int, ...], said: str
) -> None:
    images = triton.InferInput("IMAGES", list(shape), "UINT8")
    images.set_data_from_numpy(np.zeros(shape, np.uint8))
    with triton.InferenceServerClient(server.grpc_url) as peer, pytest.raises(InferenceServerException, match=said):
        peer.infer("vggt", [images])
    check(server.grpc_url)


def test_a_network_with_weights_takes_over_where_structure_from_motion_fails(weighted: Weighted) -> None:
    events = list(Client(weighted.server.grpc_url).generate([png(picture())], spec("auto")))
    (info,) = [event.message for event in events if isinstance(event, Info)]
    assert info.startswith("Geometry by vggt (VGGT-tiny), because structure from motion failed: ")
    result = collect(iter(events))
    assert not any("untrained weights: vggt" in notice for notice in result.notices)
    geometry = result.done.provenance["geometry"]
    assert isinstance(geometry, dict)
    assert str(geometry["weights"]).startswith("VGGT-tiny, model.safetensors (sha256 ")


def test_weights_that_are_no_numbers_end_the_start_with_a_sentence(tmp_path: Path) -> None:
    name = "aggregator.global_blocks.2.mlp.fc1.weight"
    broken = load_vggt(VggtSource(VGGT_TINY, None)).state_dict()[name].clone()
    broken[5, 7] = torch.nan
    path = vggt_weights(tmp_path / "model.safetensors", **{name: broken})
    shutil.copytree(default_model_repository() / "vggt", tmp_path / "models" / "vggt")  # alone: others take time
    options = ServeOptions(tmp_path / "models", environment={"GEN3C_VGGT": str(path)})
    with EmbeddedServer(options) as server, pytest.raises(ServerError) as caught:
        server.wait_ready()
    assert f"{name} has values that are not finite" in str(caught.value)
