"""What the models of a server run: artifacts of a built repository, or without one the networks in PyTorch.

Imported inside the server only.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from gen3c.errors import InvalidInputError
from gen3c.exported.machine import Machine, check_fits
from gen3c.exported.manifest import BUILT, DEPLOYMENT, VERSION_FOLDER, Artifact, Manifest, check_files
from gen3c.exported.program import open_artifact
from gen3c.generator.signatures import VIDEO_ENCODER, symbols
from gen3c.generator.t5 import NETWORK_FOLDER, load_text
from gen3c.generator.text import TextEncoder
from gen3c.generator.text_program import TEXT_ENCODER, find_text_encoder
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import described_vggt, find_vggt
from gen3c.networks import NETWORKS, WeightSource, network
from gen3c.presets import VGGT_1B
from gen3c.program import LocalProgram, Program
from gen3c_server import bls
from gen3c_server.deployment import instance_device
from gen3c_server.geometry_providers import VggtModel
from gen3c_server.settings import Settings


@dataclass(frozen=True)
class Serving:
    """The view that one model's process has of its server."""

    settings: Settings
    manifest: Manifest | None  # None: the repository was not built, but is that of the source tree
    repository: Path  # holds the models' folders

    @classmethod
    def of(cls, args: Mapping[str, str]) -> "Serving":
        """For `initialize` of a model. Raises InvalidInputError if the repository cannot be served here.

        A built repository decides preset, device and deployment unless the environment does.
        """
        model = Path(args["model_repository"])
        repository = model.parent if (model / "config.pbtxt").is_file() else model
        if BUILT not in json.loads(args["model_config"]).get("parameters", {}):
            settings = Settings.from_environment()
            return cls(replace(settings, device=instance_device(args, settings.device)), None, repository)
        build = repository.resolve().parent
        manifest = Manifest.read(build)  # without it the models of a build are of no use, and must not seem to be
        if not (build / DEPLOYMENT).is_file():
            raise InvalidInputError(f"The repository has no {DEPLOYMENT}; build it again with `gen3c-export build`.")
        here = Machine.here()
        if here.gpu is None:  # before the settings, which know no GPU that is not there
            check_fits(manifest, here)
        on_gpu = manifest.target != "cpu"
        settings = Settings.from_environment(
            preset=manifest.preset, device="cuda" if on_gpu else "cpu", deployment=build / DEPLOYMENT
        )
        if (settings.device.type == "cuda") != on_gpu:
            raise InvalidInputError(
                f"The repository was built for {manifest.target}, and GEN3C_DEVICE is {settings.device}.", "device"
            )
        settings = replace(settings, device=instance_device(args, settings.device))
        check_fits(manifest, Machine.here(settings.device if on_gpu else None), settings.preset.name)
        return cls(settings, manifest, repository)

    @property
    def source(self) -> WeightSource:
        """Where the weights are."""
        return WeightSource(self.settings.preset, self.settings.checkpoints, self.settings.vggt)

    def artifact(self, name: str) -> Artifact | None:
        """What the build holds of a program; None without a build."""
        if self.manifest is None:
            return None
        if name not in self.manifest.artifacts:
            raise InvalidInputError(f"The repository holds no {name!r}; build it again with `gen3c-export build`.")
        return self.manifest.artifacts[name]

    def local(self, name: str) -> Program:
        """A program in this process. Raises InvalidInputError if its weights or files are not those of the build."""
        settings, artifact = self.settings, self.artifact(name)
        signature = network(name).signature
        if artifact is not None:
            self._check_weights(artifact)
        if artifact is None or artifact.kind == "pytorch":
            return LocalProgram(network(name).load(self.source, settings.device, settings.dtype), signature)
        place = self.repository / name / VERSION_FOLDER
        return open_artifact(artifact, signature, place, settings.device, settings.threads)

    def check_foreign(self) -> None:
        """Check weights and files of what Triton's own backends run: no other process of ours looks at them.

        Raises InvalidInputError as `local` does.
        """
        for name, artifact in ({} if self.manifest is None else self.manifest.artifacts).items():
            if artifact.platform != "python":
                self._check_weights(artifact)
                check_files(artifact, self.repository / name / VERSION_FOLDER)

    def leaf(self, name: str) -> Program:
        """A program behind its model."""
        return bls.LeafProgram(network(name).signature, self.artifact(name))

    def near(self, name: str) -> Program:
        """A program whose tensors are raw video: in this process, or on the GPU of a build, its model.

        Between processes raw video costs a CPU more than to hold the weights twice; on a GPU it stays where it is.
        """
        return self.leaf(name) if self.manifest is not None and self.manifest.target != "cpu" else self.local(name)

    def leaves(self) -> tuple[str, ...]:
        """The programs that are models of the server."""
        if self.manifest is not None:
            return tuple(self.manifest.artifacts)
        return tuple(name for name in NETWORKS if name != TEXT_ENCODER.name)

    def text_encoder(self) -> TextEncoder:
        """The job's text encoder: its network is a leaf of a build that has one, else loaded here when it is needed.

        Raises InvalidInputError for a build with a leaf whose tokenizer this server is not given.
        """
        preset, checkpoints = self.settings.preset, self.settings.checkpoints
        if self.manifest is None or TEXT_ENCODER.name not in self.manifest.artifacts:
            return load_text(preset, checkpoints)
        if find_text_encoder(preset, checkpoints) is None:
            raise InvalidInputError(
                f"The repository has a text encoder, and its tokenizer is in {NETWORK_FOLDER}/ of checkpoints; name "
                "them with --checkpoints.",
                field="checkpoints",
            )
        return load_text(preset, checkpoints, dtype=self.settings.dtype, network=self.leaf(TEXT_ENCODER.name))

    def vggt(self) -> VggtModel:
        """The network behind provider `vggt`: an exported one is what it was made from, whatever weights are here."""
        preset, artifact = self.settings.preset, self.artifact(VGGT.name)
        if artifact is None or not artifact.graphs:
            source = find_vggt(self.settings.vggt, self.settings.checkpoints)
            weights = cache(lambda: str(source.provenance()))
            return VggtModel(self.leaf(VGGT.name), source, weights, preset.may_be_untrained)
        graph = artifact.graphs[0]
        return VggtModel(
            self.leaf(VGGT.name),
            described_vggt(artifact.weights),
            lambda: artifact.weights,
            preset.may_be_untrained,
            canvas=(graph.sizes["H"], graph.sizes["W"]),
            most_frames=graph.dynamic["s"].most,
        )

    def weights(self, name: str) -> str:
        """Where a program's weights came from, for the answer to the user."""
        artifact = self.artifact(name)
        return str(network(name).provenance(self.source)) if artifact is None else artifact.weights

    def least_sizes(self, name: str) -> dict[str, int]:
        """The smallest call that a program takes, for a probe."""
        artifact = self.artifact(name)
        if artifact is None or not artifact.graphs:
            side = 2 * VGGT_1B.patch  # of a picture that has patches at all
            own = {
                VIDEO_ENCODER.name: {"T": 1, "t": 1},
                VGGT.name: {"s": 1, "H": side, "W": side},
                TEXT_ENCODER.name: {"tokens": 1},
            }
            return {**symbols(self.settings.preset), **own.get(name, {})}
        graph = artifact.graphs[-1]
        return {**graph.sizes, **{symbol: open_.least for symbol, open_ in graph.dynamic.items()}}

    @property
    def seed_frames(self) -> int | None:
        """How many frames the encoder takes for a chunk's first picture; None: as many as a chunk has."""
        artifact = self.artifact(VIDEO_ENCODER.name)
        if artifact is None or not artifact.graphs:
            return 1
        return 1 if any(graph.sizes.get("T") == 1 for graph in artifact.graphs) else None

    def _check_weights(self, artifact: Artifact) -> None:
        """What runs from a checkpoint must run from the build's; and a checkpoint that is named must be that one."""
        settings = self.settings
        named = settings.vggt if artifact.program == VGGT.name and settings.vggt is not None else settings.checkpoints
        if artifact.kind != "pytorch" and named is None:
            return
        found = str(network(artifact.program).provenance(self.source))
        if found != artifact.weights:
            raise InvalidInputError(
                f"The repository's {artifact.program} was built from {artifact.weights}, and this server is given "
                f"{found}; build it again with `gen3c-export build`.",
                field="checkpoints",
            )
