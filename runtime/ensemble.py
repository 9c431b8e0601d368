"""Several models as one, side by side: each answers for itself, and the answers are combined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal
from protos.tensors import DATATYPES, FLOATS
from runtime.model import NOTHING, Arrays, Parameters, SharedModel, TensorSpec, rows_of
from runtime.options import EnsembleOptions
from runtime.parts import Composite, Members, check_fed
from runtime.words import described

Answers: TypeAlias = list[NDArray[Any]]


class Ensemble(Composite):
    """Members that take the same request: each gets the inputs that it declares, all run at once.

    `combine` is "mean", of floating-point outputs, by weight; "vote", the value that has the most weight in each place,
    of integers or booleans, where the member named first wins a tie; or "stack": the outputs of all go to one more
    model, `stacker`, whose inputs are named as the members are, or MEMBER.OUTPUT where a member has several.
    """

    def __init__(self, options: EnsembleOptions, find: Members) -> None:
        super().__init__(options.parts, find)
        self._weights = options.members
        self._combine = _COMBINED.get(options.combine)
        self._stacker = options.stacker
        members = {name: self._part(name) for name in options.members}
        self.inputs = _all_inputs(members)
        if self._combine is None:
            self.outputs = self._stacked(members, self._part(options.stacker))
        else:
            self.outputs = _common_outputs(members)
            for spec in self.outputs:
                datatypes, words = _TAKES[options.combine]
                if spec.datatype not in datatypes:
                    raise FailedPrecondition(
                        f"parameters.extra.combine: {options.combine!r} is for {words}; output {spec.name!r} is {spec}"
                    )

    async def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Arrays:
        """What the members answer together. Raises the CallError of the first that fails."""
        members = {name: self._part(name) for name in self._weights}
        asked: list[asyncio.Future[Arrays]] = []
        try:
            for member in members.values():
                given = {spec.name: arrays[spec.name] for spec in member.inputs}
                asked.append(asyncio.ensure_future(member.run(given, parameters, deadline)))
            answers = await asyncio.gather(*asked)
        finally:
            for each in asked:
                each.cancel()  # where one has failed, nobody waits for the others
        if self._combine is None:
            named = {
                name: array
                for (member, model), answer in zip(members.items(), answers, strict=True)
                for name, array in _by_member(member, model, answer).items()
            }
            stacker = self._part(self._stacker)
            return await stacker.run({spec.name: named[spec.name] for spec in stacker.inputs}, parameters, deadline)
        weights = list(self._weights.values())
        combined = {}
        for spec in self.outputs:
            found = {member: answer[spec.name] for member, answer in zip(members, answers, strict=True)}
            if len({array.shape for array in found.values()}) > 1:
                # Which raises where the fault is the caller's.
                rows_of({each.name: arrays[each.name] for each in self.inputs if each.counts_rows})
                shapes = {member: list(array.shape) for member, array in found.items()}
                raise Internal(f"output {spec.name!r} differs in shape between the members: {described(shapes)}")
            combined[spec.name] = self._combine(list(found.values()), weights)
        return combined

    @staticmethod
    def _stacked(members: Mapping[str, SharedModel], stacker: SharedModel) -> tuple[TensorSpec, ...]:
        """The outputs of the stacker, after a look at whether it takes what the members return."""
        returned = {
            name: spec
            for member, model in members.items()
            for name, spec in _by_member(member, model, {spec.name: spec for spec in model.outputs}).items()
        }
        check_fed(stacker.inputs, returned, "parameters.extra.stacker")
        return stacker.outputs


def _by_member(member: str, model: SharedModel, answer: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs of a member under the names that a stacker takes them by."""
    if len(model.outputs) == 1:
        return {member: answer[model.outputs[0].name]}
    return {f"{member}.{spec.name}": answer[spec.name] for spec in model.outputs}


def _all_inputs(members: Mapping[str, SharedModel]) -> tuple[TensorSpec, ...]:
    inputs: dict[str, TensorSpec] = {}
    for member, model in members.items():
        for spec in model.inputs:
            if inputs.setdefault(spec.name, spec) != spec:
                raise FailedPrecondition(
                    f"parameters.extra.members: {member!r} takes {spec.name!r} as {spec}, another "
                    f"as {inputs[spec.name]}"
                )
    return tuple(inputs.values())


def _common_outputs(members: Mapping[str, SharedModel]) -> tuple[TensorSpec, ...]:
    first, *others = members
    outputs = {spec.name: spec for spec in members[first].outputs}
    for member in others:
        for spec in members[member].outputs:
            expected = outputs.get(spec.name)
            if expected is None or (expected.datatype, len(expected.shape)) != (spec.datatype, len(spec.shape)):
                raise FailedPrecondition(
                    f"parameters.extra.members: {member!r} returns {spec.name!r} as {spec}, {first!r} "
                    + (f"as {expected}" if expected else "does not")
                )
            if expected.shape != spec.shape:
                shape = tuple(a if a == b else -1 for a, b in zip(expected.shape, spec.shape, strict=True))
                outputs[spec.name] = replace(expected, shape=shape)
        if missing := outputs.keys() - {spec.name for spec in members[member].outputs}:
            raise FailedPrecondition(f"parameters.extra.members: {member!r} returns no {min(missing)!r}")
    return tuple(outputs.values())


def _mean(answers: Answers, weights: list[float]) -> NDArray[Any]:
    total = np.zeros(answers[0].shape)
    for answer, weight in zip(answers, weights, strict=True):
        total += weight * answer.astype(np.float64)
    return (total / sum(weights)).astype(answers[0].dtype)


def _vote(answers: Answers, weights: list[float]) -> NDArray[Any]:
    chosen, most = answers[0].copy(), np.zeros(answers[0].shape)
    for candidate in answers:
        votes = sum(weight * (answer == candidate) for answer, weight in zip(answers, weights, strict=True))
        better = votes > most
        chosen[better], most[better] = candidate[better], votes[better]
    return chosen


_COMBINED: dict[str, Callable[[Answers, list[float]], NDArray[Any]]] = {"mean": _mean, "vote": _vote}
_TAKES = {
    "mean": (FLOATS, "floating-point outputs"),
    "vote": (DATATYPES.keys() - FLOATS - {"BYTES"}, "integers and booleans"),
}
