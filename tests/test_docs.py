"""What the documents say is so: their commands run, their examples work, their tables match the code."""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import kubernetes_validate
import numpy as np
import pytest
import torch
import typer
import yaml
from gen3c_client.camera_file import load_camera_file
from gen3c_client.contract import ARTIFACT_FILES, CameraFile, Limits
from PIL import Image

from gen3c.camera_spline import interpolate_cameras
from gen3c.cameras import PathKind, RotationMode, camera_path
from gen3c.exported.manifest import DEPLOYMENT, REPOSITORY, TARGETS
from gen3c.media import decode_video
from gen3c.presets import GEN3C_7B, TINY
from gen3c.samples import COURTYARD
from gen3c_export import cli as export
from gen3c_export import repository_cli
from gen3c_export.compare import FP8_TOLERANCE, MOST_WIDENED, TOLERANCES
from gen3c_export.published import PUBLISHED_MD5, STATISTICS, TOKENIZER
from gen3c_server.cli import serve
from gen3c_server.json_lines import json_line
from gen3c_server.launcher.health_server import PAGES
from gen3c_server.launcher.status import BEAT_WITHIN_S, CAUSES, FIGURES
from gen3c_server.metrics import FAMILIES, JOB_BUCKETS, OUTCOMES, STAGE_BUCKETS, STAGES, STEP_BUCKETS
from gen3c_server.settings import Deployment
from tests import cluster_commands, docker_commands
from tests.deploy import chart
from tests.gen3c.exported.samples import manifest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
BIN = Path(sys.executable).parent

EXPORT_COMMANDS: dict[str, Callable[..., None]] = {
    "build": repository_cli.build,
    "onnx": repository_cli.onnx,
    "verify": repository_cli.verify,
    "inspect": repository_cli.inspect,
    "clean": repository_cli.clean,
}
ELSEWHERE = {*docker_commands.WORDS, *cluster_commands.WORDS}  # commands that have a test of their own
WITHOUT = {"--seed": "a fresh one"}  # what it is without an option that has no default

# A make that runs these tests hands its own flags and level on; and commands for a GPU are not to start here.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "GEN3C_"))}
ENVIRONMENT["CUDA_VISIBLE_DEVICES"] = ""


@dataclass(frozen=True)
class Command:
    """One line of a shell block."""

    document: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document}: {' '.join(self.words)}"


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> list[Command]:
    """The lines of all shell blocks, without comments."""
    lines = [
        (path.name, line) for path in DOCUMENTS for block in blocks(path, "sh|bash") for line in block.splitlines()
    ]
    parsed = [Command(name, tuple(shlex.split(line, comments=True))) for name, line in lines]
    return [command for command in parsed if command.words]


def section(document: Path, heading: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"^##? ", document.read_text().partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]


