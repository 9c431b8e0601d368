"""Several models as one, side by side: each answers for itself, and the answers are combined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal, InvalidArgument
from protos.tensors import DATATYPES
from runtime.model import NOTHING, Arrays, Parameters, SharedModel, TensorSpec
from runtime.settings import EnsembleOptions, ModelSettings

Members: TypeAlias = Callable[[str], SharedModel]
"""The model in service under a name, its newest version. Raises a CallError when there is none."""

Answers: TypeAlias = list[NDArray[Any]]


class Parts:
    """The models that another is made of. Each may be loaded anew at any time, and is found anew for each call."""

    def __init__(self, names: Iterable[str], find: Members) -> None:
        self._find = find
        self._known = {name: (model.inputs, model.outputs) for name in names for model in [find(name)]}

    def __call__(self, name: str) -> SharedModel:
        """The part as it is now. Raises FailedPrecondition when it takes or returns other tensors than it did."""
        model = self._find(name)
        if (model.inputs, model.outputs) != self._known[name]:
            then_taken, then_returned = self._known[name]
            if not (_alike(model.inputs, then_taken) and _alike(model.outputs, then_returned)):
                raise FailedPrecondition(
                    f"part {name!r} takes {_told(model.inputs)} and returns {_told(model.outputs)} now; it took "
                    f"{_told(then_taken)} and returned {_told(then_returned)} when this model was loaded: load it anew"
                )
        return model


class Ensemble:
    """Members that take the same request: each gets the inputs that it declares, all run at once.

    `combine` is "mean", of floating-point outputs, by weight; "vote", the value that has the most weight in each place,
    of integers or booleans, where the member named first wins a tie; or "stack": the outputs of all go to one more
    model, `stacker`, whose inputs are named as the members are, or MEMBER.OUTPUT where a member has several.
    """

    memory = 0  # its members hold theirs

    def __init__(self, options: EnsembleOptions, find: Members) -> None:
        self._find = find = Parts(options.parts, find)
        self._parts = options.parts
        self._weights = options.members
        self._combine = _COMBINED.get(options.combine)
        self._stacker = options.stacker
        members = {name: find(name) for name in options.members}
        self.inputs = _all_inputs(members)
        if self._combine is None:
            self.outputs = self._stacked(members, find(options.stacker))
        else:
            self.outputs = _common_outputs(members)
            for spec in self.outputs:
                kinds, words = _TAKES[options.combine]
                if np.dtype(DATATYPES[spec.datatype]).kind not in kinds and spec.datatype != "BF16":
                    raise FailedPrecondition(
                        f"parameters.extra.combine: {options.combine!r} is for {words}; output {spec.name!r} is {spec}"
                    )

    @property
    def reads_parameters(self) -> bool:
        """Whether a member or the stacker does, as they are now."""
        return any(self._find(name).reads_parameters for name in self._parts)

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait for a part, and as `run` does when one is gone."""
        for part in [self._find(name) for name in self._parts]:
            part.admit()

    async def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Arrays:
        """What the members answer together. Raises the CallError of the first that fails."""
        members = {name: self._find(name) for name in self._weights}
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
            stacker = self._find(self._stacker)
            return await stacker.run({spec.name: named[spec.name] for spec in stacker.inputs}, parameters, deadline)
        weights = list(self._weights.values())
        combined = {}
        for spec in self.outputs:
            found = {member: answer[spec.name] for member, answer in zip(members, answers, strict=True)}
            if len({array.shape for array in found.values()}) > 1:
                rows = {each.name: len(arrays[each.name]) for each in self.inputs if each.shape[:1] == (-1,)}
                if len(set(rows.values())) > 1:
                    raise InvalidArgument(f"the inputs differ in their number of rows: {_listed(rows)}")
                shapes = {member: list(array.shape) for member, array in found.items()}
                raise Internal(f"output {spec.name!r} differs in shape between the members: {_listed(shapes)}")
            combined[spec.name] = self._combine(list(found.values()), weights)
        return combined

    async def close(self) -> None:
        """Nothing: the members are served by themselves."""

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


def check_fed(inputs: tuple[TensorSpec, ...], given: Mapping[str, TensorSpec], key: str) -> None:
    """Raises FailedPrecondition naming `key` unless tensors as given fit the inputs that a model declares."""
    for spec in inputs:
        found = given.get(spec.name)
        if found is None:
            raise FailedPrecondition(f"{key}: it takes {spec.name!r}; there is {', '.join(map(repr, given))}")
        if not _fits(spec, found):
            raise FailedPrecondition(f"{key}: it takes {spec.name!r} as {spec}; what comes is {found}")


def _fits(spec: TensorSpec, other: TensorSpec) -> bool:
    """Whether a tensor may be as both say."""
    sizes = zip(spec.shape, other.shape, strict=False)
    alike = spec.datatype == other.datatype and len(spec.shape) == len(other.shape)
    return alike and all(-1 in pair or pair[0] == pair[1] for pair in sizes)


def _alike(some: tuple[TensorSpec, ...], others: tuple[TensorSpec, ...]) -> bool:
    """Whether tensors as some say may be as others say, by name."""
    named = {spec.name: spec for spec in others}
    return {spec.name for spec in some} == named.keys() and all(_fits(spec, named[spec.name]) for spec in some)


def _told(specs: tuple[TensorSpec, ...]) -> str:
    return _listed({spec.name: spec for spec in specs})


def _listed(named: Mapping[str, object]) -> str:
    return ", ".join(f"{name!r} {each}" for name, each in named.items())


def check_parts(settings: ModelSettings, others: Iterable[ModelSettings]) -> None:
    """Raises FailedPrecondition where a model would, through what it is made of, be made of itself.

    `others` are the settings that models may have; those of its own name do not count.
    """
    parts: dict[str, set[str]] = {}
    for each in others:
        parts.setdefault(each.name, set()).update(each.options.parts)
    parts[settings.name] = set(settings.options.parts)

    def way(name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        if name in path:
            return (*path[path.index(name) :], name)
        return next(filter(None, (way(part, (*path, name)) for part in parts.get(name, ()))), ())

    if circle := way(settings.name, ()):
        raise FailedPrecondition(f"it would be made of itself: {' -> '.join(map(repr, circle))}")


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
_TAKES = {"mean": ("f", "floating-point outputs"), "vote": ("biu", "integers and booleans")}
