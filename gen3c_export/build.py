"""A deployable repository: the serving graph of `model_repository/` with every network exported for one target.

Artifacts are made once for what they depend on (gen3c_export.store) and linked into a repository, which takes the place
of an older one as a whole. So a build that was killed goes on where it stopped, and one whose inputs did not change
takes seconds.
"""

import errno
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import yaml

from gen3c.errors import InvalidInputError
from gen3c.exported.machine import code_digest, gpu_here
from gen3c.exported.manifest import (
    BUILT,
    DEPLOYMENT,
    REPOSITORY,
    TARGETS,
    VERSION_FOLDER,
    Artifact,
    Kind,
    Manifest,
    Target,
)
from gen3c.generator.signatures import symbols
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt
from gen3c.networks import NETWORKS, WeightSource, network, networks_of
from gen3c.presets import Preset, get_preset
from gen3c_export.inspect import check_all_files
from gen3c_export.make import Request, make
from gen3c_export.plans import BATCH, OWN_KIND, default_kind, engine_plan, graph_plans
from gen3c_export.replace import check_replaceable, link, replaced
from gen3c_export.store import ArtifactStore, building, check_space
from gen3c_server.deployment import SERVICES, Deployment, ModelSettings
from gen3c_server.model_config import Device, leaf_config, service_config
from gen3c_server.repository import default_model_repository

logger = logging.getLogger(__name__)

_SPARE_BYTES = 50_000_000
# A model that finds it, and no manifest, is not where it belongs.
_MARK = f'parameters {{ key: "{BUILT}" value {{ string_value: "yes" }} }}\n'
_SHIM = '''"""The program `{name}`. Written by gen3c-export."""

from gen3c_server.leaf import LeafModel


class TritonPythonModel(LeafModel):
    """See gen3c_server.leaf."""
'''


@dataclass(frozen=True)
class BuildOptions:
    """What to build."""

    source: WeightSource
    target: Target
    out: Path
    deployment: Path | None = None  # a deployment file; None: its defaults
    kinds: Mapping[str, Kind] = field(default_factory=dict)  # of programs that are to be served otherwise than usual
    fp8: bool = False  # of the transformer's linear layers; target cuda
    native: bool = False  # by Triton's PyTorch backend; target cuda
    services: Path | None = None  # the source repository; None: the one that ships with the package
    name: str | None = None  # of the folder; None: the preset's and the target's

    @property
    def folder(self) -> Path:
        """Where the repository will be."""
        return self.out / (self.name or f"{self.source.preset.name}-{self.target}")


def build(options: BuildOptions) -> Path:
    """Make what is missing and assemble the repository; returns its folder, which holds manifest.json.

    Raises InvalidInputError if the target cannot be built here, for settings that it cannot have, for weights that
    cannot be used, for too little room on the disk, and if an artifact is too far from PyTorch. After that, or an
    interruption, an earlier repository of this name is as it was.
    """
    try:
        return _build(options)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise InvalidInputError(
            f"The disk of {options.out} is full; make room, or name another folder with --out.", field="out"
        ) from error


def _build(options: BuildOptions) -> Path:
    if options.name is not None and (Path(options.name).name != options.name or options.name[:1] in ("", ".")):
        raise InvalidInputError(f"--name is {options.name!r}; legal: a folder's name without a path.", field="name")
    device = _device(options)
    deployment = _deployment(options)
    requests = _requests(options, device, deployment)
    check_replaceable(options.folder)  # not only when all is made
    options.out.mkdir(parents=True, exist_ok=True)
    with building(options.out):
        return _built(options, device, deployment, requests)


def _built(options: BuildOptions, device: torch.device, deployment: Deployment, requests: list[Request]) -> Path:
    store = ArtifactStore(options.out)
    artifacts: dict[str, Artifact] = {}
    for number, request in enumerate(requests, 1):
        weights = str(request.network.provenance(options.source))
        key = request.key(weights)
        if not store.place(request.program, key).exists():
            check_space(options.out, _room(request))
            logger.info("[%d/%d] %s as %s", number, len(requests), request.program, request.kind)
        artifact, made = store.obtain(request.program, key, partial(make, request, weights, key))
        logger.info(
            "[%d/%d] %s: %s",
            number,
            len(requests),
            request.program,
            f"built in {artifact.build_seconds:.0f} s" if made else "unchanged",
        )
        artifacts[request.program] = artifact
    manifest = Manifest(
        preset=options.source.preset.name,
        target=options.target,
        gpu=gpu_here(device) if options.target != "cpu" else None,
        gen3c=version("gen3c-triton"),
        code=code_digest(),
        artifacts=artifacts,
    )
    if not _is_current(options, manifest, deployment):  # another server may be starting from it
        with replaced(options.folder) as folder:
            _assemble(folder, manifest, deployment, store, options)
    return options.folder


