"""What the deployment file may ask of each model, and what becomes of it."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from gen3c_client.contract import Limits
from pydantic import ValidationError

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import TARGETS, Target
from gen3c_server import settings
from gen3c_server.batching import has_batch_axis
from gen3c_server.deployment import (
    DEFAULT_GPUS,
    LEAVES,
    MAY_BOUND_QUEUE,
    MODELS,
    SERVICES,
    Batching,
    Deployment,
    ModelSettings,
    QueueLimits,
    instance_device,
    launch_flags,
)
from gen3c_server.repository import default_model_repository
from tests.test_docs import DOCS, blocks, section


def parse(text: str) -> Deployment:
    return Deployment.model_validate(yaml.safe_load(text))


def test_the_models_are_those_of_the_repository() -> None:
    """All are started by every server, but the text encoder, which most deployments have not."""
    assert set(MODELS) == {path.name for path in default_model_repository().iterdir()} | {"text_encoder"}
    assert not set(SERVICES) & set(LEAVES)


def test_settings_knows_the_deployment() -> None:
    assert settings.Deployment is Deployment


@pytest.mark.parametrize("target", TARGETS)
def test_an_empty_file_is_legal_for_every_target(target: Target) -> None:
    deployment = Deployment()
    deployment.check(target)
    assert deployment.limits == Limits()
    assert deployment.running_jobs == 1
    assert launch_flags(deployment) == ()
    for model in MODELS:
        own = deployment.settings(model, target)
        assert own.instances == 1
        # Geometry works on the CPU: what it wants of a GPU is the leaf vggt.
        assert own.gpus == (None if target == "cpu" or model == "geometry" else DEFAULT_GPUS)


def test_everything_can_be_asked_for_at_once() -> None:
    deployment = parse("""
running_jobs: 4
models:
  dit: {gpus: [0, 1], instances: 2, batching: {max_batch_size: 4, preferred: [2, 4], max_delay_ms: 5}, warm_up: true}
  vggt: {gpus: all, queue: {size: 4, timeout_s: 600}, gpu_resources: {turn: 1}, resources: {scene: 2}}
  geometry: {queue: {size: 2}, instances: 2}
  gen3c: {gpus: [1]}
