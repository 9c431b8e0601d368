"""Where sums, decisions and what became of them live."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from router.call import Batch, Decision, Document, Event, Fit, Outcome, Vector
from router.stores.address import Address, read_address

T = TypeVar("T")

DECISIONS = "decisions"
"""The layout the store itself keeps, one float an arm: how many decisions were recorded."""


class StoreError(Exception):
    """A store could not answer, and nothing of the call has happened. The message says where, why and what would help.

    A full disk or a lock held too long can pass, and the same call may then succeed; a row of the wrong width cannot.
    """


class Malformed(StoreError):
    """Something in the store is not as any Croupier writes it; the rest can be read. The message names it."""

    def __init__(self, what: str, why: object) -> None:
        """`what` it is, such as a decision by its id, and `why` it cannot be read; none of its numbers."""
        super().__init__(f"In the store, {what} is malformed: {why}. Restore it from a copy, or delete it.")


class Store(Protocol):
    """Durable, shared between replicas, called from one thread a process; every method may block.

    A store never reads a clock and never loses what `commit` or `put` returned for. It raises StoreError when it cannot
    answer, and then nothing of that call has happened; or, where its answer got lost on a network, the message says so,
    and the same may be sent again: nothing is counted twice. What it can read and cannot understand is Malformed.
    """

    def commit(self, batch: Batch) -> list[bool]:
        """Writes a batch in one transaction, durable when this returns.

        What is there already, a decision or a fit, is left as it is, and a decision is counted once. Adds are
        made once for each number of a writer; so a batch may be sent again when its answer got lost. Each credit is
        claimed: True when its outcome was counted by this call (written down, and its rows added), False when the
        decision has an outcome of that name already, also from an earlier credit of the same call; for a correction,
        when the value there is not the one that it replaces, and for any, when what it was worked out from (`given`)
        is no longer so. A credit for an unknown decision raises KeyError, and nothing happens.
        """

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        """The recorded decisions among `ids`."""

    def outcomes(self, ids: Iterable[str]) -> dict[str, dict[str, Outcome]]:
        """What is known of the decisions among `ids`, by decision and name."""

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        """All that was added up for a route, by (layout, arm)."""

    def version(self) -> int:
        """Changes whenever sums or documents may have changed, by this process or another. Cheap."""

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        """The decisions of a route in the order of their ids, from the one after `after`, with what is known of each.

        Safe to read while others commit, however long it takes; what they add meanwhile may be seen.
        """

    def newest(self, route: str) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        """The same the other way round, from the newest decision on. Of a long log, no more is read than is taken."""

    def fit(self, route: str, version: str) -> Fit | None:
        """What the policy of a route knew at a version; None when no decision was taken with it, or it is forgotten."""

    def events(self, route: str, *, after: str = "") -> list[Event]:
        """The events of a route in the order of their ids, from the one after `after`."""

    def documents(self, kind: str, *, after: int = 0) -> dict[str, Document]:
        """The documents of a kind that were written since stamp `after`, by key; deleted ones with an empty body.

        With `after` 0, those that are there.
        """

    def put(
        self, kind: str, bodies: Mapping[str, bytes], *, expected: int | None = None, events: Sequence[Event] = ()
    ) -> bool:
        """Writes documents by key, and the events that say so, all or none; an empty body deletes.

        An event that is there already is left as it is.
        With `expected`, only if each has that stamp now (0: it is not there); False says that another was faster.
        """

    def prune(
        self, route: str, *, before: float, most: int | None = None, limit: int = 10_000, keep: Collection[str] = ()
    ) -> int:
        """Forgets the oldest decisions with their outcomes and the fits that only they named; sums and events stay.

        In the order of their ids, up to the first that is to stay: taken at `before`, in seconds since the epoch, or
        later, and among the newest `most`. At most `limit` of them, so that others get their turn. Returns how many it
        were: call again until it is 0. The latest fit stays in any case, as the next decision may name it, and so do
        those of the versions to `keep`.
        """

    def drop(self, route: str, layouts: Collection[str]) -> None:
        """Forgets the sums of these layouts of a route, of all its arms. What is added to one later begins anew."""

    def close(self) -> None:
        """Releases files and connections. Idempotent."""


class InStore(Protocol):
    """Runs a function of the store in the store's thread."""

    def __call__(self, work: Callable[[Store], T], /) -> Awaitable[T]: ...


def open_store(url: str) -> Store:
    """The store that a URL names: "memory:", "sqlite:PATH", or "redis://HOST:PORT/DB?prefix=NAME" (see `address`).

    Raises ValueError for any other URL, and StoreError when the store cannot be opened or is not one. No message
    repeats what may be a password.
    """
    # Imported here because they need this module first.
    from router.stores.memory import MemoryStore
    from router.stores.sqlite import SQLiteStore

    check_url(url)
    scheme, _, path = url.partition(":")
    if scheme == "memory":
        return MemoryStore()
    if scheme == "sqlite":
        return SQLiteStore(path)
    address = _redis_at(url, with_password=True)
    try:
        from router.stores.redis import RedisStore
    except ModuleNotFoundError as error:
        raise StoreError(
            f"A store in Redis needs the package {error.name!r}: pip install 'croupier[redis]'."
        ) from error
    return RedisStore(address)


def check_url(url: str) -> None:
    """Raises ValueError unless the URL names a store, be it there or not. Opens nothing and reads no file."""
    scheme, _, path = url.partition(":")
    if scheme in {"redis", "rediss"}:
        _redis_at(url, with_password=False)
    elif url != "memory:" and (scheme != "sqlite" or path in {"", ":memory:"} or path.startswith("//")):
        raise ValueError(
            f'unknown store with scheme {scheme!r}; right are "memory:", "sqlite:croupier.db" (in the folder of the '
            'configuration), "sqlite:/var/lib/croupier.db" (absolute) and "redis://host:6379/0?prefix=croupier"'
        )


def try_store(url: str) -> None:
    """Opens the store that a URL names, and lets go of it. A file that is not there yet is not made.

    Raises as `open_store` does.
    """
    check_url(url)
    scheme, _, path = url.partition(":")
    folder = Path(path).absolute().parent
    if scheme == "sqlite" and folder.is_dir() and not Path(path).exists():
        if not os.access(folder, os.W_OK | os.X_OK):
            raise StoreError(f"The store {path} cannot be made: the folder {folder} cannot be written to.")
        return
    open_store(url).close()


def _redis_at(url: str, *, with_password: bool) -> Address:
    try:
        return read_address(url, with_password=with_password)
    except ValueError as error:
        raise ValueError(f"the store in Redis: {error}") from None
