"""Where sums, decisions and rewards live."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from router.call import Credit, Decision, Reward, Vector

DECISIONS = "decisions"
"""The layout the store itself keeps, one float an arm: how many decisions were recorded."""


class StoreError(Exception):
    """A store could not answer, and nothing of the call has happened. The message says where, why and what would help.

    A full disk or a lock held too long can pass, and the same call may then succeed; a row of the wrong width cannot.
    """


class Store(Protocol):
    """Durable, shared between replicas, called from one thread a process; every method may block.

    A store never reads a clock and never loses what `commit` returned for. It raises StoreError when it cannot answer,
    and then nothing of that call has happened.
    """

    def commit(self, decisions: Sequence[Decision], credits: Sequence[Credit]) -> list[bool]:
        """Records decisions and rewards in one transaction, durable when this returns.

        A decision that is there already is left as it is and counted once. Each credit is claimed: True when its reward
        was counted by this call (recorded, and its rows added), False when the decision had its reward before, also
        from an earlier credit of the same call. A credit for an unknown decision raises KeyError, and nothing happens.
        """

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        """The recorded decisions among `ids`."""

    def rewards(self, ids: Iterable[str]) -> dict[str, Reward]:
        """The recorded rewards of the decisions among `ids`."""

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        """All that was added up for a route, by (layout, arm)."""

    def version(self) -> int:
        """Changes whenever sums may have changed, by this process or another. Cheap."""

    def log(self, route: str) -> Iterator[tuple[Decision, Reward | None]]:
        """Every decision of a route in the order of its ids, with its reward when there is one."""

    def close(self) -> None:
        """Releases files and connections. Idempotent."""


def open_store(url: str) -> Store:
    """The store that a URL names: "memory:", or "sqlite:PATH" with a relative or an absolute path.

    Raises ValueError for any other URL, and StoreError when the file cannot be opened or is not a store.
    """
    # Imported here because both need this module first.
    from router.stores.memory import MemoryStore
    from router.stores.sqlite import SQLiteStore

    scheme, _, path = url.partition(":")
    if url == "memory:":
        return MemoryStore()
    if scheme == "sqlite" and path not in {"", ":memory:"} and not path.startswith("//"):
        return SQLiteStore(path)
    # Only the scheme is repeated: the rest of another store's URL may hold a password.
    raise ValueError(
        f'unknown store with scheme {scheme!r}; right are "memory:", "sqlite:croupier.db" (relative to the working '
        'folder) and "sqlite:/var/lib/croupier.db" (absolute)'
    )