resources: {scene: 2}
gpu_resources: {turn: 1}
""")
    deployment.check("cuda")
    dit = deployment.settings("dit", "cuda")
    assert (dit.gpus, dit.instances, dit.warm_up) == ((0, 1), 2, True)
    assert dit.batching is not None
    assert (dit.batching.max_batch_size, dit.batching.preferred, dit.batching.max_delay_ms) == (4, (2, 4), 5)
    assert deployment.settings("vggt", "tensorrt").gpus == "all"
    assert deployment.settings("geometry", "cuda").gpus is None
    assert launch_flags(deployment) == (
        "--rate-limit=execution_count",
        "--rate-limit-resource=scene:2",
        "--rate-limit-resource=turn:1",
    )


def test_resources_that_no_model_takes_need_no_flags() -> None:
    assert launch_flags(parse("resources: {turn: 1}")) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {dti: {}}", "models has 'dti'; legal: gen3c, geometry, conditioner, dit"),
        ("models: {dit: {instance: 2}}", "models.dit.instance: Extra inputs are not permitted (got 2)"),
        ("models: {dit: {instances: 0}}", "models.dit.instances: Input should be greater than or equal to 1 (got 0)"),
        ("models: {dit: {instances: '2'}}", "models.dit.instances: Input should be a valid integer (got '2')"),
        ("models: {dit: {gpus: 0}}", "models.dit.gpus: legal: a list of different GPU numbers, such as [0, 1], or all"),
        ("models: {dit: {gpus: []}}", "models.dit.gpus: is []; legal: a list"),
        ("models: {dit: {gpus: [0, 0]}}", "models.dit.gpus: is [0, 0]; legal: a list of different"),
        ("models: {dit: {gpus: [true]}}", "models.dit.gpus: is [True]; legal: a list"),
        ("models: {dit: {gpus: [-1]}}", "models.dit.gpus: is [-1]; legal: a list"),
        ("models: {dit: {gpus: both}}", "such as [0, 1], or all (got 'both')"),
        ("models: {dit: {batching: {}}}", "models.dit.batching.max_batch_size: Field required"),
        ("models: {dit: {batching: {max_batch_size: 1}}}", "greater than or equal to 2 (got 1)"),
        (
            "models: {dit: {batching: {max_batch_size: 2, preferred: [4]}}}",
            "models.dit.batching: preferred is [4]; legal: up to max_batch_size = 2",
        ),
        ("models: {gen3c: {batching: {max_batch_size: 2}}}", "are streams (decoupled), which Triton cannot batch"),
        (
            "models: {vggt: {batching: {max_batch_size: 2}}}",
            "models.vggt has batching; a call of it is one scene or one view, without a batch axis; legal: batching of "
            "dit, video_encoder, video_decoder",
        ),
        ("models: {conditioner: {batching: {max_batch_size: 2}}}", "models.conditioner has batching; a call of it is"),
        ("models: {dit: {queue: {size: 8}}}", "models.dit has queue; a job calls it many times"),
        ("models: {conditioner: {queue: {size: 8}}}", "a call waits up to 0.5 s longer; legal: a queue of geometry or"),
        ("models: {gen3c: {queue: {size: 8}}}", "a line of their own; legal: `limits.queued_jobs`"),
        ("models: {vggt: {queue: {size: 8, timeout_s: 0}}}", "models.vggt.queue.timeout_s: Input should be greater"),
        ("models: {gen3c: {instances: 2}}", "models.gen3c has instances; it is one process"),
        ("models: {gen3c: {gpus: [0, 1]}}", "which holds the line of jobs; legal: one GPU"),
        ("models: {gen3c: {gpus: all}}", "which holds the line of jobs; legal: one GPU"),
        ("models: {gen3c: {resources: {a: 1}}}\nresources: {a: 1}", "models.gen3c has resources; it answers at once"),
        ("models: {geometry: {gpus: [0]}}", "it works on the CPU; legal: gpus of vggt, which it calls"),
        ("models: {geometry: {warm_up: true}}", "legal: warm_up of dit, video_encoder, video_decoder, vggt"),
        ("models: {dit: {resources: {a: 1}}}", "models.dit.resources.a is 1; legal: nothing, as the file has no"),
        (
            "models: {dit: {resources: {b: 1}}}\nresources: {a: 3}",
            "models.dit.resources.b is 1; legal: a up to 3",
        ),
        (
            "models: {dit: {gpu_resources: {a: 2}}}\ngpu_resources: {a: 1}",
            "models.dit.gpu_resources.a is 2; legal: a up to 1",
        ),
        ("resources: {a: 1}\ngpu_resources: {a: 1}", "resources and gpu_resources both have 'a'; legal: two names"),
        ("resources: {'a:9': 1}", "String should match pattern"),  # it becomes part of a flag
        ("running_jobs: 0", "running_jobs: Input should be greater than or equal to 1 (got 0)"),
        ("running_jobs: true", "running_jobs: Input should be a valid integer"),
    ],
)
def test_what_a_model_cannot_do_is_refused_with_what_is_legal(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "deployment.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"The deployment file deployment\.yaml is wrong: ") as caught:
        Deployment.load(path)
    assert said in str(caught.value)
    assert "spec" not in str(caught.value)


@pytest.mark.parametrize(("caller", "called"), [("geometry", "vggt"), ("conditioner", "video_encoder")])
def test_who_waits_inside_a_call_and_who_is_waited_for_do_not_both_take_turns(caller: str, called: str) -> None:
    """Otherwise each could hold what the other needs, for ever."""
    text = f"models: {{{caller}: {{resources: {{a: 1}}}}, {called}: {{gpu_resources: {{b: 1}}}}}}"
    with pytest.raises(ValidationError, match=f"{caller} waits for {called} while it holds its own"):
        parse(f"{text}\nresources: {{a: 1}}\ngpu_resources: {{b: 1}}")
    parse(f"models: {{{caller}: {{resources: {{a: 1}}}}}}\nresources: {{a: 1}}")


def test_a_repository_for_cpu_has_no_gpus() -> None:
    with pytest.raises(InvalidInputError, match=r"models\.dit\.gpus is \[0, 1\], and a repository for cpu has none"):
        parse("models: {dit: {gpus: [0, 1]}}").check("cpu")
    with pytest.raises(InvalidInputError, match=r"models\.dit\.gpus is all, and"):
        parse("models: {dit: {gpus: all}}").check("cpu")
    deployment = parse("models: {dit: {gpu_resources: {a: 1}}}\ngpu_resources: {a: 1}")
    with pytest.raises(InvalidInputError, match=r"models\.dit\.gpu_resources is .*for cpu it runs on no GPU"):
        deployment.check("cpu")
    deployment.check("cuda")


def test_an_unknown_model_has_no_settings() -> None:
    with pytest.raises(InvalidInputError, match="model is 'dti'; legal: gen3c, geometry, conditioner, dit"):
        Deployment().settings("dti", "cpu")


def test_an_instance_belongs_where_triton_put_it() -> None:
    cpu = torch.device("cpu")
    assert instance_device({"model_instance_kind": "GPU", "model_instance_device_id": "1"}, cpu) == torch.device(
        "cuda:1"
    )
    assert instance_device({"model_instance_kind": "CPU", "model_instance_device_id": "0"}, cpu) == cpu
    assert instance_device({}, torch.device("cuda")) == torch.device("cuda")  # GEN3C_DEVICE


def test_settings_cannot_be_changed_behind_a_server() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ModelSettings().instances = 2  # type: ignore[misc]


def test_the_documented_example_is_legal_where_there_are_gpus() -> None:
    deployment = parse(blocks(DOCS / "deployment.md", "yaml")[1])
    deployment.check("cuda")
    deployment.check("tensorrt")
    assert deployment.settings("dit", "cuda").gpus == (0, 1)
    assert deployment.running_jobs == 2


def test_every_key_of_a_model_is_documented_with_its_default_and_who_may_have_it() -> None:
    text = section(DOCS / "deployment.md", "Deployment file")
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]*) \| [^|]* \| ([^|]*)\|$", text, re.MULTILINE)
    defaults = {key: yaml.safe_load(default.strip("`")) for key, default, _ in rows}
    legal = {key: re.findall(r"`(\w+)`", models) for key, _, models in rows}
    fields = dict(ModelSettings.model_fields)
    for name, part in (("batching", Batching), ("queue", QueueLimits)):
        del fields[name]
        fields |= {f"{name}.{key}": field for key, field in part.model_fields.items()}
    written = {key: "required" if field.is_required() else field.default for key, field in fields.items()}
    written |= {"gpus": list(DEFAULT_GPUS), "batching.preferred": [], "queue.timeout_s": "none"}
    assert defaults == written
    assert legal["batching.max_batch_size"] == [name for name, leaf in LEAVES.items() if has_batch_axis(leaf)]
    assert legal["queue.size"] == list(MAY_BOUND_QUEUE)
    assert legal["warm_up"] == list(LEAVES)
    named = text.partition("The models are")[2].partition(". What a")[0]
    assert re.findall(r"`(\w+)`", named) == list(MODELS)
