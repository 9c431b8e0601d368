"""Why a model answered so: what each number of each input added to one number of the answer, row by row.

A request asks by its parameters, of a model whose settings allow it:

    explain         "integrated_gradients", or true for the same
    explain_target  the number that is explained: "y", or "y[2]" where output y has several in a row
    explain_steps   points between baseline and input at which gradients are taken; the settings have a limit

It is answered as it would be anyway, by tensors of the same values, and beside them stand

    explain.INPUT     for each input of floating point: attributions, in its shape; FP64 for FP64, else FP32
    explain.baseline  FP64 [rows]: the target's value where these inputs are at the baseline of the settings, zero
                      unless they say otherwise
    explain.delta     FP64 [rows]: by how much the attributions of a row, all inputs together, miss
                      target - explain.baseline; what integration in steps costs

So target = explain.baseline + attributions - explain.delta, which is tried out when the model is loaded. Other inputs,
of integers or booleans, keep their values at the baseline too and get no attributions. The parameters of the response
say what was explained, how, and in how many steps.

An explanation is dozens of runs of the model, so it is not given unless `parameters.extra.explain` allows it;
`explained.py` says who runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from protos.errors import InvalidArgument
from protos.messages import ModelInferResponse
from protos.tensors import FLOATS
from runtime.model import Arrays, Parameters, TensorSpec
from runtime.options import ExplainOptions

EXPLAIN, TARGET, STEPS = "explain", "explain_target", "explain_steps"
METHOD = "integrated_gradients"
BASELINE, DELTA = "explain.baseline", "explain.delta"

_INDEXED = re.compile(r"(.+)\[(\d+(?:, ?\d+)*)\]", re.DOTALL)


def attributions(name: str) -> str:
    """The output that has the attributions of an input."""
    return f"{EXPLAIN}.{name}"


class Question(NamedTuple):
    """What is to be explained: one number of each row of an output, at a place in its other dimensions."""

    output: str
    place: tuple[int, ...]
    steps: int

    @property
    def target(self) -> str:
        """As a request names it."""
        return f"{self.output}[{','.join(map(str, self.place))}]" if self.place else self.output

    def tell(self, response: ModelInferResponse) -> None:
        """Says in the parameters of a response what was explained."""
        response.parameters[EXPLAIN].string_param = METHOD
        response.parameters[TARGET].string_param = self.target
        response.parameters[STEPS].int64_param = self.steps


class Explainer(Protocol):
    """Explains one model; called by one thread at a time."""

    def explain(self, arrays: Arrays, question: Question, proceed: Callable[[], None]) -> Arrays:
        """The explanation, by the names above. Calls `proceed` before each run of the model, which may raise.

        Raises InvalidArgument where the target cannot be explained, and Internal where the model fails.
        """


def question_of(parameters: Parameters, outputs: tuple[TensorSpec, ...], options: ExplainOptions) -> Question | None:
    """What a request's parameters ask; None if they say that they don't. Raises InvalidArgument."""
    method = parameters[EXPLAIN]
    if method is False:
        return None
    if method is not True and method != METHOD:
        raise InvalidArgument(f"parameter {EXPLAIN!r} is {method!r}; it may be {METHOD!r}, or true for that")
    for name in parameters:
        if name.startswith(EXPLAIN) and name not in {EXPLAIN, TARGET, STEPS}:
            raise InvalidArgument(f"parameter {name!r} is unknown; there are {EXPLAIN!r}, {TARGET!r}, {STEPS!r}")
    steps = parameters.get(STEPS, options.steps)
    if type(steps) is not int or not 1 <= steps <= options.max_steps:
        raise InvalidArgument(f"parameter {STEPS!r} is {steps!r}; it goes from 1 to {options.max_steps}")
    return Question(*_target(str(parameters.get(TARGET, "")), outputs), steps)


def _target(told: str, outputs: tuple[TensorSpec, ...]) -> tuple[str, tuple[int, ...]]:
    """Output and place that a request names, or the only ones there are. Raises InvalidArgument saying which."""
    specs = {spec.name: spec for spec in outputs}
    floats = {name: spec for name, spec in specs.items() if spec.datatype in FLOATS}
    choices = " or ".join(f"{name!r} {spec}" for name, spec in floats.items())
    name, place = told, None
    if name not in specs and (match := _INDEXED.fullmatch(name)):
        name, place = match[1], tuple(map(int, match[2].split(",")))
    elif not name and len(floats) == 1:
        (name,) = floats
    spec = floats.get(name)
    if spec is None:
        found = f"is {specs[name]}" if name in specs else "is no output" if name else "is missing"
        raise InvalidArgument(f"parameter {TARGET!r}: {name!r} {found}; name a place in a row of {choices}")
    sizes = spec.shape[1:]
    if place is None and all(size == 1 for size in sizes):
        place = (0,) * len(sizes)
    if place is None or len(place) != len(sizes) or any(0 <= size <= i for i, size in zip(place, sizes, strict=True)):
        raise InvalidArgument(
            f"parameter {TARGET!r} is {told!r}, and output {name!r} is {spec}; name a place in a row of it: "
            f"{name}[{','.join('0' * len(sizes))}]"
        )
    return name, place
