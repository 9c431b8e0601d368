"""A store in one SQLite file: the default. Durable, and shared by the processes of one machine.

What `commit` returned for survives the loss of power, not only of the process: the write-ahead log is synced to the
disk at every commit (synchronous=FULL). The sync costs far more than the rows, so callers gather many decisions and
credits into one commit. The file must lie on a local disk: a network file system cannot carry the log's locks.

Sums are read, added to and written inside `BEGIN IMMEDIATE`, the lock that one process at a time can hold, so no update
is lost between processes. Whoever waits longer than the busy timeout for it gets a StoreError and may try again.

The tables are made for questions in plain SQL; sums and vectors are float64, little-endian. NaN is refused where a
column holds one number, because SQLite would make it NULL.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from threading import Lock
from typing import Any

from router.call import Batch, Decision, Document, Event, Fit, Outcome, Vector
from router.stores import StoreError
from router.stores import statements as sql
from router.stores.ledger import Entry, Key, Named, settle
from router.stores.rows import (
    blob,
    decision_of,
    decision_row,
    event_of,
    event_row,
    fit_of,
    outcome_of,
    outcome_row,
    vector,
)
from router.stores.tables import APPLICATION, SCHEMA, TABLES

_WIDTH = 15  # columns of decisions
_PAGE = 1000  # decisions that log() reads at a time
_ROWS = 256  # rows that one INSERT takes at most


class SQLiteStore:
    """A Store in the file at `path`, made when it is not there.

    `busy_timeout` is how many seconds a call waits for another process's transaction. Raises StoreError when the file
    cannot be opened, is not a store, or was written by another Croupier; a foreign file is never changed.
    """

    def __init__(self, path: str, *, busy_timeout: float = 5.0) -> None:
        self._path = path
        self._lock = Lock()
        self._commits = 0
        file = Path(path).absolute()
        if not file.parent.is_dir():
            raise StoreError(f"The store {path} cannot be made: there is no folder {Path(path).parent}.")
        with self._explained():
            self._db = sqlite3.connect(file, timeout=busy_timeout, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def commit(self, batch: Batch) -> list[bool]:
        ids = [decision.id for decision in batch.decisions] + [credit.outcome.decision for credit in batch.credits]
        with self._transaction():
            entry = settle(
                batch,
                known=self._known(ids),
                values=self._values(batch),
                stored=self._stored,
                added=self._added(batch.writer),
            )
            self._write(batch, entry)
        return entry.claims

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        wanted = set(ids)
        return {row[0]: decision_of(row) for row in self._read(sql.FIND, _ids(wanted)) if row[0] in wanted}

    def outcomes(self, ids: Iterable[str]) -> dict[str, dict[str, Outcome]]:
        wanted = set(ids)
        rows = groupby(self._read(sql.OUTCOMES, _ids(wanted)), itemgetter(0))
        return {id: {row[1]: outcome_of(row) for row in group} for id, group in rows if id in wanted}

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        rows = self._read("SELECT layout, arm, row FROM sums WHERE route = ?", (route,))
        return {(layout, arm): vector(row) for layout, arm, row in rows}

    def version(self) -> int:
        # SQLite's own counter sees the commits of other connections, and only those.
        ((others,),) = self._read("PRAGMA data_version")
        return (self._commits << 32) + int(others)

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._walk(sql.LOG, route, after)

    def newest(self, route: str) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        return self._walk(sql.NEWEST, route, sql.END)

    def fit(self, route: str, version: str) -> Fit | None:
        query = "SELECT text, arms, sums, time FROM fits JOIN settings ON id = settings WHERE route = ? AND version = ?"
        for text, arms, sums, time in self._read(query, (route, version)):
            return fit_of(route, version, text, arms, sums, time)
        return None

    def events(self, route: str, *, after: str = "") -> list[Event]:
        return [
            event_of(row)
            for row in self._read("SELECT * FROM events WHERE route = ? AND id > ? ORDER BY id", (route, after))
        ]

    def documents(self, kind: str, *, after: int = 0) -> dict[str, Document]:
        query = "SELECT key, stamp, body FROM documents WHERE kind = ? AND stamp > ?"
        rows = self._read(query, (kind, after))
        return {key: Document(stamp, body) for key, stamp, body in rows if body or after}

    def put(
        self, kind: str, bodies: Mapping[str, bytes], *, expected: int | None = None, events: Sequence[Event] = ()
    ) -> bool:
        with self._transaction() as db:
            if expected is not None and any(self._stamp(kind, key) != expected for key in bodies):
                return False
            ((stamp,),) = db.execute("SELECT coalesce(max(stamp), 0) + 1 FROM documents WHERE kind = ?", (kind,))
            _insert(db, "documents", [(kind, key, stamp, body) for key, body in bodies.items()], sql.PUT)
            self._say(events)
        return True

    def prune(
        self, route: str, *, before: float, most: int | None = None, limit: int = 10_000, keep: Collection[str] = ()
    ) -> int:
        with self._transaction() as db:
            ((count,),) = db.execute("SELECT coalesce(sum(uses), 0) FROM versions WHERE route = ?", (route,))
            beyond = 0 if most is None else min(max(count - most, 0), limit)
            ((stays,),) = db.execute(sql.STAYS, (route, limit - beyond, beyond, before))
            ((last, gone),) = db.execute(sql.GONE, {"route": route, "limit": limit, "stays": stays})
            if gone:
                self._forget(route, last, keep)
        return int(gone)

    def drop(self, route: str, layouts: Collection[str]) -> None:
        with self._transaction() as db:
            db.execute(sql.DROP, (route, *_ids(layouts)))

    def close(self) -> None:
        with self._lock, self._explained():
            self._db.close()

    def _prepare(self) -> None:
        """Makes the tables in a new file, and refuses a file that is not ours before anything of it is changed."""
        with self._transaction() as db:
            ((application,),) = db.execute("PRAGMA application_id")
            ((schema,),) = db.execute("PRAGMA user_version")
            ((tables,),) = db.execute("SELECT count(*) FROM sqlite_schema")
            if application == schema == tables == 0:
                for table in TABLES:
                    db.execute(table)
                db.execute(f"PRAGMA application_id = {APPLICATION}")
                db.execute(f"PRAGMA user_version = {SCHEMA}")
            elif application != APPLICATION:
                raise StoreError(f"{self._path} is the database of another program; name a new file for the store.")
            elif schema != SCHEMA:
                raise StoreError(
                    f"The store {self._path} was written by another Croupier: its schema is {schema}, and this one "
                    f"reads {SCHEMA}. Run the Croupier that wrote it, or name a new file: it is not translated."
                )
        with self._explained():
            ((mode,),) = self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        if mode != "wal":
            raise StoreError(f"The store {self._path} must be on a local disk: no write-ahead log can be kept there.")

    def _known(self, ids: Sequence[str]) -> set[str]:
        """Those of these decisions that are there."""
        # Ids are ordered by time, so nearly all decisions are newer than what is there, and need not be looked for.
        ((newest,),) = self._db.execute("SELECT coalesce(max(id), '') FROM decisions")
        if not (old := [id for id in ids if id <= newest]):
            return set()
        ((known,),) = self._db.execute(sql.KNOWN, _ids(old))
        return set(json.loads(known))

    def _values(self, batch: Batch) -> dict[Named, float]:
        """The outcomes of the decisions that credits name: only those that credits compare need their values."""
        credited = _ids(credit.outcome.decision for credit in batch.credits)
        compared = _ids(each.outcome.decision for each in batch.credits if (each.replaces, each.given) != (None, None))
        ((named,),) = self._db.execute(sql.NAMED, credited)
        there = dict.fromkeys(map(tuple, json.loads(named)), math.nan)
        return there | {(id, name): value for id, name, value, _ in self._db.execute(sql.OUTCOMES, compared)}

    def _stored(self, key: Key) -> Vector | None:
        row = self._db.execute("SELECT row FROM sums WHERE route = ? AND layout = ? AND arm = ?", key).fetchone()
        return None if row is None else vector(row[0])

    def _added(self, writer: str) -> int | None:
        row = self._db.execute("SELECT number FROM writers WHERE writer = ?", (writer,)).fetchone()
        return None if row is None else int(row[0])

    def _stamp(self, kind: str, key: str) -> int:
        query = "SELECT stamp FROM documents WHERE kind = ? AND key = ? AND body != x''"
        row = self._db.execute(query, (kind, key)).fetchone()
        return 0 if row is None else int(row[0])

    def _write(self, batch: Batch, entry: Entry) -> None:
        db, decisions = self._db, entry.decisions.values()
        _insert(db, "decisions", [decision_row(decision) for decision in decisions])
        _insert(db, "outcomes", [outcome_row(outcome) for outcome in entry.outcomes.values()], sql.CORRECT)
        db.executemany(sql.ADD, ((*key, blob(total)) for key, total in entry.sums.items()))
        uses = Counter((decision.route, decision.policy_version) for decision in decisions)
        db.executemany(sql.USE, ((*version, n) for version, n in uses.items()))
        for fit in batch.fits:
            db.execute("INSERT INTO settings (text) VALUES (?) ON CONFLICT (text) DO NOTHING", (fit.settings,))
            db.execute(sql.FIT, (fit.route, fit.version, len(fit.sums), blob(fit.sums), fit.time, fit.settings))
        if batch.writer and batch.adds:
            db.execute(sql.ADDED, (batch.writer, batch.number))

    def _walk(self, query: str, route: str, at: str | bytes) -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        # Page by page, so that nobody waits for whoever reads a long log; what is committed meanwhile may be seen.
        while page := self._read(query, (route, at, _PAGE)):
            for _, group in groupby(page, itemgetter(0)):
                rows = list(group)
                known = {row[_WIDTH + 1]: outcome_of(row[_WIDTH:]) for row in rows if row[_WIDTH] is not None}
                yield decision_of(rows[0][:_WIDTH]), known
            at = page[-1][0]

    def _say(self, events: Iterable[Event]) -> None:
        _insert(self._db, "events", [event_row(event) for event in events], "ON CONFLICT (id) DO NOTHING")

    def _forget(self, route: str, last: str, keep: Collection[str]) -> None:
        """Deletes the decisions up to `last`, and what nothing else names."""
        db, these = self._db, (route, last)
        uses = db.execute(f"SELECT count(*), policy_version {sql.OLD} GROUP BY policy_version", these).fetchall()
        db.execute(f"DELETE FROM outcomes WHERE decision IN (SELECT id {sql.OLD})", these)  # noqa: S608
        db.execute(f"DELETE {sql.OLD}", these)
        ((latest,),) = db.execute("SELECT max(rowid) FROM fits WHERE route = ?", (route,))
        for n, version in uses:
            name = route, version
            db.execute("UPDATE versions SET uses = uses - ? WHERE route = ? AND version = ?", (n, *name))
            unused = db.execute("DELETE FROM versions WHERE route = ? AND version = ? AND uses = 0", name).rowcount
            if unused and version not in keep:
                db.execute("DELETE FROM fits WHERE route = ? AND version = ? AND rowid != ?", (*name, latest))

    def _read(self, query: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock, self._explained():
            return self._db.execute(query, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written inside is durable in the end, or none of it was written."""
        with self._lock, self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
                self._commits += 1
            except BaseException:
                if self._db.in_transaction:  # some errors have rolled back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Every refusal of SQLite, and text that is not Unicode, becomes a StoreError that names the file."""
        try:
            yield
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise StoreError(f"The store {self._path} cannot answer: {error}. Nothing has happened.") from error


def _ids(ids: Iterable[str]) -> tuple[str]:
    return (json.dumps(list(ids)),)


def _insert(db: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]], conflict: str = "") -> None:
    """Inserts many rows a statement, in few sizes so that SQLite compiles few statements.

    Each step of a statement lets go of the interpreter's lock, and beside a busy event loop it may take 5 ms to get it
    back: row by row, a commit of a thousand took more than a second at times.
    """
    while rows:
        size = min(_ROWS, 1 << (len(rows).bit_length() - 1))
        marks = "(" + ", ".join("?" * len(rows[0])) + ")"
        values = ", ".join([marks] * size)
        # The table's name and what to do on a conflict are ours.
        db.execute(f"INSERT INTO {table} VALUES {values} {conflict}", list(chain.from_iterable(rows[:size])))  # noqa: S608
        rows = rows[size:]
