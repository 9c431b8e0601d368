"""How much a client may still ask of a router, of all its workers together.

They count in memory that they share. Nobody waits for anybody: of requests that several workers admit in the same
instant, some may go uncounted, which is rare and soon over. What a worker had in flight when it died is forgotten when
its successor takes its place.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b

from protos.errors import ResourceExhausted
from router.config import Client
from router.layers.limit import RETRY_SECONDS

PLACES = 1 << 16
"""For clients; their pages come into being when they are written."""

SLACK = 0.01
"""Of the time between two requests: what rounding may cost."""


def shared_memory(workers: int) -> int:
    """A descriptor of memory in which so many workers count, for all of them to inherit. Raises OSError."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("croupier-limits")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _bytes(workers))
    return descriptor


class Limits:
    """The limits of all clients, as one of the workers sees them."""

    def __init__(
        self, clock: Callable[[], float], *, workers: int = 1, worker: int = 0, memory: int | None = None
    ) -> None:
        """`clock` is monotonic, in seconds, and the same for all `workers`, of which this is number `worker`.

        `memory` is what `shared_memory` gave; without it, this process counts alone.
        """
        self._clock = clock
        self._workers = workers
        self._worker = worker
        self._numbers = memoryview(mmap.mmap(-1 if memory is None else memory, _bytes(workers))).cast("d")
        self._known: dict[bytes, Limit] = {}

    def of(self, clients: Mapping[str, Client]) -> dict[str, Limit]:
        """The limit of each client, by name. One whose limits stay has what it had left."""
        digests = {name: _digest(name, clients[name]) for name in sorted(clients)}
        taken = {self._known[digest].place for digest in digests.values() if digest in self._known}
        for name, digest in digests.items():
            if digest not in self._known:
                place = int.from_bytes(digest) % PLACES
                while place in taken:
                    place = (place + 1) % PLACES
                taken.add(place)
                self._known[digest] = Limit(name, clients[name], place, self._row(place), self._worker, self._clock)
        return {name: self._known[digest] for name, digest in digests.items()}

    def _row(self, place: int) -> memoryview[float]:
        width = self._workers + 1
        return self._numbers[place * width : (place + 1) * width]


class Limit:
    """What one client may still ask."""

    def __init__(
        self, name: str, settings: Client, place: int, row: memoryview[float], worker: int, clock: Callable[[], float]
    ) -> None:
        """`row` holds when the next request is due, were they evenly spread, and what each worker has in flight."""
        self.place = place
        self._name = name
        self._settings = settings
        self._clock = clock
        self._due = row[:1]
        self._in_flight = row[1:]
        self._worker = worker
        self._in_flight[worker] = 0.0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Counts a request in and out. Raises ResourceExhausted where it is one too many."""
        most = self._settings.max_in_flight
        if most is not None and (there := sum(self._in_flight)) >= most:
            sentence = f"client {self._name!r} has {there:.0f} requests in flight, as many as it may"
            raise ResourceExhausted(sentence, retry_after=RETRY_SECONDS)
        if self._settings.requests_per_second is not None:
            self._take(self._settings.requests_per_second)
        if most is None:
            yield
            return
        self._in_flight[self._worker] += 1.0
        try:
            yield
        finally:
            self._in_flight[self._worker] -= 1.0

    def _take(self, rate: float) -> None:
        """The generic cell rate algorithm (ITU-T I.371, annex A): a token bucket whose state is one number."""
        now = self._clock()
        due = max(self._due[0], now)
        ahead = self._settings.burst - 1 + SLACK
        if (due - now) * rate > ahead:
            sentence = f"client {self._name!r} asks more often than {rate:g} times a second"
            raise ResourceExhausted(sentence, retry_after=due - now - ahead / rate)
        self._due[0] = due + 1.0 / rate


def _digest(name: str, settings: Client) -> bytes:
    limits = settings.requests_per_second, settings.burst, settings.max_in_flight
    return blake2b(repr((name, limits)).encode(), digest_size=16).digest()


def _bytes(workers: int) -> int:
    return PLACES * (workers + 1) * 8
