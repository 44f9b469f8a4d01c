"""Imports run one way: gen3c <- gen3c_export, gen3c_server <- model_repository; gen3c_client stands alone."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"gen3c", "gen3c_client", "gen3c_export", "gen3c_server"}
MAY_IMPORT = {
    "gen3c": {"gen3c"},
    "gen3c_export": {
        "gen3c",
        "gen3c_export",
        "gen3c_server.deployment",
        "gen3c_server.model_config",
        "gen3c_server.repository",
    },
    "gen3c_server": {
        "gen3c",
        "gen3c_server",
        "gen3c_client.connection",
        "gen3c_client.contract",
        "gen3c_client.errors",
        "gen3c_client.options",
    },
    "client/gen3c_client": {"gen3c_client"},
    "model_repository": {"gen3c", "gen3c_server"},
}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
    return names


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_one_way(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        for name in imports(file):
            if name.split(".")[0] in OURS:
                allowed = any(name == legal or name.startswith(f"{legal}.") for legal in MAY_IMPORT[folder])
                assert allowed, f"{file.relative_to(ROOT)} imports {name}"


def test_the_client_needs_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; sys.modules['diffusers'] = None; import gen3c_client.cli"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_health_check_needs_the_clients_packages_alone() -> None:
    """The client's image makes it, too."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = [re.match(r"\w+", one)[0] for one in extras["serve"]]  # type: ignore[index]
    modules = [{"pillow": "PIL", "pyyaml": "yaml"}.get(name, name) for name in names]
    code = f"import sys; sys.modules.update(dict.fromkeys({modules})); from gen3c_client.cli import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "health", "--url", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("The probe of the server at 127.0.0.1:1 failed")


def test_model_files_hold_no_logic() -> None:
    for file in (ROOT / "model_repository").glob("*/1/model.py"):
        assert len(file.read_text().splitlines()) < 40, f"{file.relative_to(ROOT)} belongs in gen3c_server"
