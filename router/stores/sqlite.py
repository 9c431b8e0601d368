"""A store in one SQLite file: the default. Durable, and shared by the processes of one machine.

What `commit` returned for survives the loss of power, not only of the process: the write-ahead log is synced to the
disk at every commit (synchronous=FULL). The sync costs far more than the rows, so callers gather many decisions and
credits into one commit. The file must lie on a local disk: a network file system cannot carry the log's locks.

Sums are read, added to and written inside `BEGIN IMMEDIATE`, the lock that one process at a time can hold, so no update
is lost between processes. Whoever waits longer than the busy timeout for it gets a StoreError and may try again.

The tables are made for questions in plain SQL, with these conventions: sums and contexts are float64, little-endian;
metrics are JSON. NaN is refused, because SQLite would make it NULL, and so are infinite metrics, which JSON lacks.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec
import numpy as np

from router.call import Credit, Decision, Reward, Vector
from router.stores import StoreError
from router.stores.ledger import Key, settle

_APPLICATION = 0x43524F55  # "CROU", in the file's header: this file is ours
_SCHEMA = 1

# WITHOUT ROWID: ids are ordered by time, so rows go straight to the end of one tree, at half the cost of two.
# Numbers have no declared type: a REAL column keeps -0.0 as 0.0.
_TABLES = (
    """
    CREATE TABLE decisions (
        id TEXT PRIMARY KEY NOT NULL, route TEXT NOT NULL, arm TEXT NOT NULL, propensity NOT NULL, time NOT NULL,
        policy_version TEXT NOT NULL, unit TEXT NOT NULL, context BLOB
    ) WITHOUT ROWID
    """,
    "CREATE INDEX decisions_of_route ON decisions (route)",  # followed by the primary key, as every index is
    """
    CREATE TABLE rewards (
        decision TEXT PRIMARY KEY NOT NULL REFERENCES decisions (id), value NOT NULL, time NOT NULL,
        metrics TEXT NOT NULL, truth
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE sums (
        route TEXT NOT NULL, layout TEXT NOT NULL, arm TEXT NOT NULL, row BLOB NOT NULL,
        PRIMARY KEY (route, layout, arm)
    )
    """,
)

_WIDTH = 8  # columns of decisions
_PAGE = 1000  # rows that log() reads at a time
_ROWS = 256  # rows that one INSERT takes at most
_FLOAT64 = np.dtype("<f8")

# A list of ids travels as one JSON text: one statement for any number of them.
_KNOWN = "SELECT json_group_array(id) FROM decisions WHERE id IN (SELECT value FROM json_each(?))"
_REWARDED = "SELECT json_group_array(decision) FROM rewards WHERE decision IN (SELECT value FROM json_each(?))"
_FIND = "SELECT * FROM decisions WHERE id IN (SELECT value FROM json_each(?))"
_REWARDS = "SELECT * FROM rewards WHERE decision IN (SELECT value FROM json_each(?))"
_REPLACE = "INSERT INTO sums VALUES (?, ?, ?, ?) ON CONFLICT (route, layout, arm) DO UPDATE SET row = excluded.row"
_LOG = """
    SELECT d.*, r.* FROM decisions d LEFT JOIN rewards r ON r.decision = d.id
    WHERE d.route = ? AND d.id > ? ORDER BY d.id LIMIT ?
"""


class SQLiteStore:
    """A Store in the file at `path`, made when it is not there.

    `busy_timeout` is how many seconds a call waits for another process's transaction. Raises StoreError when the file
    cannot be opened, is not a store, or was written by a newer Croupier; a foreign file is never changed.
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

    def commit(self, decisions: Sequence[Decision], credits: Sequence[Credit]) -> list[bool]:
        claimed = [credit.reward.decision for credit in credits]
        with self._transaction() as db:
            known = _existing(db, _KNOWN, [decision.id for decision in decisions] + claimed)
            rewarded = _existing(db, _REWARDED, claimed)
            entry = settle(decisions, credits, known=known, rewarded=rewarded, stored=self._stored)
            _insert(db, "decisions", [_decision_row(decision) for decision in entry.decisions.values()])
            _insert(db, "rewards", [_reward_row(reward) for reward in entry.rewards.values()])
            db.executemany(_REPLACE, ((*key, total.astype(_FLOAT64).tobytes()) for key, total in entry.sums.items()))
        return entry.claims

    def find(self, ids: Iterable[str]) -> dict[str, Decision]:
        wanted = set(ids)
        return {row[0]: _decision(row) for row in self._read(_FIND, _ids(wanted)) if row[0] in wanted}

    def rewards(self, ids: Iterable[str]) -> dict[str, Reward]:
        wanted = set(ids)
        return {row[0]: _reward(row) for row in self._read(_REWARDS, _ids(wanted)) if row[0] in wanted}

    def sums(self, route: str) -> Mapping[tuple[str, str], Vector]:
        rows = self._read("SELECT layout, arm, row FROM sums WHERE route = ?", (route,))
        return {(layout, arm): _vector(blob) for layout, arm, blob in rows}

    def version(self) -> int:
        # SQLite's own counter sees the commits of other connections, and only those.
        ((others,),) = self._read("PRAGMA data_version")
        return (self._commits << 32) + int(others)

    def log(self, route: str) -> Iterator[tuple[Decision, Reward | None]]:
        # Page by page, so that nobody waits for whoever reads a long log; what is committed meanwhile may be seen.
        last = ""
        while page := self._read(_LOG, (route, last, _PAGE)):
            for row in page:
                decision, reward = row[:_WIDTH], row[_WIDTH:]
                yield _decision(decision), None if reward[0] is None else _reward(reward)
            last = page[-1][0]

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
                for table in _TABLES:
                    db.execute(table)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_SCHEMA}")
            elif application != _APPLICATION:
                raise StoreError(f"{self._path} is the database of another program; name a new file for the store.")
            elif schema != _SCHEMA:
                raise StoreError(
                    f"The store {self._path} was written by another Croupier: its schema is {schema}, and this one "
                    f"reads {_SCHEMA}. Run the newer of the two."
                )
        with self._explained():
            ((mode,),) = self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
        if mode != "wal":
            raise StoreError(f"The store {self._path} must be on a local disk: no write-ahead log can be kept there.")

    def _stored(self, key: Key) -> Vector | None:
        row = self._db.execute("SELECT row FROM sums WHERE route = ? AND layout = ? AND arm = ?", key).fetchone()
        return None if row is None else _vector(row[0])

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


