"""Whether a `docker` command of the documents would be understood; there is no engine to try it with."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml

DOCKER = Path(__file__).resolve().parents[1] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
WORDS = ("docker", "export")  # that such commands start with
FLAGS = {"--rm", "--read-only", "--detach"}
WITH_VALUE = {
    *("--build-arg", "--file", "--secret", "--tag", "--target"),
    *("--cap-drop", "--name", "--network", "--publish", "--security-opt", "--shm-size", "--stop-timeout", "--tmpfs"),
    *("--user", "--volume"),
}


def split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options with their values, and what follows them."""
    options, rest = [], list(words)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        assert name in FLAGS | WITH_VALUE, f"no test knows {name}"
        options.append((name, rest.pop(0) if name in WITH_VALUE else ""))
    return options, rest


def check_build(words: Sequence[str]) -> None:
    """`docker build`: target, file and arguments exist."""
    options, context = split(words)
    assert context == ["."]
    named = dict(options)
    assert (DOCKER.parent / named["--file"]).samefile(DOCKER / "Dockerfile")
    assert named["--target"] in targets()
    assert named["--tag"] == f"gen3c-{named['--target']}"
    for name, value in options:
        if name == "--build-arg":
            assert value.partition("=")[0] in re.findall(r"^ARG (\w+)", DOCKERFILE, re.M)
        if name == "--secret":
            assert dict(part.split("=") for part in value.split(","))["id"] in re.findall(
                r"type=secret,id=(\w+)", DOCKERFILE
            )


def check_run(words: Sequence[str], understood: Callable[[str, list[str]], None]) -> None:
    """`docker run`: `understood` is asked of the target and of what its program is given."""
    _, (image, *arguments) = split(words)
    target = image.removeprefix("gen3c-")
    assert target in targets()
    understood(target, arguments)


def check_compose(words: Sequence[str], understood: Callable[[str, list[str]], None]) -> None:
    """`docker compose`: files and services exist."""
    rest = list(words)
    services: dict[str, object] = {}
    while rest[0] == "--file":
        services |= yaml.safe_load((DOCKER.parent / rest[1]).read_text())["services"]
        del rest[:2]
    verb, *rest = rest
    assert verb in ("build", "run", "up", "down", "ps")
    _, named = split(rest)
    for service in named[:1] if verb == "run" else named:
        assert service in services
    if verb == "run" and named[1:]:
        understood(named[0], named[1:])


def check_variables(assignments: Sequence[str]) -> None:
    """`export`: the compose files read them."""
    text = "".join(path.read_text() for path in DOCKER.glob("compose*.yaml"))
    for name in (one.partition("=")[0] for one in assignments):
        assert re.search(rf"\$\{{{name}\b|- {name}\b", text), name


def targets() -> set[str]:
    return set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.M)) & {"client", "server", "export"}