def _is_current(options: BuildOptions, manifest: Manifest, deployment: Deployment) -> bool:
    """Whether the repository that is there is the one that would be written."""
    repository = options.folder / REPOSITORY
    texts = configurations(manifest, deployment, options.services or default_model_repository())
    try:
        if Manifest.read(options.folder) != manifest:
            return False
        check_all_files(manifest, options.folder)
        written = {path.parent.name: path.read_text(encoding="utf-8") for path in repository.glob("*/config.pbtxt")}
        return written == texts and (options.folder / DEPLOYMENT).read_text(encoding="utf-8") == _written(deployment)
    except (InvalidInputError, OSError):
        return False


def _written(deployment: Deployment) -> str:
    settings = deployment.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(settings, sort_keys=False) if settings else ""


def check_target(name: str) -> Target:
    """The target of that name; raises InvalidInputError naming the legal ones."""
    for target in TARGETS:
        if name == target:
            return target
    raise InvalidInputError(f"target is {name!r}; legal: {', '.join(TARGETS)}.", field="target")


def parse_kinds(words: list[str]) -> dict[str, Kind]:
    """`dit=pytorch` and the like; raises InvalidInputError for anything else."""
    legal: tuple[Kind, ...] = ("onnx", "aoti", "tensorrt", "pytorch")
    kinds: dict[str, Kind] = {}
    for word in words:
        name, _, kind = word.partition("=")
        chosen = next((known for known in legal if known == kind), None)
        if name not in NETWORKS or chosen is None:
            raise InvalidInputError(
                f"--kind is {word!r}; legal: NAME=KIND, with one of {', '.join(NETWORKS)} and one of "
                f"{', '.join(legal)}.",
                field="kind",
            )
        kinds[name] = chosen
    return kinds


def requests_of(options: BuildOptions) -> list[Request]:
    """The artifacts of a build, for whoever compares them again."""
    return _requests(options, _device(options), _deployment(options))


def _device(options: BuildOptions) -> torch.device:
    if options.target == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InvalidInputError(
            f"Target {options.target} is built on the GPU that will serve it, and PyTorch sees none here; legal here: "
            "cpu.",
            field="target",
        )
    return torch.device("cuda", torch.cuda.current_device())


def _deployment(options: BuildOptions) -> Deployment:
    try:
        deployment = Deployment() if options.deployment is None else Deployment.load(options.deployment)
    except ValueError as error:
        raise InvalidInputError(str(error), field="deployment") from None
    deployment.check(options.target)
    return deployment


def _requests(options: BuildOptions, device: torch.device, deployment: Deployment) -> list[Request]:
    _check_kinds(options)
    vggt = find_vggt(options.source.vggt, options.source.checkpoints).config
    gpu = gpu_here(device)
    found = []
    for name in networks_of(options.source):
        usual, reason = default_kind(name, options.target)
        kind = options.kinds.get(name, usual)
        if kind == "pytorch" and name in options.kinds and usual != "pytorch":
            reason = "as asked for"
        plans = () if kind == "pytorch" else graph_plans(name, options.source.preset, vggt)
        native = options.native and kind == "aoti"
        if kind == "tensorrt":
            plans = (engine_plan(plans),)
        request = Request(
            name,
            kind,
            options.source,
            device,
            plans[:1] if native else plans,  # Triton's backend holds one file a model
            fp8=options.fp8 and name == "dit",
            native=native,
            reason=reason if kind == "pytorch" else "",
            timing_cache=options.out / "timing" / f"{gpu.capability}.cache" if gpu and kind == "tensorrt" else None,
        )
        _check_settings(request, deployment.settings(name, options.target))
        found.append(request)
    return found


def _check_settings(request: Request, settings: ModelSettings) -> None:
    """Refuse before anything is compiled what the configurations would refuse afterwards."""
    if settings.batching is None:
        return
    fixed = request.plans[0].sizes if request.plans else {}
    platform = request.platform
    leaf_config(
        request.network.signature,
        platform=platform,
        device="cpu" if request.device.type == "cpu" else "gpu",
        sizes=fixed,
        settings=settings.model_copy(update={"warm_up": False}),
    )
    rows = request.plans[0].dynamic.get(BATCH) if request.plans else None
    if rows is not None and settings.batching.max_batch_size > rows.most:
        raise InvalidInputError(
            f"models.{request.program}.batching.max_batch_size is {settings.batching.max_batch_size}; legal: up to "
            f"{rows.most}, which its graph is made for.",
            field="batching",
        )


def _check_kinds(options: BuildOptions) -> None:
    own = OWN_KIND[options.target]
    for name, kind in options.kinds.items():
        if kind not in (own, "pytorch"):
            raise InvalidInputError(
                f"--kind is {name}={kind}; legal for target {options.target}: {name}={own}, {name}=pytorch.",
                field="kind",
            )
    absent = [name for name in options.kinds if name not in networks_of(options.source)]
    if absent:
        raise InvalidInputError(f"--kind names {absent[0]}, which the checkpoints do not have.", field="kind")
    if options.fp8 and options.kinds.get("dit") == "pytorch":
        raise InvalidInputError("--fp8 is for the exported transformer; legal with it: no --kind dit=pytorch.", "kind")
    if (options.fp8 or options.native) and options.target != "cuda":
        word = "--fp8" if options.fp8 else "--native"
        raise InvalidInputError(f"{word} is for target cuda; the target is {options.target}.", field="target")


