"""Errors that say where the fault is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from protos.errors import CallError, FailedPrecondition


@contextmanager
def naming(place: Path | str) -> Iterator[None]:
    """Puts a place before the sentence of whatever CallError is raised inside, which becomes a FailedPrecondition."""
    try:
        yield
    except CallError as error:
        raise FailedPrecondition(f"{place}: {error.message}") from error.__cause__


def parted(error: msgspec.ValidationError) -> tuple[str, str]:
    """The key that msgspec's "what - at `$.key`" is about, empty for the whole; and what is wrong."""
    what, _, where = str(error).partition(" - at `$")
    return where.rstrip("`").removeprefix("."), what


def keyed(error: msgspec.ValidationError, under: str = "") -> str:
    """What is wrong, behind the whole key; `under` is that of the whole."""
    key, what = parted(error)
    place = f"{under}.{key}".strip(".")
    return f"{place}: {what}" if place else what
