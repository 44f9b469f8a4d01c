"""The command line without a server: checks, plans, help, plugins, exit codes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gen3c_client import cli
from gen3c_client.contract import JobSpec

Run = Callable[..., Any]


def test_a_dry_run_prints_what_would_be_sent_and_writes_nothing(run: Run, photo: Path, tmp_path: Path) -> None:
    ended = run(
        "generate", photo, "--dry-run", "--path", "zoom_in", "--output", tmp_path / "out", "--save", "video,points"
    )
    assert ended.code == 0
    for text in (str(photo), '"zoom_in"', str(tmp_path / "out" / "points.ply"), "Nothing was sent"):
        assert text in ended.out.replace("\n  ", " ")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_for_programs_is_one_json_line(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photo.parent)
    ended = run("generate", "photo.jpg", "--dry-run", "--json", "--seed", 7, "--url", "gpu:9")
    plan = json.loads(ended.out)
    assert JobSpec.model_validate(plan["spec"]) == JobSpec(seed=7, names=["photo.jpg"])
    assert (plan["url"], plan["media"]) == ("gpu:9", {"photo.jpg": photo.stat().st_size})
    assert plan["outputs"] == ["outputs/photo/video.mp4"]
    assert ended.err == ""


def test_every_flag_of_a_job_reaches_the_spec(run: Run, photo: Path) -> None:
    flags = (
        "--preset tiny --prompt fountain --negative-prompt blur --select interval --frame-interval 5 --max-frames 4 "
        "--fit pad --min-confidence 0.3 --scale reference --path up --rotation no_rotation --distance 0.7 "
        "--num-frames 49 --fusion vector_max --foreground-masking --seed 3 --steps 12 --guidance 1.5 --fps 30 "
        "--save cameras,warps"
    )
    spec = json.loads(run("generate", photo, "--dry-run", "--json", *flags.split()).out)["spec"]
    assert JobSpec.model_validate(spec) == JobSpec.model_validate_json(
        json.dumps(
            {
                "preset": "tiny",
                "prompt": "fountain",
                "negative_prompt": "blur",
                "select": {"method": "interval", "frame_interval": 5, "max_frames": 4},
                "fit": "pad",
                "geometry": {"min_confidence": 0.3, "scale": "reference"},
                "path": {"kind": "up", "rotation": "no_rotation", "distance": 0.7},
                "num_frames": 49,
                "fusion": "vector_max",
                "foreground_masking": True,
                "seed": 3,
                "steps": 12,
                "guidance": 1.5,
                "fps": 30.0,
                "save": ["warps", "cameras"],
                "names": ["photo.jpg"],
            }
        )
    )


def test_results_go_to_a_folder_named_after_the_first_input(run: Run, tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "house.v2"
    folder.mkdir()
    photo.rename(folder / "p.jpg")
    for given, name in ((folder, "house.v2"), (folder / "p.jpg", "p"), (f"{folder}/*.jpg", "p")):
        assert json.loads(run("generate", given, "--dry-run", "--json").out)["outputs"] == [f"outputs/{name}/video.mp4"]


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        ("missing.jpg", 2, "no file, folder or glob match"),
        ("photo.jpg --frame-interval 3 --select first-max", 2, "The step of first-max is --step-size"),
        ("photo.jpg --max-frames 10000", 0, ""),
        ("photo.jpg --max-frames 10001", 2, "less than or equal to 10000"),
        ("photo.jpg --select first-max --step-size 1000001", 2, "less than or equal to 1000000"),
        ("photo.jpg --select interval --frame-interval 1000001", 2, "less than or equal to 1000000"),
        ("photo.jpg --timeout 0", 2, "--timeout must be more than 0 seconds, got 0"),
        ("photo.jpg --geometry file", 2, "needs --geometry-file"),
        ("photo.jpg --geometry sfm --geometry-file g.npz", 2, "no effect with --geometry sfm"),
        ("photo.jpg --geometry-file g.npz", 2, "it has 2 views, and 1 images are given"),
        ("photo.jpg --cameras none.json", 2, "none.json cannot be read"),
        ("photo.jpg --url http://x:1", 2, "host:port"),
        ("photo.jpg --tls-certificate c.pem", 2, "belong together"),
        ("photo.jpg --save video,mesh", 2, "comma list"),
        ("photo.jpg --output photo.jpg", 2, "is a file"),
        ("photo.jpg --output done", 6, "video.mp4 exists. Give --force"),
        ("photo.jpg --output done --force", 0, ""),
        ("photo.jpg --output done --save points", 0, ""),
        ("photo.jpg --seed x", 2, "unable to parse string as an integer"),
        ("photo.jpg --path sideways", 2, "'sideways' is not one of"),
    ],
)
def test_checks_before_sending(
    run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch, flags: str, code: int, sentence: str
) -> None:
    monkeypatch.chdir(photo.parent)
    depth = np.ones((2, 6, 8), np.float32)
    np.savez("g.npz", depth=depth, w2c=np.stack([np.eye(4)] * 2), K=np.stack([np.eye(3)] * 2))
    Path("done").mkdir()
    Path("done/video.mp4").touch()
    ended = run("generate", *flags.split(), "--dry-run")
    assert ended.code == code
    assert sentence in " ".join(ended.err.replace("│", " ").split())


def test_errors_of_a_json_run_are_events_too(run: Run, tmp_path: Path) -> None:
    ended = run("generate", tmp_path / "missing.jpg", "--json")
    assert ended.code == 2
    event = json.loads(ended.out)
    assert (event["event"], event["code"], event["field"]) == ("error", "INVALID_ARG", "INPUT")
    assert ended.err == ""


def test_no_server_is_exit_code_3_and_leaves_no_folder(run: Run, photo: Path, tmp_path: Path) -> None:
    ended = run("generate", photo, "--url", "127.0.0.1:9", "--output", tmp_path / "out")
    assert ended.code == 3
    assert "No server can be reached at 127.0.0.1:9 (Connection refused). Start one with `gen3c serve`" in ended.err
    assert not (tmp_path / "out").exists()


def test_the_url_may_come_from_the_environment(run: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEN3C_URL", "gpu:7")
    assert json.loads(run("generate", photo, "--dry-run", "--json").out)["url"] == "gpu:7"


def test_help_groups_the_flags_and_tells_the_exit_codes(run: Run) -> None:
    ended = run("generate", "--help")
    assert ended.code == 0
    for text in ("Camera path", "Input frames", "Results", "Server", "GEN3C_URL", "Examples", "130 interrupted"):
        assert text in " ".join(ended.out.split())


def test_version(run: Run) -> None:
    assert run("version").out.startswith("gen3c-triton 0.")


def hello(name: str = "you") -> None:
    """Greet."""
    print(f"hello {name}")


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entries = {
        "hello": EntryPoint("hello", f"{__name__}:hello", cli.COMMAND_GROUP),
        "serve": EntryPoint("serve", "gen3c_no_such_module:serve", cli.COMMAND_GROUP),
    }
    monkeypatch.setattr(cli, "_plugins", lambda: entries)
    cli._load_plugin.cache_clear()
    yield
    cli._load_plugin.cache_clear()  # other tests know other plugins


@pytest.mark.usefixtures("plugins")
def test_commands_of_installed_extras_are_listed_and_run(run: Run) -> None:
    listed = run("--help").out
    assert "Greet." in listed
    assert "serve" not in listed
    assert run("hello", "--name", "world").out == "hello world\n"


@pytest.mark.usefixtures("plugins")
def test_a_command_whose_extra_is_missing_says_what_to_install(run: Run) -> None:
    ended = run("serve")
    assert ended.code == 2
    assert "gen3c serve needs more than the client: No module named 'gen3c_no_such_module'" in ended.err
    assert "pip install 'gen3c-triton[serve,embedded]'" in ended.err


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from gen3c_client.cli import main\n"
        "try: main(['generate', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('grpc', 'tritonclient', 'numpy', 'torch', 'gen3c', 'gen3c_server') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "[]"
