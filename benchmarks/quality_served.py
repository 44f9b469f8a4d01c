"""The served pipeline in this process: the programs of a deployment, and the steps of gen3c_server.pipeline.run_job."""

from dataclasses import dataclass
from pathlib import Path

import torch
from gen3c_client.contract import JobSpec
from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions, ViewConditioner
from gen3c.fusion import FusionMode
from gen3c.generator.rollout import Programs, RolloutOptions, rollout
from gen3c.generator.signatures import DIT, VIDEO_DECODER, VIDEO_ENCODER
from gen3c.generator.text import EmptyText
from gen3c.geometry.types import Frames, Geometry, Watch
from gen3c.geometry.vggt.signature import VGGT
from gen3c.geometry.vggt.weights import find_vggt
from gen3c.networks import WeightSource, network
from gen3c.presets import Preset
from gen3c.program import LocalProgram
from gen3c.scene import Scene, build_scene
from gen3c.seed import seed_frame
from gen3c_server.geometry_providers import GeometryProviders, VggtModel
from gen3c_server.geometry_wire import GeometryOptions
from training.scenes import as_float

SPEC = JobSpec()  # what a job asks for that asks for nothing
LEAST_CONFIDENCE = 1.0  # on VGGT's scale: every pixel


@dataclass(frozen=True)
class Served:
    """A deployment."""

    preset: Preset
    programs: Programs
    providers: GeometryProviders
    weights: dict[str, str]  # network -> where its weights came from
    steps: int  # of denoising

    @property
    def device(self) -> torch.device:
        return self.programs.device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of videos."""
        return self.preset.height, self.preset.width


def load_served(preset: Preset, checkpoints: Path | None, device: torch.device, steps: int | None = None) -> Served:
    """With the weights of a checkpoint directory, or those that a server has without one."""
    source = WeightSource(preset, checkpoints)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16  # as gen3c_server.settings

    def local(name: str) -> LocalProgram:
        return LocalProgram(network(name).load(source, device, dtype), network(name).signature)

    encoder = local(VIDEO_ENCODER.name)
    programs = Programs(
        dit=local(DIT.name),
        video_encoder=encoder,
        video_decoder=local(VIDEO_DECODER.name),
        conditioner=ViewConditioner(encoder, device),
        device=device,
    )
    weights = {name: str(network(name).provenance(source)) for name in (DIT.name, VIDEO_DECODER.name, VGGT.name)}
    vggt = VggtModel(
        local(VGGT.name), find_vggt(None, checkpoints), lambda: weights[VGGT.name], preset.may_be_untrained
    )
    return Served(preset, programs, GeometryProviders(vggt, 10**8), weights, steps or preset.steps)


def estimate(served: Served, frames: Frames, provider: str = "vggt", *, everything: bool = False) -> Geometry:
    """Geometry by a provider; `everything` keeps the depth that VGGT does not trust. Raises InvalidInputError."""
    confidence = LEAST_CONFIDENCE if everything else SPEC.geometry.vggt_confidence
    options = GeometryOptions(
        provider, vggt_confidence=confidence, vggt_drop_lowest=0.0 if everything else SPEC.geometry.vggt_drop_lowest
    )
    return served.providers.estimate(frames, options, None, Watch())


def scene_of(served: Served, frames: Frames, geometry: Geometry) -> Scene:
    """The views on the video's raster."""
    return build_scene(frames, geometry, served.size, SPEC.fit, SPEC.geometry.scale)


def make_video(served: Served, scene: Scene, cameras: Cameras, fusion: FusionMode, steps: int | None = None) -> Tensor:
    """The job's frames, [t,h,w,3] uint8 on the CPU; after the deployment's number of denoising steps, or `steps`."""
    options = RolloutOptions(
        seed=SPEC.seed,
        steps=served.steps if steps is None else steps,
        guidance=served.preset.guidance,
        fps=SPEC.fps,
        condition=ConditionOptions(fusion, SPEC.foreground_masking, SPEC.geometry.min_confidence),
    )
    first, _ = seed_frame(scene, cameras, SPEC.geometry.min_confidence)
    encode = EmptyText(served.preset.dit)
    text = encode(SPEC.prompt)
    chunks = rollout(
        scene, cameras, first, text, torch.zeros_like(text), served.programs, served.preset, options, Watch()
    )
    return torch.cat([chunk.frames for chunk in chunks])


def through_vae(served: Served, video: Tensor) -> Tensor:
    """A video [t,h,w,3] uint8 encoded and decoded."""
    dtype = torch.float32 if served.device.type == "cpu" else torch.bfloat16
    floats = as_float(video.to(served.device)[None])
    latent = served.programs.video_encoder({"VIDEO": floats.to(dtype)})["LATENT"].float()
    return served.programs.video_decoder({"LATENT": latent})["VIDEO"][0]
