"""A store in Redis: shared by the replicas of many hosts.

Each commit is one script, and Redis runs one at a time: nothing of it is seen half done, and no update is lost.

When an answer gets lost, with the connection or because Redis restarts, the same call is sent once more over a new
connection; Redis has kept its answer and gives it again. If that fails too, StoreError is raised, and unlike elsewhere
the call may have happened all the same. Whoever sends it again loses nothing and counts nothing twice: decisions, fits
and events have ids, outcomes are claimed, and adds bear a writer and a number (see Batch).

What is kept is what Redis keeps. Its append-only file must be on (`appendonly yes`), or opening is refused: without it
a restart forgets acknowledged rewards. With `appendfsync always` a commit that was acknowledged is on the disk. With
`everysec`, Redis's default, a loss of power may take the last second, and so may the death of the Redis process: while
a sync is under way, Redis answers before it writes, for up to two seconds where the disk is slow. Replicas of Redis
follow a moment behind their master, so a failover may take what they had not received. Memory that is full must be an
error (`maxmemory-policy noeviction`, or one of those that only drop keys with an expiry), never a reason to drop keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from threading import Lock
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from router.call import Batch, Decision, Document, Event, Fit, Outcome, Vector
from router.stores import StoreError
from router.stores import redis_values as values
from router.stores.address import Address
from router.stores.ledger import endless, too_wide
from router.stores.rows import fit_of, vector

_SCHEMA = b"2"
_PAGE = 1000  # values that are read or deleted at a time, so that others get their turn


class RedisStore:
    """A Store in the Redis at an address.

    A call waits at most twice the address's timeout to connect and as long again for answers. Raises StoreError when
    Redis cannot be reached, keeps nothing over a restart, or holds another Croupier's store under the prefix.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._redis = redis.Redis(
            host=address.host,
            port=address.port,
            db=address.db,
            username=address.username,
            password=address.password,
            socket_timeout=address.timeout,
            socket_connect_timeout=address.timeout,
            retry=Retry(NoBackoff(), 0),  # ours, for it must be the same call
            protocol=2,
            **address.tls,
        )
        self._commit, self._put, self._forget = (
            self._redis.register_script(Path(__file__).with_name(f"{name}.lua").read_text("utf-8"))
            for name in ("commit", "put", "forget")
        )
        self._lock = Lock()
        self._answer = f"answer:{secrets.token_hex(8)}"  # where Redis keeps its last answer to us
        self._calls = 0
        self._closed = False
        try:
            self._prepare()
        except BaseException:
            self._redis.close()
            raise

    def commit(self, batch: Batch) -> list[bool]:
        for credit in batch.credits:
            if not _is_unicode(credit.outcome.decision):  # so it is none of ours
                raise KeyError(credit.outcome.decision)
        keys = values.Keys(self._address.prefix, self._answer, "version", "decisions", "outcomes", "settings", "latest")
        with self._explained():
            request = values.Commit(batch, keys)
        answer, *told = self._write(self._commit, keys, request.batch, request.values)
        if answer == b"unknown":
            raise KeyError(told[0].decode())
        if answer == b"wide":
            raise too_wide(request.sum(*told[:2]), *told[2:])
        if answer == b"endless":
            raise endless(request.sum(*told))
        return [claim == ord("1") for claim in told[0]]

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        return {id: values.read_decision(id, value) for id, value in self._values("decisions", names=set(ids))}

    def outcomes(self, ids: Iterable[str]) -> dict[str, dict[str, Outcome]]:
        return {id: values.read_outcomes(id, value) for id, value in self._values("outcomes", names=set(ids))}

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        sums = self._ask("HGETALL", self._key("sums", route))
        return {values.read_sum(field): vector(row) for field, row in sums.items()}

    def version(self) -> int:
        return int(self._ask("GET", self._key("version")) or 0)

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._joined(self._pages(lambda at: self._after("log", route, at, _PAGE), after))

    def newest(self, route: str) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._joined(self._pages(lambda at: self._before("log", route, at, _PAGE)))

    def fit(self, route: str, version: str) -> Fit | None:
        for _, value in self._values("fits", route, names=[version]):
            digest, *numbers = values.read_fit(route, version, value)
            ((_, settings),) = self._values("settings", names=[digest])
            return fit_of(route, version, settings.decode(), *numbers)
        return None

    def events(self, route: str, *, after: str = "") -> list[Event]:
        ids = self._after("event-order", route, after, -1)
        return [values.read_event(id, value) for id, value in self._values("events", route, names=ids)]

    def documents(self, kind: str, *, after: int = 0) -> dict[str, Document]:
        # In the order of their stamps, all of one stamp together: what is written meanwhile comes later, and is met.
        documents: dict[str, Document] = {}
        order, seen = self._key("stamps", kind), after
        while page := self._ask("ZRANGEBYSCORE", order, f"({seen}", "+inf", "WITHSCORES", "LIMIT", 0, _PAGE):
            seen = int(page[-1])
            names = dict.fromkeys([*page[::2], *self._ask("ZRANGEBYSCORE", order, seen, seen)])
            found = self._values("documents", kind, names=(name.decode() for name in names))
            documents |= {name: values.read_document(value) for name, value in found}
        return {name: document for name, document in documents.items() if document.body or after}

    def put(
        self, kind: str, bodies: Mapping[str, bytes], *, expected: int | None = None, events: Sequence[Event] = ()
    ) -> bool:
        with self._explained():
            keys = values.Keys(self._address.prefix, self._answer, "version")
            keys.place("documents", kind)
            keys.place("stamps", kind)
            request = values.put_request(bodies, expected, events, keys)
        return bool(self._write(self._put, keys, *request))

    def prune(
        self, route: str, *, before: float, most: int | None = None, limit: int = 10_000, keep: Collection[str] = ()
    ) -> int:
        count = self._ask("ZCARD", self._key("log", route))
        beyond = 0 if most is None else count - most
        keys = values.Keys(self._address.prefix, "decisions", "outcomes", "latest")
        for name in ("log", "uses", "fits"):
            keys.place(name, route)
        gone = 0
        for page in self._pages(lambda at: self._after("log", route, at, _PAGE)):
            these = enumerate(page[: limit - gone], gone)
            old = [made for _, made in takewhile(lambda each: each[0] < beyond or each[1].time < before, these)]
            self._run(self._forget, keys, route, *values.forget_request(old, keep))
            gone += len(old)
            if len(old) < len(page) or gone == limit:
                break
        return gone

    def drop(self, route: str, layouts: Collection[str]) -> None:
        sums = self._key("sums", route)
        gone = [field for field in self._ask("HKEYS", sums) if values.read_sum(field)[0] in layouts]
        if gone:
            self._ask("HDEL", sums, *gone)
            self._ask("INCR", self._key("version"))

    def close(self) -> None:
        self._closed = True
        self._redis.close()

    def _prepare(self) -> None:
        """Refuses a Redis that forgets, and a store that is not ours, before anything is written."""
        if self._address.must_persist:
            persistence, memory = self._ask("INFO", "persistence"), self._ask("INFO", "memory")
            if not persistence.get("aof_enabled"):
                raise StoreError(
                    f"The store {self._address} would forget all when Redis restarts: set `appendonly yes` there, or "
                    "add persistence=any to the URL if it may."
                )
            policy = str(memory.get("maxmemory_policy", ""))
            if memory.get("maxmemory") and policy.startswith("allkeys"):
                raise StoreError(
                    f"The store {self._address} would drop keys when memory is full: set `maxmemory-policy noeviction` "
                    "there, or add persistence=any to the URL if it may."
                )
        schema = self._key("schema")
        self._ask("SETNX", schema, _SCHEMA)
        if (found := self._ask("GET", schema)) != _SCHEMA:
            raise StoreError(
                f"The store {self._address} was written by another Croupier: its schema is {found.decode()}, and this "
                f"one reads {_SCHEMA.decode()}. Run the Croupier that wrote it, or give another prefix: it is not "
                "translated."
            )

    def _joined(self, pages: Iterable[list[Decision]]) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        for page in pages:
            outcomes = self.outcomes(made.id for made in page)
            for made in page:
                yield made, outcomes.get(made.id, {})

    def _pages(self, beyond: Callable[[str], list[str]], at: str = "") -> Iterator[list[Decision]]:
        while ids := beyond(at):
            # Without those that were forgotten a moment ago.
            yield [values.read_decision(id, value) for id, value in self._values("decisions", names=ids)]
            at = ids[-1]

    def _after(self, name: str, route: str, after: str, count: int) -> list[str]:
        """Up to `count` of the ids in their order, from the one after `after`; -1 for all."""
        start = b"(" + after.encode(errors="surrogatepass") if after else b"-"
        ids = self._ask("ZRANGEBYLEX", self._key(name, route), start, b"+", "LIMIT", 0, count)
        return [id.decode() for id in ids]

    def _before(self, name: str, route: str, before: str, count: int) -> list[str]:
        """The same from the newest on, or from the one before `before`."""
        end = b"(" + before.encode() if before else b"+"
        ids = self._ask("ZREVRANGEBYLEX", self._key(name, route), end, b"-", "LIMIT", 0, count)
        return [id.decode() for id in ids]

    def _values(self, *key: str, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """The fields of a hash that are there, each with its name."""
        left = iter(names)
        while page := list(islice(left, _PAGE)):
            found = self._ask("HMGET", self._key(*key), *(name.encode(errors="surrogatepass") for name in page))
            yield from ((name, value) for name, value in zip(page, found, strict=True) if value is not None)

    def _key(self, *name: str) -> bytes:
        return values.key(self._address.prefix, *name)

    def _write(self, script: Script, keys: values.Keys, *request: bytes) -> Any:
        """Runs a script that keeps its answer, under the next number."""
        with self._lock:
            self._calls += 1
            return self._run(script, keys, f"{self._calls:016d}", *request)

    def _run(self, script: Script, keys: values.Keys, *arguments: str | bytes) -> Any:
        return self._try(lambda: script(keys=list(keys), args=arguments), writes=True)

    def _ask(self, command: str, *arguments: bytes | str | float) -> Any:
        return self._try(lambda: self._redis.execute_command(command, *arguments))  # type: ignore[no-untyped-call]

    def _try(self, call: Callable[[], Any], *, writes: bool = False) -> Any:
        with self._explained(writes=writes):
            if self._closed:
                raise StoreError(f"The store {self._address} is closed.")
            try:
                return call()
            except (redis.ConnectionError, redis.TimeoutError):
                return call()  # over a new connection

    @contextmanager
    def _explained(self, *, writes: bool = False) -> Iterator[None]:
        """Every refusal of Redis, and text that is not Unicode, becomes a StoreError that names the address."""
        try:
            yield
        except (redis.ConnectionError, redis.TimeoutError) as error:
            why = f"The store {self._address} does not answer: {_sentence(error)}"
            if writes:
                why += " What was to be written may be there; sent again, nothing counts twice."
            raise StoreError(why) from error
        except (redis.RedisError, UnicodeEncodeError) as error:
            if isinstance(error, redis.ReadOnlyError):  # of a master that no longer is one: find the new one
                self._redis.connection_pool.disconnect()
            why = f"The store {self._address} cannot answer: {_sentence(error)} Nothing has happened."
            raise StoreError(why) from error


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