def execute(arguments: list[str | Path], cwd: Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the documents' commands name."""
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.new("RGB", (64, 48), (80 * i, 100, 100)).save(tmp_path / "photos" / f"{i}.jpg")
    for name in ("my.mp4", "room.mp4"):
        shutil.copy(COURTYARD, tmp_path / name)
    for name in ("ca.pem", "client.pem", "client.key"):
        (tmp_path / name).write_text("what a client reads, and only a connection understands")
    (tmp_path / "path.json").write_text(blocks(DOCS / "cameras.md", "json")[0])
    return tmp_path


def save_empty_build(folder: Path) -> None:
    """What the launcher sees of a build, for a GPU."""
    preset, _, target = folder.name.rpartition("-")
    (chosen,) = [known for known in TARGETS if known == target]
    (folder / REPOSITORY).mkdir(parents=True)
    (folder / DEPLOYMENT).touch()
    manifest(target=chosen, version=version("gen3c-triton")).model_copy(update={"preset": preset}).write(folder)


@pytest.mark.parametrize("command", [one for one in commands() if one.words[0] not in ELSEWHERE], ids=str)
def test_a_command_of_the_documents_is_one_that_works(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = ""  # what a command says that cannot succeed here, once it has understood the rest
    match command.words:
        case ("make", *arguments):
            ended = execute(["make", "-n", *arguments], ROOT)
        case ("gen3c" | ".venv/bin/gen3c", "generate", *arguments):
            output = folder / "dry-run"
            ended = execute([BIN / "gen3c", "generate", *arguments, "--dry-run", "--output", output], folder)
            assert "Nothing was sent" in ended.stdout
        case ("gen3c-export", "convert", *arguments):
            # Files of the published size do not lie about; the command is understood if these are read.
            for name in ("GEN3C-Cosmos-7B/model.pt", *(f"Cosmos-Tokenize1-CV8x8x8-720p/{n}" for n in TOKENIZER[:2])):
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(b"not downloaded")
            (folder / "Cosmos-Tokenize1-CV8x8x8-720p" / STATISTICS).touch()
            ended = execute([BIN / "gen3c-export", "convert", *arguments], folder)
            refusal = "Error: Nothing was written, for the files do not fit gen3c-7b (4 problems)"
        case ("gen3c-export" | ".venv/bin/gen3c-export", "build", *arguments) if "cuda" in arguments:
            (folder / "checkpoints").mkdir()
            ended = execute([BIN / "gen3c-export", "build", *arguments], folder)
            refusal = "Target cuda is built on the GPU that will serve it, and PyTorch sees none here"
        case ("gen3c-export", name, *arguments):
            # A test that is marked slow runs them.
            (folder / "build" / "tiny-cpu").mkdir(parents=True)
            monkeypatch.chdir(folder)
            verbs: Any = typer.main.get_command(export.app)
            verbs.commands[name].make_context(name, list(arguments))
            return
        case ("gen3c" | ".venv/bin/gen3c", "serve", "--model-repository", build, *arguments):
            (folder / "checkpoints").mkdir()
            save_empty_build(folder / build)
            ended = execute([BIN / "gen3c", "serve", "--model-repository", build, *arguments], folder)
            refusal = "it was built for NVIDIA H100 (compute capability 9.0), and there is no GPU here"
        case (".venv/bin/gen3c", "serve", *arguments) if "checkpoints" in arguments:
            (folder / "checkpoints").mkdir()
            ended = execute([BIN / "gen3c", "serve", *arguments], folder)
            refusal = "There is no transformer in checkpoints"
        case ("gen3c", "serve", "--vggt", file):
            (folder / file).parent.mkdir()
            (folder / file).write_bytes(b"not downloaded")
            ended = execute([BIN / "gen3c", "serve", "--vggt", file], folder)
            refusal = f"{file} is truncated, or no state dict of PyTorch"
        case (".venv/bin/python", "-c", code):
            compile(code, command.document, "exec")  # tests/server/test_readme.py runs it
            return
        case (".venv/bin/python", script, *arguments) if script.startswith("benchmarks/"):
            # Two photos are too few to leave one out.
            ended = execute([BIN / "python", ROOT / script, *arguments], folder)
            refusal = "error: --hold-out is 4; legal: 0 to 1"
        case _:
            pytest.fail(f"no test knows how to try {command}")
    assert (ended.returncode == 0) == (not refusal), ended.stderr
    assert refusal in ended.stderr


@pytest.mark.parametrize("command", [one for one in commands() if one.words[0] in docker_commands.WORDS], ids=str)
def test_a_command_for_containers_fits_what_docker_has(command: Command, folder: Path) -> None:
    match command.words:
        case ("docker", "build", *arguments):
            docker_commands.check_build(arguments)
        case ("docker", "run", *arguments):
            docker_commands.check_run(arguments, lambda target, words: check_arguments(target, words, folder))
        case ("docker", "compose", *arguments):
            docker_commands.check_compose(arguments, lambda target, words: check_arguments(target, words, folder))
        case ("export", *arguments):
            docker_commands.check_variables(arguments)
        case _:
            pytest.fail(f"no test knows {command}")


def check_arguments(target: str, words: list[str], folder: Path) -> None:
    """What the entry point of an image makes of these words."""
    match target, words:
        case "client", words:
            ended = execute([BIN / "gen3c", *words, "--dry-run"], folder)
            assert ended.returncode == 0, ended.stderr
        case "server", words:
            app = typer.Typer()
            app.command("serve")(serve)
            command: Any = typer.main.get_command(app)
            command.make_context("serve", words)
        case "export", [name, *words]:
            verbs: Any = typer.main.get_command(export.app)
            verbs.commands[name].make_context(name, words)


@pytest.mark.parametrize("command", [one for one in commands() if one.words[0] in cluster_commands.WORDS], ids=str)
def test_a_command_for_clusters_fits_the_chart(command: Command) -> None:
    match command.words:
        case ("helm", *arguments):
            cluster_commands.check_helm(arguments)
        case ("kubectl", *arguments):
            cluster_commands.check_kubectl(arguments)


def test_the_sizes_for_operators_are_those_that_were_measured() -> None:
    text = section(DOCS / "operate.md", "Sizing") + section(DOCS / "operate.md", "Cold start")
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    # A job's seconds and memory, the start, and what it takes to compile each network.
    for said, measured in (
        ("294 s on an H200", "- wall time 294.4 s"),
        ("46.9 GiB", "- GPU memory of all processes: 46.9 GiB at most"),
        ("42 s on an H200", "- ready 41.8 s after the start"),
        ("238 s for the transformer", "| dit | 238 | 14.48 |"),
        ("84 to 91 s", "| video_encoder | 84 |"),
        ("84 to 91 s", "| video_decoder | 91 |"),
        ("7.9 with `--fp8`", "| dit, fp8 | 188 | 7.91 |"),
        ("16 GB for 200", "| 200 | 11.603 | 15.01 | 8.75 | 40.63 | 12.008 | 16.00 |"),
    ):
        assert said in text
        assert measured in results


def test_every_alert_is_explained_and_no_other() -> None:
    named = re.findall(r"^\| `(\w+)`(?: \((\w+)\))? \|", section(DOCS / "operate.md", "Alerts"), re.MULTILINE)
    groups = yaml.safe_load((ROOT / "docker" / "monitoring" / "alerts.yml").read_text())["groups"]
    rules = [(rule["alert"], rule["labels"]["severity"]) for group in groups for rule in group["rules"]]
    assert [(name, severity or "warning") for name, severity in named] == rules


def test_every_model_that_a_client_can_call_past_the_jobs_is_named() -> None:
    sentence = section(DOCS / "operate.md", "Threat model").partition("The inner models (")[2].partition(")")[0]
    shipped = {path.name for path in (ROOT / "model_repository").iterdir() if path.is_dir()}
    assert set(re.findall(r"`(\w+)`", sentence)) == shipped - {"gen3c"} | {"text_encoder"}


def test_the_manifests_for_operators_fit_the_chart() -> None:
    rule, pod = (yaml.safe_load(block) for block in blocks(DOCS / "operate.md", "yaml"))
    assert [one["name"]["as"] for one in rule["rules"]] == [chart.DEFAULTS["autoscaling"]["metric"]]
    kubernetes_validate.validate(pod, chart.KUBERNETES[-1], strict=True)
    release = chart.render(chart.profile("values-cpu.yaml"), name="gen3c")
    claims = [volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]]
    assert claims == [one["metadata"]["name"] for one in release.of("PersistentVolumeClaim")]
    (container,) = pod["spec"]["containers"]
    tag = container["image"].rpartition(":")[2]
    assert tag == version("gen3c-triton")


def test_the_verbs_of_make_that_the_documents_name_exist() -> None:
    named = {verb for path in DOCUMENTS for verb in re.findall(r"(?:`|^ {4})make ([a-z-]+)", path.read_text(), re.M)}
    assert {"demo", "install", "serve"} <= named
    ended = execute(["make", "-n", *sorted(named)], ROOT)
    assert ended.returncode == 0, ended.stderr


def test_the_input_of_the_demo_arrives() -> None:
    assert 'gen3c_server.demo "my.mp4"' in execute(["make", "-n", "demo", "INPUT=my.mp4"], ROOT).stdout


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.is_relative_to(ROOT), target
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_code_spans_exist(document: Path) -> None:
    """Those with a folder in front: `gen3c/fusion.py`."""
    tops = "gen3c|gen3c_export|gen3c_server|gen3c_client|model_repository|training|benchmarks|tests|docs|docker|deploy"
    for name in re.findall(rf"`((?:{tops})/[\w./]*)`", document.read_text()):
        assert (ROOT / name).exists() or (ROOT / "client" / name).exists(), name


def test_the_library_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (example,) = blocks(README, "python")
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    share = re.search(r"view 0 covers (\d+)%", capsys.readouterr().out)
    assert share is not None
    # Most of what view 0 shows is still in the picture after 0.3 centre depths; not all of it can be.
    assert 15 < int(share[1]) < 95
    assert (tmp_path / "points.ply").stat().st_size > 15 * 10_000  # bytes a point


def test_the_table_of_results_names_the_files_of_the_contract() -> None:
    files = set(re.findall(r"^\| `([\w.]+)` \|", section(README, "Quick start"), re.MULTILINE))
    assert files == {name for key, (name, _) in ARTIFACT_FILES.items() if key != "geometry"}
    assert f"{TINY.chunk_frames} frames of {TINY.width}x{TINY.height}" in README.read_text()


@pytest.mark.slow
def test_the_demo_makes_what_the_readme_promises(tmp_path: Path) -> None:
    ended = execute(["make", "demo", f"OUTPUT={tmp_path}"], ROOT, timeout_s=500)
    assert ended.returncode == 0, ended.stderr
    files = re.findall(r"^\| `([\w.]+)` \|", section(README, "Quick start"), re.MULTILINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)
    assert "untrained" not in ended.stderr


@pytest.mark.slow
def test_the_commands_that_export_tiny_do_what_the_document_says(tmp_path: Path) -> None:
    found = [c.words[1:] for c in commands() if c.document == "export.md" and c.words[0] == "gen3c-export"]
    words = [arguments for arguments in found if "cuda" not in arguments]
    assert [arguments[0] for arguments in words] == ["build", "verify", "inspect", "clean"]
    ended = [execute([BIN / "gen3c-export", *arguments], tmp_path, timeout_s=300) for arguments in words]
    assert all(one.returncode == 0 for one in ended), [one.stderr for one in ended]
    built, verified, inspected, cleaned = (one.stdout for one in ended)
    assert built == "build/tiny-cpu\n"
    assert verified.count("ok ") == len(verified.splitlines()) == 5
    assert inspected.endswith("All files are as they were built.\nThis machine can serve it.\n")
    assert cleaned == "build: 0 folder(s) removed.\n"
    # What the document shows of a build, and what it says of a copy.
    shutil.copytree(tmp_path / "build" / "tiny-cpu", tmp_path / "copy")
    shutil.rmtree(tmp_path / "build")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"manifest.json", DEPLOYMENT, REPOSITORY}
    ended = [execute([BIN / "gen3c-export", "inspect", "copy", "--files"], tmp_path)]
    assert ended[0].returncode == 0, ended[0].stderr
    assert ended[0].stdout == inspected


