"""TensorRT and TensorRT for RTX: one interface, and all that is different between them.

| | TensorRT (`tensorrt`) | TensorRT for RTX (`tensorrt_rtx`) |
|---|---|---|
| builds for | the GPU that is there, by timing on it | GPUs of a list, without one; its kernels are made on loading |
| timing cache | saves minutes | none, its functions do nothing |
| who serves it | Triton's tensorrt backend, of exactly this version | no backend of Triton's |

Datacentre GPUs (sm_80, sm_90, sm_100) are TensorRT's; its sibling knows consumer GPUs and is here to check graphs.
"""

import importlib
import logging
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from gen3c.errors import InvalidInputError

logger = logging.getLogger(__name__)

Capability = tuple[int, int]  # CUDA's compute capability: (9, 0) is an H100's

_INSTALL = {
    # Triton reads plans of its own TensorRT alone, so there is no version that fits all.
    "tensorrt": "pip install tensorrt-cu12==VERSION (or tensorrt-cu13), VERSION being that of the Triton image",
    "tensorrt_rtx": 'pip install -e ".[tensorrt-rtx]"',
}


def load_tensorrt(name: str = "tensorrt") -> ModuleType:
    """The package `tensorrt`, or `tensorrt_rtx`; raises InvalidInputError with what installs it, or is too old."""
    if name not in _INSTALL:
        raise InvalidInputError(f"There is no TensorRT called {name!r}; legal: {', '.join(_INSTALL)}.")
    try:
        trt = importlib.import_module(name)
    except ImportError as error:
        raise InvalidInputError(f"{name} cannot be imported ({error}); this installs it: {_INSTALL[name]}.") from error
    version = str(trt.__version__)
    if name == "tensorrt" and int(version.partition(".")[0]) < 10:
        raise InvalidInputError(f"{name} is version {version}; legal is 10.0 or later: {_INSTALL[name]}.")
    return trt


def network_flags(trt: Any) -> int:
    """Those of a strongly typed network: what TensorRT 10 has to be told, and later versions always make."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def target(trt: Any, capability: Capability | None) -> Capability:
    """What GPUs a plan is for: those of `capability`, None: the one that is here.

    Raises InvalidInputError for what the package cannot build for.
    """
    here = capability_here()
    wanted = capability or here
    if _is_rtx(trt):
        legal = sorted(name.lower() for name in dir(trt.ComputeCapability) if name.startswith("SM"))
        if wanted is None or _named(wanted) not in legal:
            raise InvalidInputError(f"{trt.__name__} cannot build for {_named(wanted)}; legal: {', '.join(legal)}.")
        return wanted
    if here is None:
        raise InvalidInputError("TensorRT builds on the GPU that the plan is for; there is none that PyTorch can use.")
    if wanted != here:
        raise InvalidInputError(
            f"TensorRT builds for the GPU that it runs on, which is {_named(here)} here; asked for is {_named(wanted)}."
        )
    return here


def aim(trt: Any, config: Any, capability: Capability) -> None:
    """Make `config` one for what `target` gave, where that is not so anyway."""
    if _is_rtx(trt):
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(getattr(trt.ComputeCapability, _named(capability).upper()), 0):
            raise InvalidInputError(f"{trt.__name__} refuses to build for {_named(capability)}.")


def use_timing_cache(trt: Any, config: Any, path: Path) -> bool:
    """Let `config` use what earlier builds measured, if `path` has that; whether a cache is used at all.

    Measurements of another version or GPU are of no use; neither is a broken file, and both are replaced in the end.
    """
    if _is_rtx(trt):
        return False
    stored = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(stored)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        logger.warning("%s is of another TensorRT or GPU, or broken; it is begun anew.", path)
        if not config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False):
            return False
    return True


def write_plan(trt: Any, builder: Any, network: Any, config: Any, file: BinaryIO) -> bool:
    """Build, and write the plan; whether there is one. Newer versions write it in parts, not to hold it twice."""
    if not hasattr(builder, "build_serialized_network_to_stream"):  # before TensorRT 10.16, at the latest
        plan = builder.build_serialized_network(network, config)
        if plan is not None:
            file.write(memoryview(plan))
        return plan is not None

    class Writer(trt.IStreamWriter):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IStreamWriter.__init__(self)

        def write(self, data: bytes) -> int:
            return file.write(data)

    return bool(builder.build_serialized_network_to_stream(network, config, Writer()))


@cache
def process_logger(trt: Any) -> Any:
    """TensorRT's logger, which keeps errors in `.errors` and passes the rest to `logging`.

    There is one for the process, as TensorRT stays with the first that it is given. An error recorder would be the
    builder's own, but the Python bindings free it too early (a crash with tensorrt_rtx 1.7.1).
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (self.ERROR, self.INTERNAL_ERROR):
                self.errors.append(message)
            elif severity == self.WARNING:
                logger.warning("%s: %s", trt.__name__, message)
            else:
                logger.debug("%s: %s", trt.__name__, message)

    return Log()


def capability_here() -> Capability | None:
    """That of this machine's first GPU, None without one that PyTorch can use."""
    import torch

    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def _is_rtx(trt: Any) -> bool:
    """Only TensorRT for RTX can be told what GPUs to build for."""
    return hasattr(trt, "ComputeCapability")


def _named(capability: Capability | None) -> str:
    return "no GPU" if capability is None else f"sm{capability[0]}{capability[1]}"
