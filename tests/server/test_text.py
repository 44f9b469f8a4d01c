"""Prompts through the real server, with a text encoder in its checkpoint directory."""

from pathlib import Path

from gen3c_client.transport import Client

from gen3c.exported.manifest import REPOSITORY, Kind, Manifest
from gen3c.generator.t5 import CACHE_FOLDER, NETWORK_FOLDER
from gen3c.generator.weights import load_dit, load_vae
from gen3c.networks import UNTRAINED_SEED, WeightSource
from gen3c.presets import TINY
from gen3c_export.build import BuildOptions, build
from gen3c_server.canary import check
from gen3c_server.launcher import EmbeddedServer, ServeOptions
from tests.gen3c.generator.checkpoint_files import save_transformer, save_vae
from tests.server.conftest import SmallJob, run
from tests.tiny_t5 import write_encoder

PROMPT = "a red barn by the sea"


def write_checkpoints(folder: Path) -> Path:
    """The weights that a server without a checkpoint directory would draw, and a text encoder."""
    vae, _ = load_vae(TINY, untrained_seed=UNTRAINED_SEED)
    dit, _ = load_dit(TINY, untrained_seed=UNTRAINED_SEED)
    save_transformer(folder, TINY, dit.transformer.state_dict())
    save_vae(folder, TINY, vae.state_dict())
    write_encoder(folder / NETWORK_FOLDER)
    return folder


def test_a_prompt_is_read(tmp_path: Path) -> None:
    """By the leaf of a built repository; all networks in PyTorch, which takes no time to build."""
    checkpoints = write_checkpoints(tmp_path / "checkpoints")
    kinds: dict[str, Kind] = dict.fromkeys(("dit", "video_encoder", "video_decoder"), "pytorch")
    built = build(BuildOptions(WeightSource(TINY, checkpoints), "cpu", tmp_path / "build", kinds=kinds))
    assert "text_encoder" in Manifest.read(built).artifacts
    environment = {"GEN3C_CHECKPOINTS": str(checkpoints)}
    with EmbeddedServer(ServeOptions(built / REPOSITORY, environment=environment)) as server:
        server.wait_ready(check)
        client, job = Client(server.grpc_url), SmallJob(views=1)
        prompted = run(client, job, prompt=PROMPT, negative_prompt="a house at night", guidance=1.0)
        assert str(prompted.done.provenance["text_encoder"]).startswith("text_encoder (sha256 ")
        assert len(list((checkpoints / CACHE_FOLDER).rglob("*.safetensors"))) == 2
        other = run(client, job, prompt="a blue house", negative_prompt="a house at night", guidance=1.0)
        assert other.files["video.mp4"] != prompted.files["video.mp4"]
        again = run(client, job, prompt=PROMPT, negative_prompt="a house at night", guidance=1.0)
        assert again.files["video.mp4"] == prompted.files["video.mp4"]
