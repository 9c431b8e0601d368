"""Models that are made of others: how these are found, and whether they fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from protos.errors import FailedPrecondition
from runtime.model import SharedModel, TensorSpec
from runtime.settings import ModelSettings
from runtime.words import described, quoted

Members: TypeAlias = Callable[[str], SharedModel]
"""The model in service under a name, its newest version. Raises a CallError when there is none."""


class Composite:
    """A model that is made of others. Each may be loaded anew at any time, and is found anew for each call."""

    memory = 0  # its parts hold theirs
    shares_runs = False  # its parts may

    def __init__(self, names: Iterable[str], find: Members) -> None:
        self._find = find
        self._known = {name: (model.inputs, model.outputs) for name in names for model in [find(name)]}

    @property
    def reads_parameters(self) -> bool:
        """Whether a part does, as they are now."""
        return any(self._part(name).reads_parameters for name in self._known)

    def admit(self) -> None:
        """Raises ResourceExhausted when no further call may wait for a part, and as `run` does when one is gone."""
        for part in [self._part(name) for name in self._known]:
            part.admit()

    async def close(self) -> None:
        """Nothing: the parts are served by themselves."""

    def _part(self, name: str) -> SharedModel:
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


def check_fed(inputs: tuple[TensorSpec, ...], given: Mapping[str, TensorSpec], key: str) -> None:
    """Raises FailedPrecondition naming `key` unless tensors as given fit the inputs that a model declares."""
    for spec in inputs:
        found = given.get(spec.name)
        if found is None:
            raise FailedPrecondition(f"{key}: it takes {spec.name!r}; there is {quoted(given)}")
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
    return described({spec.name: spec for spec in specs})


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