@pytest.mark.slow
def test_the_rerendering_benchmark_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i, frame in enumerate(list(decode_video(COURTYARD.read_bytes()))[::10]):
        Image.fromarray(frame.numpy()).save(tmp_path / "photos" / f"{i}.png")
    (command,) = [c for c in commands() if "benchmarks/rerender.py" in c.words]
    ended = execute([BIN / "python", ROOT / command.words[1], *command.words[2:]], tmp_path, timeout_s=500)
    assert ended.returncode == 0, ended.stderr
    score = re.fullmatch(r"psnr=([\d.]+) coverage=([\d.]+)", ended.stdout.splitlines()[-1])
    assert score is not None
    # The clip is small and has few frames; geometry that is wrong gives 12 to 15 dB.
    assert float(score[1]) > 18
    assert float(score[2]) > 0.5


def test_the_deployment_file_shows_every_limit_with_its_default(tmp_path: Path) -> None:
    example, _ = blocks(DOCS / "deployment.md", "yaml")
    (tmp_path / "deployment.yaml").write_text(example)
    assert Deployment.load(tmp_path / "deployment.yaml") == Deployment()
    assert set(yaml.safe_load(example)) == set(Deployment.model_fields)
    assert set(yaml.safe_load(example)["limits"]) == set(Limits.model_fields)


