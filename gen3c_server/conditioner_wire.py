"""How a call of the `conditioner` model looks as named tensors; written once, for the caller and the model."""

import json
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from gen3c.conditioning import Cameras, ConditionOptions, Contribution
from gen3c.fusion import Pool
from gen3c.scene import SourceView

Wire = dict[str, Tensor | list[bytes]]

OUTPUTS = ("FRAME_COVERAGE", "PREVIEW", "POOL_LATENTS", "POOL_COVERAGE", "POOL_NORM")


def pack_call(
    view: SourceView, cameras: Cameras, options: ConditionOptions, pool: Pool | None, keep: Tensor | None
) -> Wire:
    """The inputs of one call. Optional tensors are left out."""
    inputs: Wire = {
        "IMAGE": view.image,
        "DEPTH": view.depth,
        "CONFIDENCE": view.confidence,
        "W2C": view.w2c,
        "K": view.K,
        "TARGET_W2C": cameras.w2c,
        "TARGET_K": cameras.K,
        "OPTIONS": [json.dumps(asdict(options)).encode()],
    }
    if pool is not None:
        inputs |= _pack_pool(pool)
    if keep is not None:
        inputs["KEEP"] = keep
    return inputs


def unpack_call(
    wire: Mapping[str, Tensor | list[bytes]],
) -> tuple[SourceView, Cameras, ConditionOptions, Pool | None, Tensor | None]:
    """The arguments of one call, for `gen3c.conditioning.Conditioner`."""
    view = SourceView(*(_tensor(wire, name) for name in ("IMAGE", "DEPTH", "CONFIDENCE", "W2C", "K")))
    cameras = Cameras(_tensor(wire, "TARGET_W2C"), _tensor(wire, "TARGET_K"))
    options = ConditionOptions(**json.loads(_bytes(wire, "OPTIONS")))
    keep = _tensor(wire, "KEEP") if "KEEP" in wire else None
    return view, cameras, options, _unpack_pool(wire), keep


def pack_result(result: Contribution) -> Wire:
    """The outputs of one call."""
    outputs: Wire = {"FRAME_COVERAGE": result.frame_coverage, "PREVIEW": [result.preview or b""]}
    return outputs | (_pack_pool(result.pool) if result.pool is not None else _pack_pool(_nothing()))


def unpack_result(wire: Mapping[str, Tensor | list[bytes]]) -> Contribution:
    """What one call gave."""
    pool = _unpack_pool(wire)
    empty = pool is None or pool.latents.numel() == 0
    return Contribution(_tensor(wire, "FRAME_COVERAGE"), None if empty else pool, _bytes(wire, "PREVIEW") or None)


def _nothing() -> Pool:
    """Stands for "no pool": Triton wants every output in a response."""
    return Pool.empty((0, 0, 0))


def _pack_pool(pool: Pool) -> Wire:
    return {"POOL_LATENTS": pool.latents, "POOL_COVERAGE": pool.coverage, "POOL_NORM": pool.norm}


def _unpack_pool(wire: Mapping[str, Tensor | list[bytes]]) -> Pool | None:
    if "POOL_LATENTS" not in wire:
        return None
    return Pool(_tensor(wire, "POOL_LATENTS"), _tensor(wire, "POOL_COVERAGE"), _tensor(wire, "POOL_NORM"))


def _tensor(wire: Mapping[str, Tensor | list[bytes]], name: str) -> Tensor:
    value = wire[name]
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is BYTES, expected numbers")
    return value if value.dtype == torch.bool else value.float()


def _bytes(wire: Mapping[str, Tensor | list[bytes]], name: str) -> bytes:
    value = wire[name]
    if isinstance(value, Tensor):
        raise TypeError(f"{name} is numeric, expected BYTES")
    return value[0]
