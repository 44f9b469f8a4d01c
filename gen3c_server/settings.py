"""What the launcher, or an operator by environment variables, tells the models."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from gen3c_client.contract import Limits

from gen3c.errors import InvalidInputError
from gen3c.presets import Preset, get_preset
from gen3c_server.deployment import Deployment
from gen3c_server.json_lines import LOG_FORMATS, LogFormat

__all__ = ["Deployment", "Settings", "find_device"]


@dataclass(frozen=True)
class Settings:
    """Settings of one model process."""

    preset: Preset
    deployment: Deployment
    run_dir: Path  # tokens and job files; shared by all models of a server
    checkpoints: Path | None
    vggt: Path | None  # VGGT's weights, a file or its folder; None: that of the checkpoints, if they have one
    threads: int
    device: torch.device
    log_format: LogFormat = "text"  # of what the job model tells of its jobs; text: nothing
    otlp_endpoint: str | None = None  # that traces go to; None: there are none

    @property
    def limits(self) -> Limits:
        return self.deployment.limits

    @classmethod
    def from_environment(cls, preset: str = "tiny", device: str = "cpu", deployment: Path | None = None) -> "Settings":
        """GEN3C_PRESET, _DEPLOYMENT, _RUN_DIR, _CHECKPOINTS, _VGGT, _THREADS, _DEVICE, _LOG_FORMAT, _OTLP_ENDPOINT.

        All are optional.

        The arguments are the defaults of those of the same names.
        """
        named = os.environ.get("GEN3C_DEPLOYMENT")
        deployment = Path(named) if named else deployment
        checkpoints = os.environ.get("GEN3C_CHECKPOINTS")
        vggt = os.environ.get("GEN3C_VGGT")
        default_run_dir = str(Path(tempfile.gettempdir()) / f"gen3c-{os.getuid()}")
        settings = cls(
            preset=get_preset(os.environ.get("GEN3C_PRESET", preset)),
            deployment=Deployment.load(deployment) if deployment else Deployment(),
            run_dir=Path(os.environ.get("GEN3C_RUN_DIR", default_run_dir)),
            checkpoints=Path(checkpoints) if checkpoints else None,
            vggt=Path(vggt) if vggt else None,
            threads=_threads(os.environ.get("GEN3C_THREADS", "")),
            device=find_device(os.environ.get("GEN3C_DEVICE", device)),
            log_format=_log_format(os.environ.get("GEN3C_LOG_FORMAT") or "text"),
            otlp_endpoint=os.environ.get("GEN3C_OTLP_ENDPOINT") or None,
        )
        for folder in (settings.jobs_dir, settings.cancel_dir, settings.progress_dir):
            folder.mkdir(parents=True, exist_ok=True)
        return settings

    @property
    def jobs_dir(self) -> Path:
        """One file for every job that has not ended."""
        return self.run_dir / "jobs"

    @property
    def cancel_dir(self) -> Path:
        """One file for every job that inner models should stop working for."""
        return self.run_dir / "cancel"

    @property
    def progress_dir(self) -> Path:
        """One file for every job that an inner model reports progress of."""
        return self.run_dir / "progress"

    @property
    def dtype(self) -> torch.dtype:
        """Of the networks' weights: what the released ones are run in on a GPU, float32 on a CPU."""
        return torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def apply_threads(self) -> None:
        """Give torch its share of the machine; results are repeatable for one thread count."""
        torch.set_num_threads(self.threads)


def _threads(text: str) -> int:
    """The number of threads that a variable asks for; none or 0 is every core that this process may use."""
    if not (text or "0").isdecimal():
        raise InvalidInputError(f"GEN3C_THREADS is {text!r}; legal: a number from 1, or 0 for every core.")
    return int(text or "0") or len(os.sched_getaffinity(0))


def _log_format(text: str) -> LogFormat:
    for known in LOG_FORMATS:
        if text == known:
            return known
    raise InvalidInputError(f"GEN3C_LOG_FORMAT is {text!r}; legal: {', '.join(LOG_FORMATS)}.")


def find_device(text: str) -> torch.device:
    """Where networks and renderings run. Raises InvalidInputError unless it is `cpu`, or a GPU that is there."""
    gpus = torch.cuda.device_count()
    legal = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{i}" for i in range(gpus))]
    if text not in legal:
        raise InvalidInputError(f"The device (GEN3C_DEVICE) is {text!r}; legal on this machine: {', '.join(legal)}.")
    return torch.device(text)