def test_the_tables_of_metrics_and_outcomes_are_complete() -> None:
    text = section(DOCS / "deployment.md", "Metrics")
    rows = re.findall(r"^\| `(gen3c_\w+)` \| (\w+) \| (?:`(\w+)` )?\| (.*) \|$", text, re.MULTILINE)
    assert rows == [(family.name, family.kind, family.label or "", family.help) for family in FAMILIES]
    assert tuple(re.findall(r"^\| `(\w+)` \|", text.partition("| outcome |")[2], re.MULTILINE)) == OUTCOMES
    stages, _, rest = text.partition("The stages are ")[2].partition(";")
    assert tuple(re.findall(r"`(\w+)`", stages)) == STAGES
    spans = re.findall(r"([\d.]+) to ([\d.]+) for a (stage|step|job)", rest)
    buckets = {"stage": STAGE_BUCKETS, "step": STEP_BUCKETS, "job": JOB_BUCKETS}
    assert {what: (float(least), float(most)) for least, most, what in spans} == {
        what: (bounds[0], bounds[-1]) for what, bounds in buckets.items()
    }


def test_the_table_of_the_launchers_own_figures_is_complete() -> None:
    text = section(DOCS / "deployment.md", "Supervision")
    rows = re.findall(r"^\| `(gen3c_\w+)` \| (\w+) \| (?:`(\w+)` )?\| (.*) \|$", text, re.MULTILINE)
    assert rows == [(figure.name, figure.kind, figure.label or "", figure.help) for figure in FIGURES]
    causes = text.partition("The causes are ")[2].partition("These figures")[0]
    assert tuple(re.findall(r"`(\w+)`", causes)) == CAUSES
    pages = re.findall(r"^\| `(/\w+)` \|", section(DOCS / "deployment.md", "Health"), re.MULTILINE)
    assert pages == list(PAGES)
    assert f"has not been for {BEAT_WITHIN_S:g} seconds" in section(DOCS / "deployment.md", "Health")


