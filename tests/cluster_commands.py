"""Whether `helm` and `kubectl` commands of the documents would be understood; there is no cluster to try them with."""

from collections.abc import Sequence
from pathlib import Path

from tests.deploy.chart import CHART, Rendered, containers, profile, render
from tests.deploy.values import merged

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("helm", "kubectl")  # that such commands start with
FLAGS = {"--install", "--create-namespace", "--reset-then-reuse-values", "--follow"}
WITH_VALUE = {"--namespace", "--values", "--set", "--timeout", "--container", "--from-literal", "--from-file"}
REGISTRY = "registry.example.com/video"  # of the documents; without one no cluster finds the images
TLS = {"tls.crt", "tls.key", "ca.crt"}
SECRETS = {"hub": {"token"}, "access": {"access-key"}, "certificate": TLS, "client": TLS}  # with their keys


def split(words: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The options with their values, and the other words."""
    options, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            others.append(word)
            continue
        name, separator, value = word.partition("=")
        assert name in FLAGS | WITH_VALUE, f"no test knows {name}"
        options.append((name, value if separator or name in FLAGS else rest.pop(0)))
    return options, others


def check_helm(words: Sequence[str]) -> None:
    """The chart is there, its files of values too, and it renders with what is set."""
    options, (verb, release, *chart) = split(words)
    assert verb in ("upgrade", "test", "rollback")
    if verb == "upgrade":
        assert [(ROOT / path).samefile(CHART) for path in chart] == [True]
        files = [Path(value) for name, value in options if name == "--values"]
        assert all((ROOT / file.parent).samefile(CHART) for file in files)
        expressions = [value for name, value in options if name == "--set"]
        names = {name for name, _ in options}
        # An upgrade without values of its own keeps the registry that the release was installed with.
        assert ("--install" in names) != ("--reset-then-reuse-values" in names)
        if "--install" not in names:
            expressions += [f"image.registry={REGISTRY}"]
        rendered = render(merged(*(profile(file.name) for file in files)), name=release, expressions=expressions)
        for container in containers(rendered):
            assert container["image"].startswith(f"{REGISTRY}/")
        assert rendered.one("Deployment")["metadata"]["name"] == release
        for secret in secrets_of(rendered):
            assert secret in SECRETS, f"no command of the documents makes the Secret {secret}"


def secrets_of(rendered: Rendered) -> set[str]:
    """Their names."""
    mounted = [
        volume["secret"]["secretName"]
        for _, pod in rendered.pods()
        for volume in pod["spec"].get("volumes", [])
        if "secret" in volume
    ]
    variables = [one for container in containers(rendered) for one in container.get("env", [])]
    read = [one["valueFrom"]["secretKeyRef"]["name"] for one in variables if "secretKeyRef" in one.get("valueFrom", {})]
    return {*mounted, *read}


def check_kubectl(words: Sequence[str]) -> None:
    """What it names is in the release `gen3c`."""
    options, (verb, *named) = split(words)
    given = dict(options)
    match verb, *named:
        case "create", "secret", "generic", name:
            keys = {value.partition("=")[0] for flag, value in options if flag in ("--from-file", "--from-literal")}
            assert keys == SECRETS[name]
        case ("logs", target) | ("port-forward", target, _) | ("rollout", _, target):
            rendered = render(profile("values-cpu.yaml"), name="gen3c")
            assert target == f"deployment/{rendered.one('Deployment')['metadata']['name']}"
            assert given.get("--container", "server") in {container["name"] for container in containers(rendered)}
        case _:
            raise AssertionError(f"no test knows kubectl {verb}")
