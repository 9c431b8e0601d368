"""What is known about a request, read out of it as the configuration says: the context of a decision.

Everything that can be decided at load is: a request runs through closures that know where each of its numbers lies.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np

from protos.errors import InvalidArgument
from protos.messages import InferParameter, ModelMetadataResponse
from router.call import Call, Vector
from router.config.context import Features, schema_of
from router.context.columns import Slot, check_columns, malformed, readers, sole_row
from router.context.features import Value, finish_of, one_hot, plain
from router.context.lookups import NO_TABLES, Tables

_Read: TypeAlias = Callable[[Call, Tables, list[Value]], None]
"""Writes values in their places."""


class Context(msgspec.Struct, frozen=True, gc=False):
    """What is known about one request."""

    values: tuple[Value, ...] = ()  # of the features, in the order of their schema; rules read these
    numbers: tuple[float, ...] = ()  # under the schema's columns; policies read these, and they are written down

    @property
    def vector(self) -> Vector:
        """The numbers as a policy takes them; a new array each time."""
        return np.array(self.numbers)


class Encoder:
    """Reads the context of one route out of its calls. Immutable, and safe to share."""

    def __init__(self, context: Features) -> None:
        """Raises ValueError, as `schema_of` does."""
        self.schema = schema_of(context)
        self._context = context
        self._slots = [
            Slot(place, name, feature, finish_of(name, feature))
            for place, (name, feature) in enumerate(context.items())
        ]
        self._one_hot = [one_hot(feature) for feature in context.values()]
        self._has_words = any(self._one_hot)
        self._in_one_look = sole_row(self._slots)
        self._from_tensors = readers(slot for slot in self._slots if slot.feature.tensor)
        self._from_elsewhere = _readers(slot for slot in self._slots if not slot.feature.tensor)

    def __call__(self, call: Call, tables: Tables = NO_TABLES) -> Context:
        """The context of a call; `tables` hold the features that are known by unit.

        Raises InvalidArgument naming the feature and its source, and never what stood there.
        """
        if self._in_one_look is not None and (row := self._in_one_look(call.request)) is not None:
            return Context(row, row)
        values: list[Value] = [None] * len(self._slots)
        if self._from_tensors:
            request = call.request
            tensors = request.inputs[:]  # a list: protobuf's containers end their own iteration with an IndexError
            buffers = request.raw_input_contents[:]
            if buffers and len(buffers) != len(tensors):
                malformed(request)
            for name, read in self._from_tensors:
                tensor = buffer = None
                for place, each in enumerate(tensors):
                    if each.name == name:
                        if tensor is not None:
                            malformed(request)
                        tensor, buffer = each, buffers[place] if buffers else None
                read(request, tensor, buffer, values)
        for read_other in self._from_elsewhere:
            read_other(call, tables, values)
        return self._made(values)

    def given(self, values: Mapping[str, object]) -> Context:
        """The context that values by name come to: numbers, words, true and false. Raises InvalidArgument."""
        for name in values:
            if name not in self._context:
                raise InvalidArgument(f"context: the route has no feature {name[:100]!r}")
        return self._made([slot.finish(plain(values.get(slot.name), slot.name, slot.feature)) for slot in self._slots])

    def check(self, inputs: Iterable[ModelMetadataResponse.TensorMetadata]) -> None:
        """Raises ValueError for a feature that no request for a model with these inputs can have."""
        check_columns(self._context, inputs)

    def _made(self, values: list[Value]) -> Context:
        if not self._has_words:
            told: Any = tuple(values)
            return Context(told, told)
        numbers: list[Any] = []
        for columns, value in zip(self._one_hot, values, strict=True):
            if columns:
                numbers += columns[value]
            else:
                numbers.append(value)
        return Context(tuple(values), tuple(numbers))


def _readers(slots: Iterable[Slot]) -> list[_Read]:
    made: list[_Read] = []
    tables: defaultdict[str, list[Slot]] = defaultdict(list)
    for slot in slots:
        if slot.feature.parameter:
            made.append(_from_parameter(slot))
        elif slot.feature.metadata:
            made.append(_from_metadata(slot))
        else:
            tables[slot.feature.lookup].append(slot)
    return made + [_from_table(table, group) for table, group in tables.items()]


def _from_parameter(slot: Slot) -> _Read:
    key, place, finish, is_word = slot.feature.parameter, slot.place, slot.finish, bool(slot.feature.levels)

    def read(call: Call, _tables: Tables, values: list[Value]) -> None:
        parameters = call.request.parameters
        if key not in parameters:
            values[place] = finish(None)
            return
        parameter = parameters[key]
        if is_word and (word := parameter.string_param):
            values[place] = finish(word)
        else:
            values[place] = finish(plain(_choice(parameter), slot.name, slot.feature))

    return read


def _choice(parameter: InferParameter) -> Any:
    choice = parameter.WhichOneof("parameter_choice")
    return None if choice is None else getattr(parameter, choice)


def _from_metadata(slot: Slot) -> _Read:
    key = slot.feature.metadata.lower()  # as HTTP/2 writes headers

    def read(call: Call, _tables: Tables, values: list[Value]) -> None:
        values[slot.place] = slot.finish(plain(call.metadata.get(key), slot.name, slot.feature))

    return read


def _from_table(table: str, group: list[Slot]) -> _Read:
    """The features of one table, all out of the same state of the unit's row."""
    targets = [(slot.place, slot.finish, str(slot.feature.column)) for slot in group]

    def read(call: Call, tables: Tables, values: list[Value]) -> None:
        known = tables.get(table)
        row = None if known is None else known.rows.get(call.unit)
        for place, finish, column in targets:
            values[place] = finish(getattr(row, column, None))

    return read