def _existing(db: sqlite3.Connection, query: str, ids: list[str]) -> set[str]:
    ((found,),) = db.execute(query, _ids(ids))
    return set(json.loads(found))


def _insert(db: sqlite3.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Inserts many rows a statement, in few sizes so that SQLite compiles few statements.

    Each step of a statement lets go of the interpreter's lock, and beside a busy event loop it may take 5 ms to get it
    back: row by row, a commit of a thousand took more than a second at times.
    """
    while rows:
        size = min(_ROWS, 1 << (len(rows).bit_length() - 1))
        marks = "(" + ", ".join("?" * len(rows[0])) + ")"
        # The table's name is one of ours.
        db.execute(f"INSERT INTO {table} VALUES {', '.join([marks] * size)}", list(chain.from_iterable(rows[:size])))  # noqa: S608
        rows = rows[size:]


def _decision_row(decision: Decision) -> tuple[Any, ...]:
    context = decision.context
    return (
        decision.id,
        decision.route,
        decision.arm,
        decision.propensity,
        decision.time,
        decision.policy_version,
        decision.unit,
        None if context is None else struct.pack(f"<{len(context)}d", *context),
    )


def _decision(row: tuple[Any, ...]) -> Decision:
    id, route, arm, propensity, time, policy_version, unit, blob = row
    context = None if blob is None else struct.unpack(f"<{len(blob) // 8}d", blob)
    return Decision(id, route, arm, propensity, time, policy_version, unit, context)


def _reward_row(reward: Reward) -> tuple[Any, ...]:
    if not all(map(math.isfinite, reward.metrics.values())) or (reward.truth is not None and math.isnan(reward.truth)):
        raise StoreError(f"A metric or the truth of decision {reward.decision!r} is not a number that can be kept.")
    return (
        reward.decision,
        reward.value,
        reward.time,
        msgspec.json.encode(dict(reward.metrics)).decode(),
        reward.truth,
    )


def _reward(row: tuple[Any, ...]) -> Reward:
    decision, value, time, metrics, truth = row
    return Reward(decision, value, time, msgspec.json.decode(metrics, type=dict[str, float]), truth)


def _vector(blob: bytes) -> Vector:
    """Read-only, as it looks into the blob."""
    return np.frombuffer(blob, _FLOAT64)
