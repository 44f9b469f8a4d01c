"""The commands of the documents that need a server."""

from pathlib import Path

import pytest
from gen3c_client.contract import ARTIFACT_FILES

from gen3c.media import decode_video
from gen3c.presets import TINY
from gen3c_server.launcher import EmbeddedServer
from tests.server.conftest import SmallJob, clip
from tests.test_docs import BIN, README, commands, execute

LOCAL = "127.0.0.1:8001"


def test_the_health_check_of_the_documents_asks_the_server(server: EmbeddedServer, tmp_path: Path) -> None:
    (code,) = [command.words[2] for command in commands() if command.words[1] == "-c"]
    alive = execute([BIN / "python", "-c", code.replace(LOCAL, server.grpc_url)], tmp_path)
    assert alive.returncode == 0, alive.stderr
    # Nothing listens on port 1.
    dead = execute([BIN / "python", "-c", code.replace(LOCAL, "127.0.0.1:1")], tmp_path)
    assert dead.returncode != 0


def generate_commands() -> list[tuple[str, ...]]:
    found = [command.words for command in commands() if command.document == README.name]
    return [words for words in found if words[1:2] == ("generate",) and "--dry-run" not in words]


@pytest.mark.parametrize("words", generate_commands(), ids=" ".join)
def test_a_generate_command_of_the_readme_makes_its_files(
    words: tuple[str, ...], server: EmbeddedServer, tmp_path: Path
) -> None:
    """As written, but with a known geometry instead of half a minute of reconstruction, and few steps."""
    job = SmallJob(views=3)
    (tmp_path / "photos").mkdir()
    for i, data in enumerate(job.media):
        (tmp_path / "photos" / f"{i}.png").write_bytes(data)
    (tmp_path / "my.mp4").write_bytes(clip(31))  # every 15th frame: three views
    (tmp_path / "geometry.npz").write_bytes(job.geometry)
    shorter = ["--geometry-file", "geometry.npz", "--steps", "2", "--output", "here", "--url", server.grpc_url]
    ended = execute([BIN / "gen3c", *words[1:], *shorter], tmp_path, timeout_s=120)
    assert ended.returncode == 0, ended.stderr
    wanted = words[words.index("--save") + 1].split(",")
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        file for name, (file, _) in ARTIFACT_FILES.items() if name in wanted
    }
    assert len(list(decode_video((tmp_path / "here" / "warps.mp4").read_bytes()))) == TINY.chunk_frames
