"""The deployment file: what a server takes on, and how its models share the machine (docs/deployment.md).

`limits` and `running_jobs` are read by the job model when it starts. `models` and `resources` are for Triton: they go
into the configurations of a built repository (gen3c_server.model_config) and onto its command line (`launch_flags`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
import yaml
from gen3c_client.contract import Limits
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gen3c.errors import InvalidInputError
from gen3c.exported.manifest import Target
from gen3c.generator.signatures import SIGNATURES
from gen3c.generator.text_program import TEXT_ENCODER
from gen3c.geometry.vggt.signature import VGGT
from gen3c.program import Signature
from gen3c_server.batching import has_batch_axis
from gen3c_server.errors import JobError

JOB_MODEL, GEOMETRY, CONDITIONER = SERVICES = ("gen3c", "geometry", "conditioner")
LEAVES: dict[str, Signature] = {**SIGNATURES, VGGT.name: VGGT, TEXT_ENCODER.name: TEXT_ENCODER}
MODELS = (*SERVICES, *LEAVES)

ALL_GPUS: Literal["all"] = "all"
DEFAULT_GPUS = (0,)  # of a model that computes, where there are GPUs

# A bounded queue of Triton wakes who waits behind a busy instance at a tick of 500 ms only (24.10; eight calls of
# 100 ms took 2 to 3 s instead of 0.8). That is nothing where a job calls once and for seconds.
MAY_BOUND_QUEUE = (GEOMETRY, VGGT.name)

# Who waits inside a call for whose answer.
CALLS = {GEOMETRY: (VGGT.name,), CONDITIONER: ("video_encoder",)}

Amounts = dict[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")], Annotated[int, Field(ge=1)]]
# YAML has a list where this is a tuple; its elements are as strict as the rest.
Sizes = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False)]


def _problem(sentence: str) -> PydanticCustomError:
    """For `JobError`, which adds the key and the full stop."""
    return PydanticCustomError("deployment", "{sentence}", {"sentence": sentence})


def _different_gpus(value: object) -> object:
    if value is None or value == ALL_GPUS:
        return value
    numbers = value if isinstance(value, list | tuple) else ()
    if not numbers or any(type(n) is not int or n < 0 for n in numbers) or len(set(numbers)) < len(numbers):
        shown = f"is {value}; " if isinstance(value, list) else ""  # others are shown at the end
        raise _problem(f"{shown}legal: a list of different GPU numbers, such as [0, 1], or {ALL_GPUS}")
    return tuple(numbers)


Gpus = Annotated[tuple[int, ...] | Literal["all"] | None, BeforeValidator(_different_gpus)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Batching(_Strict):
    """Calls of several jobs put together into one. Only for leaves whose tensors all have a batch axis."""

    max_batch_size: int = Field(ge=2, le=64, description="rows of one call at most")
    preferred: Sizes = Field((), description="sizes to send off at once, without waiting for more")
    max_delay_ms: float = Field(0, ge=0, le=1000, description="how long a call waits for company")

    @model_validator(mode="after")
    def _preferred_fit(self) -> Self:
        if any(size > self.max_batch_size for size in self.preferred):
            raise _problem(f"preferred is {list(self.preferred)}; legal: up to max_batch_size = {self.max_batch_size}")
        return self


class QueueLimits(_Strict):
    """How many calls wait for a model, and how long, before they are refused with UNAVAILABLE."""

    size: int = Field(ge=1, description="calls that wait at most")
    timeout_s: float | None = Field(None, gt=0, description="seconds that one waits at most; none: as long as it takes")


class ModelSettings(_Strict):
    """How one model is placed and fed."""

    instances: int = Field(1, ge=1, le=64, description="processes, on each GPU if there are any")
    gpus: Gpus = Field(None, description="GPUs that it has instances on; none: GPU 0, if any")
    batching: Batching | None = None
    queue: QueueLimits | None = None
    resources: Amounts = Field({}, description="taken by each call in work, of the server's")
    gpu_resources: Amounts = Field({}, description="taken by each call in work, of those of its GPU")
    warm_up: bool = Field(False, description="one call with zeros before the model says that it is ready")

    def takes_turns(self) -> bool:
        """Whether its calls need anything that is counted."""
        return bool(self.resources or self.gpu_resources)


class Deployment(_Strict):
    """The deployment file, YAML. Strict: a misspelt key is an error. An empty file is legal."""

    limits: Limits = Limits()
    running_jobs: int = Field(1, ge=1, le=64, description="jobs that are worked on at the same time")
    models: dict[str, ModelSettings] = {}
    resources: Amounts = Field({}, description="what calls take turns at, and how much of it the server has")
    gpu_resources: Amounts = Field({}, description="the same, and how much of it each GPU has")

    @classmethod
    def load(cls, path: Path) -> "Deployment":
        """Read a deployment file; raises ValueError with a sentence."""
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            return cls() if content is None else cls.model_validate(content)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"The deployment file {path.name} is not YAML: {error}") from None
        except ValidationError as error:
            said = JobError.of(error).message.removeprefix("spec: ")  # what it calls a job's outermost level
            raise ValueError(f"The deployment file {path.name} is wrong: {said}") from None

    def settings(self, model: str, target: Target) -> ModelSettings:
        """The settings of one model of a repository for `target`; those of a model on GPUs name the GPUs.

        Raises InvalidInputError for an unknown model, and for what is illegal on that target.
        """
        if model not in MODELS:
            raise InvalidInputError(f"model is {model!r}; legal: {', '.join(MODELS)}.", field="models")
        own = self.models.get(model, ModelSettings())
        on_gpu = target != "cpu" and model != GEOMETRY
        if own.gpus is not None and not on_gpu:
            shown = own.gpus if isinstance(own.gpus, str) else list(own.gpus)
            raise InvalidInputError(
                f"models.{model}.gpus is {shown}, and a repository for {target} has none for it; legal: no gpus.",
                "gpus",
            )
        if own.gpu_resources and not on_gpu:
            raise InvalidInputError(
                f"models.{model}.gpu_resources is {own.gpu_resources}, and in a repository for {target} it runs on no "
                "GPU; legal: `resources`.",
                field="gpu_resources",
            )
        return own if own.gpus or not on_gpu else own.model_copy(update={"gpus": DEFAULT_GPUS})

    def check(self, target: Target) -> None:
        """Raises InvalidInputError with a sentence if a repository for `target` cannot be served like this."""
        for model in MODELS:
            self.settings(model, target)

    @model_validator(mode="after")
    def _models_allow_it(self) -> Self:
        twice = set(self.resources) & set(self.gpu_resources)
        if twice:
            raise _problem(f"resources and gpu_resources both have {min(twice)!r}; legal: two names")
        for model, own in self.models.items():
            problem = _model_problem(model, own) or self._resource_problem(model, own)
            if problem:
                raise _problem(problem)
        return self

    def _resource_problem(self, model: str, own: ModelSettings) -> str | None:
        for key in ("resources", "gpu_resources"):
            there: dict[str, int] = getattr(self, key)
            taken: dict[str, int] = getattr(own, key)
            for name, count in taken.items():
                if count > there.get(name, 0):
                    legal = ", ".join(f"{known} up to {amount}" for known, amount in there.items())
                    legal = legal or f"nothing, as the file has no `{key}`"
                    return f"models.{model}.{key}.{name} is {count}; legal: {legal}"
        for called in CALLS.get(model, ()):
            if own.takes_turns() and self.models.get(called, ModelSettings()).takes_turns():
                return (
                    f"models.{model} and models.{called} both have resources, and {model} waits for {called} while it "
                    "holds its own, perhaps for ever; legal: resources for one of the two"
                )
        return None


def launch_flags(deployment: Deployment) -> tuple[str, ...]:
    """The flags of `tritonserver` that the configurations of this deployment need."""
    if not any(own.takes_turns() for own in deployment.models.values()):
        return ()
    # Without a device the figure holds for every GPU, and for what the server has as a whole.
    amounts = deployment.resources | deployment.gpu_resources
    return ("--rate-limit=execution_count", *(f"--rate-limit-resource={name}:{n}" for name, n in amounts.items()))


def instance_device(args: Mapping[str, str], otherwise: torch.device) -> torch.device:
    """Where an instance of a python model belongs, from the arguments of its `initialize`: on the GPU that Triton gave
    it, else `otherwise`."""
    if args.get("model_instance_kind", "").removeprefix("KIND_") != "GPU":
        return otherwise
    return torch.device("cuda", int(args["model_instance_device_id"]))


def _model_problem(model: str, own: ModelSettings) -> str | None:
    """What `own` asks for that this model cannot do on any target, as a sentence without its full stop."""
    if model not in MODELS:
        return f"models has {model!r}; legal: {', '.join(MODELS)}"
    asked_for: dict[str, object] = {"batching": own.batching, "queue": own.queue, "warm_up": own.warm_up}
    asked_for |= {"gpus": own.gpus, "instances": own.instances > 1, "resources": own.takes_turns()}
    for key, asked in asked_for.items():
        reason = _refusal(model, key, own) if asked else None
        if reason:
            return f"models.{model} has {key}; {reason}"
    return None


def _refusal(model: str, key: str, own: ModelSettings) -> str | None:  # noqa: PLR0911 (a table of rules)
    """Why this model cannot have that setting, and what is legal instead."""
    match key:
        case "batching" if model == JOB_MODEL:
            return "its answers are streams (decoupled), which Triton cannot batch; legal: `running_jobs`"
        case "batching" if model not in LEAVES or not has_batch_axis(LEAVES[model]):
            legal = ", ".join(name for name, leaf in LEAVES.items() if has_batch_axis(leaf))
            return f"a call of it is one scene or one view, without a batch axis; legal: batching of {legal}"
        case "queue" if model == JOB_MODEL:
            return "jobs wait in a line of their own; legal: `limits.queued_jobs`"
        case "queue" if model not in MAY_BOUND_QUEUE:
            return (
                "a job calls it many times, and in a bounded queue of Triton a call waits up to 0.5 s longer; legal: "
                f"a queue of {' or '.join(MAY_BOUND_QUEUE)}; for jobs, `limits.queued_jobs`"
            )
        case "warm_up" if model not in LEAVES:
            return f"its inputs are no plain tensors; legal: warm_up of {', '.join(LEAVES)}"
        case "gpus" if model == GEOMETRY:
            return f"it works on the CPU; legal: gpus of {VGGT.name}, which it calls"
        case "gpus" if model == JOB_MODEL and (own.gpus == ALL_GPUS or len(own.gpus or ()) > 1):
            return "it is one process, which holds the line of jobs; legal: one GPU"
        case "instances" if model == JOB_MODEL:
            return "it is one process, which holds the line of jobs; legal: `running_jobs`"
        case "resources" if model == JOB_MODEL:
            return "it answers at once and works in the background, where Triton counts nothing; legal: `running_jobs`"
    return None
