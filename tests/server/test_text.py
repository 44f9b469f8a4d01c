"""Prompts through the real server, with a text encoder in its checkpoint directory."""

from gen3c_client.transport import Client

from gen3c.generator.t5 import CACHE_FOLDER
from tests.server.conftest import SmallJob, Weighted, run

PROMPT = "a red barn by the sea"


def test_a_prompt_is_read(weighted: Weighted) -> None:
    def cached() -> int:
        return len(list((weighted.checkpoints / CACHE_FOLDER).rglob("*.safetensors")))

    before, client, job = cached(), Client(weighted.server.grpc_url), SmallJob(views=1)
    prompted = run(client, job, prompt=PROMPT, negative_prompt="a house at night", guidance=1.0)
    assert str(prompted.done.provenance["text_encoder"]).startswith("text_encoder (sha256 ")
    assert cached() == before + 2
    other = run(client, job, prompt="a blue house", negative_prompt="a house at night", guidance=1.0)
    assert other.files["video.mp4"] != prompted.files["video.mp4"]
    again = run(client, job, prompt=PROMPT, negative_prompt="a house at night", guidance=1.0)
    assert again.files["video.mp4"] == prompted.files["video.mp4"]
