"""Several requests of a leaf as one call of its program, and the rows back to their owners. Knows nothing of Triton.

A sum may round differently in a larger batch, so a request's last bits depend on its company.
"""

import logging
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from gen3c.errors import InvalidInputError
from gen3c.program import Program, Signature

BATCH = "batch"  # the symbol of the axis along which requests are put together

Inputs = Mapping[str, Tensor]
Answer = dict[str, Tensor] | Exception

logger = logging.getLogger("gen3c")


def has_batch_axis(signature: Signature) -> bool:
    """Whether rows of several requests fit into one call: every tensor has them as its first axis, and only there."""
    specs = (*signature.inputs, *signature.outputs)
    return all(spec.shape[:1] == (BATCH,) and BATCH not in spec.shape[1:] for spec in specs)


def answer_all(
    program: Program,
    signature: Signature,
    requests: Sequence[Inputs | Exception],
    one_value: Collection[str] = (),
) -> list[Answer]:
    """The answers in the order of the requests; an exception in place of a request is its answer.

    Requests of equal types and sizes are one call of the program, if they are also equal in the inputs `one_value`,
    whose rows must be equal within a call. What is wrong with one costs the others nothing: a call of several that
    fails is made again for each alone.
    """
    answers: dict[int, Answer] = {}
    groups: dict[object, list[int]] = {}
    for i, inputs in enumerate(requests):
        if isinstance(inputs, Exception):
            answers[i] = inputs
            continue
        try:
            groups.setdefault(_company(signature, inputs, one_value) or i, []).append(i)
        except Exception as error:
            answers[i] = error
    for members in groups.values():
        together = [inputs for i in members if not isinstance(inputs := requests[i], Exception)]
        answers |= zip(members, _call(program, signature, together), strict=True)
    return [answers[i] for i in range(len(requests))]


def _company(signature: Signature, inputs: Inputs, one_value: Collection[str]) -> tuple[object, ...] | None:
    """Equal for requests that may share a call; None for one that shares with none. Raises InvalidInputError."""
    signature.arguments(inputs)
    if not has_batch_axis(signature):
        return None
    values = [_value(name, inputs[name]) for name in one_value]
    forms = [(inputs[s.name].dtype, inputs[s.name].device, inputs[s.name].shape[1:]) for s in signature.inputs]
    return (*forms, *values)


def _value(name: str, tensor: Tensor) -> tuple[float, ...]:
    """What all rows of an input are."""
    if len(tensor) > 1 and not torch.equal(tensor, tensor[:1].expand_as(tensor)):
        raise InvalidInputError(f"{name} is {tensor.tolist()}; all rows of one call must be equal.", field=name)
    return tuple(tensor[0].flatten().tolist())


def _call(program: Program, signature: Signature, requests: Sequence[Inputs]) -> list[Answer]:
    """One call for all of `requests`; one for each if that fails."""
    if len(requests) == 1:
        return [_alone(program, requests[0])]
    first = signature.inputs[0].name
    rows = [len(inputs[first]) for inputs in requests]
    try:
        joined = {spec.name: torch.cat([inputs[spec.name] for inputs in requests]) for spec in signature.inputs}
        # The split raises unless there is a row for every row.
        parts = {name: torch.split(output, rows) for name, output in program(joined).items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(requests))]
    except Exception as error:
        logger.warning("a call for %d requests failed (%s); each is made alone", len(requests), type(error).__name__)
    return [_alone(program, inputs) for inputs in requests]


def _alone(program: Program, inputs: Inputs) -> Answer:
    try:
        return program(inputs)
    except Exception as error:
        return error
