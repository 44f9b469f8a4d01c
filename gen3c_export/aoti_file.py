"""Networks as AOTInductor packages: code compiled for one kind of device, with the weights in the same file.

A package runs without Python's compiler, in this process (gen3c.exported.program) or by `platform: "torch_aoti"` of
Triton's PyTorch backend, and needs the very torch that made it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gen3c.attention import fastest_attention
from gen3c.errors import InvalidInputError
from gen3c.program import Signature


def export_aoti(
    module: nn.Module,
    signature: Signature,
    example: Mapping[str, Tensor],
    path: Path,
    *,
    dynamic: Collection[str] = (),
) -> None:
    """Compile `module` for the device of its weights and write the package to `path`, which ends in .pt2.

    The module takes the signature's inputs in order and returns its outputs in order, a single one without a tuple.
    Sizes of the symbols in `dynamic` stay open, all others become those of the example, where an open one must be
    larger than any size that the code treats by itself (1, and 2 for VGGT).

    Raises InvalidInputError if `example` does not fit the signature; the compiler's errors are its own.
    """
    from torch._inductor.utils import fresh_cache

    arguments = signature.arguments(example)
    dims = {symbol: torch.export.Dim(symbol, min=1) for symbol in dynamic}
    shapes = tuple(
        {axis: dims[size] for axis, size in enumerate(spec.shape) if size in dims} for spec in signature.inputs
    )
    # The compiler decides for the kernels of attention, and by the same rule as the eager network. Its cache would
    # keep another copy of the weights.
    with torch.no_grad(), fastest_attention(), fresh_cache(dir=str(path.parent)):
        program = torch.export.export(module.eval(), arguments, dynamic_shapes=shapes, strict=False)
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    if not path.is_file():
        raise InvalidInputError(f"The compiler made no package {path.name}; legal is a name that ends in .pt2.")