def _room(request: Request) -> int:
    """Bytes that making an artifact takes on the disk: its weights, and again while a compiler works."""
    with torch.device("meta"):
        weights = sum(_meta_bytes(request))
    return {"aoti": 3, "tensorrt": 2}.get(request.kind, 1) * weights + _SPARE_BYTES


def _meta_bytes(request: Request) -> Iterator[int]:
    from gen3c.generator.dit import Dit
    from gen3c.generator.text_program import TEXT_ENCODER, find_text_encoder
    from gen3c.generator.vae import build_vae
    from gen3c.geometry.vggt.model import Vggt

    preset: Preset = request.source.preset
    size = request.dtype.itemsize
    if request.kind == "pytorch":
        return
    if request.program == "dit":
        yield from (p.numel() * size for p in Dit(preset.dit).parameters())
    elif request.program == TEXT_ENCODER.name:
        found = find_text_encoder(preset, request.source.checkpoints)
        yield from () if found is None else (path.stat().st_size for path in found.weights)
    elif request.program == "vggt":
        config = find_vggt(request.source.vggt, request.source.checkpoints).config
        yield from (p.numel() * 4 for p in Vggt(config, points=False).parameters())
    else:
        yield from (p.numel() * size for p in build_vae(preset.vae, preset.latent_shape[0]).parameters())


def _assemble(
    folder: Path, manifest: Manifest, deployment: Deployment, store: ArtifactStore, options: BuildOptions
) -> None:
    source = options.services or default_model_repository()
    repository = folder / REPOSITORY
    for name, config in configurations(manifest, deployment, source).items():
        (repository / name / VERSION_FOLDER).mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config, encoding="utf-8")
        artifact = manifest.artifacts.get(name)
        code = repository / name / VERSION_FOLDER / "model.py"
        if artifact is None:
            shutil.copyfile(source / name / VERSION_FOLDER / "model.py", code)
        elif artifact.platform == "python":
            code.write_text(_SHIM.format(name=name), encoding="utf-8")
        if artifact is not None:
            for file in artifact.files:
                link(store.place(name, artifact.key) / file.name, repository / name / VERSION_FOLDER / file.name)
    (folder / DEPLOYMENT).write_text(_written(deployment), encoding="utf-8")
    manifest.write(folder)


def configurations(manifest: Manifest, deployment: Deployment, services: Path) -> dict[str, str]:
    """The config.pbtxt of every model of a repository; `services` holds those of the models that are no artifacts.

    Raises InvalidInputError for a deployment that the artifacts or the target cannot have.
    """
    target = manifest.target
    device: Device = "gpu" if target != "cpu" else "cpu"
    texts = {}
    for name in SERVICES:
        own = (services / name / "config.pbtxt").read_text(encoding="utf-8")
        texts[name] = service_config(own, deployment.settings(name, target), device) + _MARK
    for name, artifact in manifest.artifacts.items():
        file = artifact.graphs[0].file if artifact.graphs and artifact.platform != "python" else ""
        gpu = manifest.gpu if artifact.platform == "tensorrt_plan" else None
        texts[name] = leaf_config(
            network(name).signature,
            platform=artifact.platform,
            device=device,
            sizes=_common_sizes(artifact),
            settings=deployment.settings(name, target),
            wire_names={tensor.name: tensor.wire for tensor in (*artifact.inputs, *artifact.outputs)},
            warm_up_sizes=_warm_up_sizes(artifact, manifest.preset),
            # A plan is for one kind of GPU: Triton is to say so, rather than TensorRT.
            cc_model_filenames={gpu.capability: file} if gpu else {},
            model_filename="" if gpu else file,
        )
        texts[name] += _MARK if artifact.platform == "python" else ""
    return texts


def _common_sizes(artifact: Artifact) -> dict[str, int]:
    """Sizes that all graphs of an artifact fix alike."""
    first = artifact.graphs[0].sizes if artifact.graphs else {}
    return {symbol: n for symbol, n in first.items() if all(g.sizes.get(symbol) == n for g in artifact.graphs)}


def _warm_up_sizes(artifact: Artifact, preset: str) -> dict[str, int]:
    """Sizes of a call that the artifact takes."""
    if not artifact.graphs:
        vggt = {"s": 1, "H": 28, "W": 28} if artifact.program == VGGT.name else {}  # any whole patches will do
        return {**symbols(get_preset(preset)), "tokens": 1, **vggt}
    first = artifact.graphs[0]
    return {**first.sizes, **{symbol: open_.usual for symbol, open_ in first.dynamic.items()}}
