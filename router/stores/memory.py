"""A store that forgets when the process ends: for tests, and for trying things out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Lock

from router.call import Credit, Decision, Reward, Vector
from router.stores.ledger import Key, settle


class MemoryStore:
    """A Store in dictionaries. Safe to share between threads; not shared between processes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._decisions: dict[str, Decision] = {}
        self._rewards: dict[str, Reward] = {}
        self._sums: dict[Key, Vector] = {}
        self._commits = 0

    def commit(self, decisions: Sequence[Decision], credits: Sequence[Credit]) -> list[bool]:
        with self._lock:
            entry = settle(decisions, credits, known=self._decisions, rewarded=self._rewards, stored=self._sums.get)
            self._decisions |= entry.decisions
            self._rewards |= entry.rewards
            self._sums |= entry.sums
            self._commits += 1
        return entry.claims

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        with self._lock:
            return {key: self._decisions[key] for key in ids if key in self._decisions}

    def rewards(self, ids: Iterable[str]) -> dict[str, Reward]:
        with self._lock:
            return {key: self._rewards[key] for key in ids if key in self._rewards}

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        with self._lock:
            return {(layout, arm): row for (of, layout, arm), row in self._sums.items() if of == route}

    def version(self) -> int:
        return self._commits

    def log(self, route: str) -> Iterator[tuple[Decision, Reward | None]]:
        with self._lock:
            decisions = sorted((d for d in self._decisions.values() if d.route == route), key=lambda d: d.id)
            pairs = [(decision, self._rewards.get(decision.id)) for decision in decisions]
        yield from pairs

    def close(self) -> None:
        pass
