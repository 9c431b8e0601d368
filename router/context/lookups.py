"""Feature tables: what is known about units beforehand. They live in the store; each process keeps a copy in memory."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

import msgspec

from protos.errors import InvalidArgument, NotFound
from router.config.context import FeatureTable
from router.errors import listed
from router.stores import Store

_log = logging.getLogger(__name__)

MOST_ROWS = 1000
"""In one call. It is read by the event loop, at about 10 µs a row, and everybody else waits."""

_LONGEST = 1024
"""Characters of a unit and of a text."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """What is known about one unit. Each table derives its own, with an attribute for each column, None if unknown."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as a process knows it at one moment."""

    settings: FeatureTable
    rows: Mapping[str, Row] = field(default_factory=dict)  # by unit
    stamp: int = 0  # of the newest document that was read
    unreadable: int = 0  # documents of the last refresh that do not fit the columns; their units count as unknown


Tables: TypeAlias = Mapping[str, Table]
"""By name. Published behind one reference, so that a request sees one state of them."""

NO_TABLES: Tables = {}


def kind_of(table: str) -> str:
    """Of the store's documents that hold a table's rows, by unit."""
    return f"features:{table}"


class Lookups:
    """The feature tables of this process. The store's thread calls `use` and `refresh`, the event loop all else."""

    def __init__(self) -> None:
        self.settings: Mapping[str, FeatureTable] = {}  # of the configuration being served
        self.current: Tables = NO_TABLES

    def read(self, settings: Mapping[str, FeatureTable], store: Store) -> Tables:
        """The tables of a configuration that is not served yet, for `publish`. Raises StoreError."""
        return self._read(settings, store)

    def publish(self, settings: Mapping[str, FeatureTable], tables: Tables) -> None:
        """Serves the tables of a configuration from now on, as `read` has read them.

        Those that it no longer has stay until the next refresh, for requests that are still being answered.
        """
        self.current = {**self.current, **tables}
        self.settings = settings

    def refresh(self, store: Store) -> None:
        """Reads what was written since the last time. Raises StoreError."""
        self.current = self._read(self.settings, store)

    def _read(self, settings: Mapping[str, FeatureTable], store: Store) -> Tables:
        fresh = refreshed(self.current, settings, store)
        for name, table in fresh.items():
            if table.unreadable and table is not self.current.get(name):
                _log.warning(
                    "feature table %s: %d rows do not fit its columns and are left out", name, table.unreadable
                )
        return fresh

    def bodies(
        self, table: str, rows: Sequence[tuple[str, Mapping[str, float | str]]], forget: Sequence[str] = ()
    ) -> dict[str, bytes]:
        """The documents to put, as `bodies_of` makes them. Raises NotFound, and InvalidArgument."""
        settings = self.settings.get(table)
        if settings is None:
            raise NotFound(f"there is no feature table {table[:100]!r}; there are: {listed(self.settings)}")
        return bodies_of(table, settings, rows, forget)


def refreshed(tables: Tables, settings: Mapping[str, FeatureTable], store: Store) -> Tables:
    """The tables of a configuration as the store has them now; only what was written since `tables` is read.

    A table whose columns have changed is read anew. `tables` itself comes back when nothing has changed. Blocks, and
    raises StoreError.
    """
    fresh = {name: _refreshed(name, tables.get(name), table, store) for name, table in settings.items()}
    same = fresh.keys() == tables.keys() and all(table is tables[name] for name, table in fresh.items())
    return tables if same else fresh


def _refreshed(name: str, table: Table | None, settings: FeatureTable, store: Store) -> Table:
    if table is None or table.settings != settings:
        table = Table(settings)
    documents = store.documents(kind_of(name), after=table.stamp)
    if not documents:
        return table
    decoder = _decoder(tuple(settings.columns.items()))
    rows = dict(table.rows)
    unreadable = 0
    for unit, document in documents.items():
        try:
            if document.body:
                rows[unit] = decoder.decode(document.body)
                continue
        except msgspec.DecodeError:
            unreadable += 1
        rows.pop(unit, None)
    return Table(settings, rows, max(document.stamp for document in documents.values()), unreadable)


def bodies_of(
    table: str,
    settings: FeatureTable,
    rows: Sequence[tuple[str, Mapping[str, float | str]]],
    forget: Sequence[str] = (),
) -> dict[str, bytes]:
    """The documents that put rows, of units with their columns, in the place of those that are there, or delete them.

    A column that a row leaves out is not known of its unit. Raises InvalidArgument that names row and column.
    """
    if len(rows) + len(forget) > MOST_ROWS:
        raise InvalidArgument(f"rows: at most {MOST_ROWS} in a call, got {len(rows) + len(forget)}")
    bodies: dict[str, bytes] = {}
    units = [(f"rows[{at}].unit", unit) for at, (unit, _) in enumerate(rows)]
    for place, unit in [*units, *((f"forget[{at}]", unit) for at, unit in enumerate(forget))]:
        if not 0 < len(unit) <= _LONGEST:
            raise InvalidArgument(f"{place}: must have 1 to {_LONGEST} characters, has {len(unit)}")
        if unit in bodies:
            raise InvalidArgument(f"{place}: the unit is named twice in this call")
        bodies[unit] = b""
    for at, (unit, row) in enumerate(rows):
        for column, value in row.items():
            _check(f"rows[{at}]", column, value, table, settings)
        bodies[unit] = msgspec.msgpack.encode(row)
    return bodies


def _check(place: str, column: str, value: float | str, table: str, settings: FeatureTable) -> None:
    holds = settings.columns.get(column)
    if holds is None:
        raise InvalidArgument(
            f"{place}: table {table!r} has the columns {listed(settings.columns)}, not {column[:100]!r}"
        )
    if isinstance(value, str) is not (holds == "text"):
        raise InvalidArgument(f"{place}: {column} must be a {holds}")
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise InvalidArgument(f"{place}: {column} must have at most {_LONGEST} characters, has {len(value)}")
    elif not math.isfinite(value):
        raise InvalidArgument(f"{place}: {column} must be finite")


@lru_cache(64)
def _decoder(columns: tuple[tuple[str, str], ...]) -> msgspec.msgpack.Decoder[Any]:
    fields: list[tuple[str, Any, None]] = [
        (name, (float if holds == "number" else str) | None, None) for name, holds in columns
    ]
    return msgspec.msgpack.Decoder(msgspec.defstruct("Row", fields, bases=(Row,), frozen=True, gc=False))
