"""A stand-in for the package `tensorrt`, which needs a GPU to do anything."""

from types import SimpleNamespace
from typing import Any

import onnx


class Config:
    """IBuilderConfig of the other TensorRT, as far as it is used: no choice of GPUs, and a cache of timings."""

    def __init__(self, legal: bytes = b"same GPU") -> None:
        self.legal = legal
        self.cache: bytes | None = None
        self.cleared: list[str] = []
        self.limits: dict[str, int] = {}
        self.profiles: list[dict[str, list[list[int]]]] = []

    def create_timing_cache(self, stored: bytes) -> bytes | None:
        return None if stored == b"broken" else bytes(stored)

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache not in (b"", self.legal):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.legal)

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.limits[pool] = size

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1


class Input:
    """A tensor of a network, as the parser makes it."""

    def __init__(self, value: onnx.ValueInfoProto) -> None:
        self.name = value.name
        self.dims = value.type.tensor_type.shape.dim
        self.shape = tuple(-1 if dim.dim_param else dim.dim_value for dim in self.dims)

    def get_dimension_name(self, axis: int) -> str:
        return str(self.dims[axis].dim_param)


class FakeTensorRT:
    """The package `tensorrt` 10.7, as far as it is used; its plans are the words "plan"."""

    __name__ = "tensorrt"
    __version__ = "10.7.0"
    BuilderFlag = SimpleNamespace(TF32="TF32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.config = Config()
        self.log: Any = None
        self.parsed: list[list[str]] = []  # the names of each graph's tensors

    def Builder(self, log: Any) -> Any:  # noqa: N802 (TensorRT's)
        self.log = log

        def create_network(flags: int) -> Any:
            assert flags == 1 << 1
            return SimpleNamespace(get_flag=lambda flag: True)

        return SimpleNamespace(
            create_builder_config=lambda: self.config,
            create_network=create_network,
            create_optimization_profile=self.profile,
            build_serialized_network=self.build,
        )

    def OnnxParser(self, network: Any, _log: Any) -> Any:  # noqa: N802
        def parse(path: str) -> bool:
            graph = onnx.load(path, load_external_data=False).graph
            inputs = [Input(value) for value in graph.input]
            network.num_inputs, network.get_input, network.num_layers = len(inputs), inputs.__getitem__, len(graph.node)
            self.parsed.append([value.name for value in (*graph.input, *graph.output)])
            return True

        return SimpleNamespace(parse_from_file=parse, num_errors=0)

    def profile(self) -> Any:
        shapes: dict[str, list[list[int]]] = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *three: shapes.update({name: list(three)}))

    def build(self, *_: Any) -> bytes | None:
        if self.fails:
            self.log.log(self.ILogger.ERROR, "Error Code 9: no  memory\nin layer 3")
            self.log.log(self.ILogger.WARNING, "a warning")
        return None if self.fails else b"plan"