def test_the_log_lines_shown_have_the_fields_of_the_table() -> None:
    text = section(DOCS / "deployment.md", "Logs")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    shown = [json.loads(line) for block in blocks(DOCS / "deployment.md", "json") for line in block.splitlines()]
    assert [line["event"] for line in shown] == list(rows)
    for line in shown:
        fields = [name for name in line if name not in ("time", "event", "level", "job_id", "request_id", "trace_id")]
        assert [name for name in re.findall(r"`(\w+)`", rows[line["event"]]) if name in line] == fields
        assert list(line)[:2] == list(json.loads(json_line("any")))


def test_every_option_of_serve_is_documented_and_no_other() -> None:
    rows = re.findall(r"^\| (`--[^|]*)\| ([^|]*) \|", section(DOCS / "deployment.md", "Options"), re.MULTILINE)
    documented = {name: default for names, default in rows for name in re.findall(r"--[a-z-]+", names)}
    parameters = inspect.signature(serve).parameters
    assert set(documented) == {f"--{name.replace('_', '-')}" for name in parameters}
    plain = ("host", "http_port", "health_port", "start_timeout", "exit_timeout", "canary_interval", "canary_timeout")
    for name in (*plain, "stall_timeout", "restarts", "restart_window", "restart_grace"):
        default = parameters[name].default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert re.search(rf"\b{re.escape(shown)}\b", documented[f"--{name.replace('_', '-')}"])


def test_every_option_of_convert_is_documented_and_no_other() -> None:
    check_options(section(DOCS / "checkpoints.md", "Convert"), export.convert)


@pytest.mark.parametrize("name", EXPORT_COMMANDS)
def test_every_option_of_the_commands_of_export_is_documented_and_no_other(name: str) -> None:
    text = section(DOCS / "export.md", "Commands")
    assert f"`gen3c-export {name}" in text
    table = text.partition(f"| option of `{name}` |")[2].partition("\n\n")[0]
    check_options(table, EXPORT_COMMANDS[name])


def test_every_command_of_export_is_documented() -> None:
    verbs: Any = typer.main.get_command(export.app)
    assert set(verbs.commands) == {"convert", *EXPORT_COMMANDS}


def check_options(table: str, command: Callable[..., None]) -> None:
    """The rows of a table are the options of a command, each with its default."""
    rows = re.findall(r"^\| (`--[^|]*)\| ([^|]*) \|", table, re.MULTILINE)
    documented = {re.search(r"--[a-z0-9]+", names)[0]: default.strip("`") for names, default in rows}  # type: ignore[index]
    parameters = inspect.signature(command).parameters
    names = {f"--{declared_name(parameter)}": parameter for parameter in parameters.values() if is_option(parameter)}
    assert set(documented) == set(names)
    for name, parameter in names.items():
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else "off" if parameter.default is False else str(parameter.default)
        assert documented[name] == WITHOUT.get(name, "none") if default == "None" else default


def is_option(parameter: inspect.Parameter) -> bool:
    return isinstance(get_args(parameter.annotation)[1], typer.models.OptionInfo)


def declared_name(parameter: inspect.Parameter) -> str:
    """What an option is called: by its declaration, else as the parameter."""
    declared = get_args(parameter.annotation)[1].default
    return declared.removeprefix("--") if isinstance(declared, str) else parameter.name


