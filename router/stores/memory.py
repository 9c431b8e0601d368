"""A store that forgets when the process ends: for tests, and for trying things out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from threading import Lock

from router.call import Batch, Decision, Document, Event, Fit, Outcome, Vector
from router.stores.ledger import Key, settle


class MemoryStore:
    """A Store in dictionaries. Safe to share between threads; not shared between processes."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._decisions: dict[str, Decision] = {}
        self._outcomes: dict[str, dict[str, Outcome]] = {}  # by decision and name; replaced as a whole
        self._sums: dict[Key, Vector] = {}
        self._fits: dict[tuple[str, str], Fit] = {}
        self._events: dict[str, Event] = {}
        self._added: dict[str, int] = {}  # the last number of each writer
        self._documents: dict[str, dict[str, Document]] = {}
        self._writes = 0

    def commit(self, batch: Batch) -> list[bool]:
        with self._lock:
            credited = {credit.outcome.decision for credit in batch.credits}
            values = {
                (id, name): outcome.value for id in credited for name, outcome in self._outcomes.get(id, {}).items()
            }
            added = self._added.get(batch.writer)
            entry = settle(batch, known=self._decisions, values=values, stored=self._sums.get, added=added)
            self._decisions |= entry.decisions
            for (id, name), outcome in entry.outcomes.items():
                self._outcomes[id] = {**self._outcomes.get(id, {}), name: outcome}
            self._sums |= entry.sums
            for fit in batch.fits:
                self._fits.setdefault((fit.route, fit.version), fit)
            if batch.writer and batch.adds:
                self._added[batch.writer] = batch.number if added is None else max(added, batch.number)
            self._writes += 1
        return entry.claims

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        with self._lock:
            return {key: self._decisions[key] for key in ids if key in self._decisions}

    def outcomes(self, ids: Iterable[str]) -> dict[str, dict[str, Outcome]]:
        with self._lock:
            return {key: self._outcomes[key] for key in ids if key in self._outcomes}

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        with self._lock:
            return {(layout, arm): row for (of, layout, arm), row in self._sums.items() if of == route}

    def version(self) -> int:
        return self._writes

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        yield from self._logged(route, after)

    def newest(self, route: str) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        yield from reversed(self._logged(route))

    def fit(self, route: str, version: str) -> Fit | None:
        return self._fits.get((route, version))

    def events(self, route: str, *, after: str = "") -> list[Event]:
        with self._lock:
            wanted = [event for event in self._events.values() if event.route == route and event.id > after]
        return sorted(wanted, key=lambda event: event.id)

    def documents(self, kind: str, *, after: int = 0) -> dict[str, Document]:
        with self._lock:
            return {
                key: document
                for key, document in self._documents.get(kind, {}).items()
                if document.stamp > after and (document.body or after)
            }

    def put(
        self, kind: str, bodies: Mapping[str, bytes], *, expected: int | None = None, events: Sequence[Event] = ()
    ) -> bool:
        with self._lock:
            documents = self._documents.setdefault(kind, {})
            if expected is not None and any(_stamp(documents.get(key)) != expected for key in bodies):
                return False
            self._writes += 1
            documents.update({key: Document(self._writes, body) for key, body in bodies.items()})
            self._say(events)
            return True

    def prune(
        self, route: str, *, before: float, most: int | None = None, limit: int = 10_000, keep: Collection[str] = ()
    ) -> int:
        with self._lock:
            ids = sorted(id for id, decision in self._decisions.items() if decision.route == route)
            beyond = 0 if most is None else max(0, len(ids) - most)
            young = (n for n, id in enumerate(ids) if n >= beyond and self._decisions[id].time >= before)
            gone = ids[: min(next(young, len(ids)), limit)]
            versions = {self._decisions[id].policy_version for id in gone}
            for id in gone:
                del self._decisions[id]
                self._outcomes.pop(id, None)
            versions -= {self._decisions[id].policy_version for id in ids[len(gone) :]}
            versions -= set([version for of, version in self._fits if of == route][-1:])  # the latest
            for version in versions.difference(keep):
                self._fits.pop((route, version), None)
        return len(gone)

    def drop(self, route: str, layouts: Collection[str]) -> None:
        with self._lock:
            for key in [key for key in self._sums if key[0] == route and key[1] in layouts]:
                del self._sums[key]
            self._writes += 1

    def close(self) -> None:
        pass

    def _logged(self, route: str, after: str = "") -> list[tuple[Decision, Mapping[str, Outcome]]]:
        with self._lock:
            ids = sorted(id for id, decision in self._decisions.items() if decision.route == route and id > after)
            return [(self._decisions[id], self._outcomes.get(id, {})) for id in ids]

    def _say(self, events: Iterable[Event]) -> None:
        for event in events:
            self._events.setdefault(event.id, event)


def _stamp(document: Document | None) -> int:
    return document.stamp if document is not None and document.body else 0