def test_the_tolerances_are_those_of_the_code() -> None:
    text = section(DOCS / "export.md", "How exact")
    shown = [float(figure) for figure in re.findall(r"\b1e-\d\b", text)]
    assert shown == [TOLERANCES["float32"], TOLERANCES["bfloat16"], FP8_TOLERANCE]
    assert f"{MOST_WIDENED // 10**9} billion parameters" in text


def test_the_errors_of_the_table_are_those_of_the_code() -> None:
    code = "".join(
        re.sub(r'"\s*\n\s*f?"', "", path.read_text())
        for top in ("gen3c/exported", "gen3c_export", "gen3c_server")
        for path in (ROOT / top).rglob("*.py")
    )
    rows = re.findall(r"^\| (`[^|]*) \|", section(DOCS / "export.md", "What the errors mean"), re.MULTILINE)
    assert len(rows) > 9
    for words in (words for row in rows for words in re.findall(r"`([^`]*)`", row)):
        assert words in code.replace("{MANIFEST}", "manifest.json"), words


def test_the_table_of_targets_is_complete() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section(DOCS / "export.md", "Targets"), re.MULTILINE) == list(TARGETS)


def test_the_published_files_are_named() -> None:
    table = section(DOCS / "checkpoints.md", "What to download")
    assert set(re.findall(r"`([\w.]+)`", table)) == set(PUBLISHED_MD5)


def test_every_environment_variable_is_documented_and_no_other() -> None:
    code = [
        path
        for top in ("gen3c", "gen3c_export", "gen3c_server", "client", "model_repository")
        for path in ROOT.glob(f"{top}/**/*.py")
    ]
    used = {name for path in code for name in re.findall(r"\bGEN3C_[A-Z_]+\b", path.read_text())}
    assert set(re.findall(r"`(GEN3C_[A-Z_]+)`", section(DOCS / "deployment.md", "Environment"))) == used


@pytest.mark.parametrize("kind", get_args(PathKind))
def test_the_table_of_paths_tells_where_they_lead(kind: PathKind) -> None:
    rows = dict(
        re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", section(DOCS / "cameras.md", "Named paths"), re.MULTILINE)
    )
    n, distance = 25, 0.3
    w2c = camera_path(kind, n, torch.eye(4), rotation="no_rotation", distance=distance)
    centers = torch.linalg.inv(w2c)[:, :3, 3]
    if rows[kind] == "closed":
        middle = torch.tensor([-distance if kind == "clockwise" else distance, 0, 0])
        assert torch.allclose((centers - middle).norm(dim=1), torch.full((n,), distance), atol=1e-6)
        assert torch.allclose(centers[-1], torch.zeros(3), atol=1e-6)
        return
    sign, axis = rows[kind]
    expected = torch.zeros(3)
    expected["xyz".index(axis)] = float(f"{sign}1") * distance * (n - 1) / n
    assert torch.allclose(centers[-1], expected, atol=1e-6)


def test_the_table_of_rotations_is_complete() -> None:
    table = section(DOCS / "cameras.md", "Named paths").partition("| rotation |")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(RotationMode))


def test_the_camera_file_goes_where_the_text_says(folder: Path) -> None:
    file = load_camera_file(folder / "path.json")
    assert CameraFile.model_validate_json(json.dumps(file.model_dump())) == file
    keys = file.keyframes or []
    times, w2c = torch.tensor([key.time for key in keys]), torch.tensor([key.w2c for key in keys])
    path, _ = interpolate_cameras(times, w2c, torch.eye(3).expand(len(keys), 3, 3), torch.linspace(0, 1, 25))
    c2w = torch.linalg.inv(path)
    place = torch.tensor([-0.2, -0.1, 0.0])
    assert torch.allclose(c2w[12, :3, 3], place, atol=1e-4)
    assert torch.allclose(c2w[24, :3, 3], place, atol=1e-4)  # the file's matrices have three digits
    forward = c2w[24, :3, 2]
    assert np.rad2deg(np.arctan2(-forward[0], forward[2])) == pytest.approx(11.5, abs=0.05)


def test_the_frame_counts_are_legal() -> None:
    text = section(DOCS / "cameras.md", "How many frames")
    counts = [
        int(count) for count in re.findall(r"\b\d+\b", text.partition("Another number")[0].replace("gen3c-7b", ""))
    ]
    assert [TINY.chunks(count) for count in counts[:3]] == [1, 2, 3]
    assert [GEN3C_7B.chunks(count) for count in counts[3:]] == [1, 2, 3]
