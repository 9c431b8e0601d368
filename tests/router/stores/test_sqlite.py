from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router.call import REWARD, Batch, Credit, Outcome
from router.stores import DECISIONS, Malformed, StoreError
from router.stores.sqlite import SQLiteStore
from router.stores.tables import SCHEMA
from tests.router.stores.contract import StoreContract
from tests.router.stores.outside import Again, Damage, OutsideContract
from tests.router.stores.words import ROUTE, Fresh, add, credit, decided, decision, event, fit, listed

ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> str:
    return str(tmp_path / "croupier.db")


@pytest.fixture
def store(file: str) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(file)) as store:
        yield store


def spawn(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.router.stores.writer", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def writer(*arguments: object) -> subprocess.Popen[str]:
    process = spawn(*arguments)
    assert hear(process) == "ready"
    return process


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


class TestSQLiteStore(StoreContract):
    @pytest.fixture
    def fresh(self, tmp_path: Path) -> Fresh:
        numbers = itertools.count()
        return lambda: SQLiteStore(str(tmp_path / f"{next(numbers)}.db"))


class TestOneFile(OutsideContract):
    @pytest.fixture
    def again(self, file: str) -> Again:
        return lambda: SQLiteStore(file)

    @pytest.fixture
    def damage(self, file: str) -> Damage:
        def damage(id: str, column: int, value: object) -> None:
            with closing(sqlite3.connect(file)) as db, db:
                name = list(db.execute("PRAGMA table_info(decisions)"))[column][1]
                db.execute(f"UPDATE decisions SET {name} = ? WHERE id = ?", (value, id))

        return damage


class TestDurability:
    def test_everything_is_there_after_a_restart(self, file):
        made = decision("d1", unit="u", context=(0.1, -0.0), failed=("b",), prediction=0.25)
        batch = Batch([made, decision("d2")], [credit("d1", [1, 0.1], value=0.1)], [add(1, 0)], "w", 1, [fit("7")])
        with closing(SQLiteStore(file)) as store:
            store.commit(batch)
            store.put("switch", {"a": b"off"}, events=[event("e1")])
            sums, documents = listed(store), store.documents("switch")
        with closing(SQLiteStore(file)) as store:
            assert store.find(["d1"]) == {"d1": made}
            assert store.outcomes(["d1"]) == {"d1": {REWARD: Outcome("d1", REWARD, 0.1, 2.5)}}
            assert [d.id for d, _ in store.log(ROUTE)] == ["d1", "d2"]
            assert store.fit(ROUTE, "7")
            assert store.events(ROUTE) == [event("e1")]
            assert store.documents("switch") == documents
            assert listed(store) == sums
            assert store.commit(batch) == [False]
            assert listed(store) == sums

    def test_a_commit_is_synced_to_the_disk(self, store):
        """A power cut cannot be tested here; that SQLite is told to be safe from one can."""
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    @pytest.mark.parametrize("acknowledged", [1, 20, 77])
    def test_what_a_killed_process_acknowledged_is_kept(self, file, acknowledged):
        with writer(file, 0, 10**6) as process:
            start(process)
            printed = [hear(process) for _ in range(acknowledged)]
            process.kill()
            assert process.stdout
            printed += process.stdout.read().split()  # what it acknowledged before the signal arrived
        with closing(SQLiteStore(file)) as store:
            log = list(store.log(ROUTE))
            rewarded = [outcomes[REWARD] for _, outcomes in log if outcomes]
            assert [reward.decision for reward in rewarded][: len(printed)] == printed
            assert len(rewarded) - len(printed) in {0, 1}, "at most the one that was committed and not yet printed"
            assert len(log) - len(rewarded) in {0, 1}, "at most the decision that was waiting for its reward"
            assert listed(store) == {
                (DECISIONS, "a"): [len(log)],
                ("counts", "a"): [len(rewarded), sum(reward.value for reward in rewarded)],
            }


class TestManyProcesses:
    def test_no_update_is_lost_between_two_processes_and_a_reward_sent_to_both_counts_once(self, file):
        each = 150
        shared = [f"shared{n}" for n in range(40)]
        with closing(SQLiteStore(file)) as store, ExitStack() as stack:
            store.commit(Batch([decision(id, "b") for id in shared]))
            version = store.version()
            processes = [stack.enter_context(writer(file, first, each, *shared)) for first in (0, each)]
            for process in processes:
                start(process)
            outputs = [process.communicate()[0].split() for process in processes]
            assert [len(output) for output in outputs] == [each + 1, each + 1]
            assert sum(int(output[-1]) for output in outputs) == len(shared)
            assert listed(store) == {
                (DECISIONS, "a"): [2 * each],
                (DECISIONS, "b"): [len(shared)],
                ("counts", "a"): [2 * each, sum(range(2 * each))],
                ("shared", "a"): [len(shared), len(shared)],
            }
            assert store.version() != version

    def test_many_processes_may_open_a_new_file_at_the_same_time(self, file):
        """Each process says it is ready once it has made or found the tables."""
        with ExitStack() as stack:
            processes = [stack.enter_context(spawn(file, n, 1)) for n in range(4)]
            outputs = [process.communicate("go\n")[0].split() for process in processes]
        assert outputs == [["ready", f"{n:08d}", "0"] for n in range(4)]
        with closing(SQLiteStore(file)) as store:
            assert listed(store) == {(DECISIONS, "a"): [4], ("counts", "a"): [4, 6]}


class TestTrouble:
    def test_a_full_disk_undoes_the_whole_commit_and_nothing_else(self, store, file):
        store.commit(Batch([decision("d1"), decision("d2")], [credit("d1", [1, 1])]))
        before, version = listed(store), store.version()
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        many = [decision(f"e{n:04d}") for n in range(5000)]
        with pytest.raises(StoreError, match=r"croupier\.db .*full"):
            store.commit(Batch(many, [credit("d2", [1, 1])]))
        assert store.find(made.id for made in many) == {}
        assert store.outcomes(["d2"]) == {}
        assert listed(store) == before
        assert store.version() == version

        store._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
        assert store.commit(Batch(many, [credit("d2", [1, 1])])) == [True]
        assert listed(store) == {(DECISIONS, "a"): [5002], ("counts", "a"): [2, 2]}
        with closing(sqlite3.connect(file)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def test_a_lock_held_too_long_is_said_and_does_not_stay(self, file):
        with closing(SQLiteStore(file, busy_timeout=0.01)) as store, closing(sqlite3.connect(file)) as other:
            store.commit(decided("d1"))
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                store.commit(Batch([decision("d2")], [credit("d1", [1, 1])]))
            assert store.find(["d1", "d2"]) == {"d1": decision("d1")}, "reading needs no lock"
            other.execute("ROLLBACK")
            assert store.commit(Batch([decision("d2")], [credit("d1", [1, 1])])) == [True]

    def test_a_file_that_may_not_be_written_is_said(self, store):
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match="readonly"):
            store.commit(decided("d1"))
        store._db.execute("PRAGMA query_only = OFF")
        assert store.commit(decided("d1")) == []

    @pytest.mark.parametrize(
        "bad",
        [
            Batch([decision("d2", propensity=np.nan)]),
            Batch([decision("d2", time=np.nan)]),
            Batch([decision("d2")], [credit("d1", value=np.nan)]),
            Batch([decision("d2")], [Credit(Outcome("d1", REWARD, 1.0, np.nan))]),
            Batch([decision("d2")], fits=[replace(fit("7"), time=np.nan)]),
        ],
        ids=["propensity", "time", "value", "time of outcome", "time of fit"],
    )
    def test_what_sqlite_cannot_keep_is_refused_and_undoes_the_whole_commit(self, store, bad):
        store.commit(decided("d1"))
        with pytest.raises(StoreError):
            store.commit(bad)
        assert store.find(["d2"]) == {}
        assert store.outcomes(["d1"]) == {}
        assert listed(store) == {(DECISIONS, "a"): [1]}

    def test_an_event_that_it_cannot_keep_is_refused_with_its_document(self, store):
        with pytest.raises(StoreError):
            store.put("switch", {"a": b"off"}, events=[event("e1"), replace(event("e2"), time=np.nan)])
        assert store.documents("switch") == {}
        assert store.events(ROUTE) == []

    def test_a_closed_store_leaves_one_file(self, store, file):
        store.commit(decided("d1"))
        store.close()
        assert [path.name for path in Path(file).parent.iterdir()] == ["croupier.db"], "its log is folded in"


class TestForeignFiles:
    @pytest.mark.parametrize("text", ["id,arm\n" * 1000, "id,arm\n"], ids=["long", "short"])
    def test_a_text_file_is_refused_and_left_alone(self, file, text):
        Path(file).write_text(text)
        with pytest.raises(StoreError, match=r"croupier\.db .*not a database"):
            SQLiteStore(file)
        assert Path(file).read_text() == text

    def test_another_program_s_database_is_refused_and_left_alone(self, file):
        with closing(sqlite3.connect(file)) as db:
            db.execute("CREATE TABLE decisions (id)")
        before = Path(file).read_bytes()
        with pytest.raises(StoreError, match=r"croupier\.db .*another program"):
            SQLiteStore(file)
        assert Path(file).read_bytes() == before

    @pytest.mark.parametrize("schema", [SCHEMA - 1, SCHEMA + 1])
    def test_the_store_of_another_croupier_is_refused_and_left_alone(self, file, store, schema):
        store.commit(decided("d1"))
        store._db.execute(f"PRAGMA user_version = {schema}")
        store.close()
        before = Path(file).read_bytes()
        with pytest.raises(StoreError, match=rf"croupier\.db .*schema is {schema}, and this one reads {SCHEMA}"):
            SQLiteStore(file)
        assert Path(file).read_bytes() == before

    def test_a_damaged_store_is_refused(self, file, store):
        store.commit(decided("d1"))
        store.close()
        with Path(file).open("r+b") as damaged:
            damaged.seek(100)
            damaged.write(b"\xff" * 1000)
        with pytest.raises(StoreError, match=r"croupier\.db .*malformed"):
            SQLiteStore(file)

    @pytest.mark.parametrize("column", ["value", "time"])
    def test_an_outcome_that_is_no_number_is_named(self, store, column):
        store.commit(Batch([decision("d1")], [credit("d1")], [], fits=[fit("7")]))
        store.put("said", {}, events=[event("e1")])
        store._db.execute(f"UPDATE outcomes SET {column} = 'much'")
        store._db.execute("UPDATE events SET numbers = '{'")
        store._db.execute("UPDATE fits SET sums = x'00'")
        outcome = "outcome 'reward' of decision 'd1'"
        calls = [lambda: store.outcomes(["d1"]), lambda: list(store.log(ROUTE)), lambda: list(store.newest(ROUTE))]
        calls += [lambda: store.events(ROUTE), lambda: store.fit(ROUTE, "7")]
        for call, what in zip(calls, [*[outcome] * 3, "event 'e1'", "version '7' of route 'credit'"], strict=True):
            with pytest.raises(Malformed, match=f"{what} is malformed"):
                call()

    def test_a_folder_is_refused(self, tmp_path):
        with pytest.raises(StoreError, match="unable to open"):
            SQLiteStore(str(tmp_path))

    def test_an_empty_file_becomes_a_store(self, file):
        Path(file).touch()
        with closing(SQLiteStore(file)) as store:
            assert store.commit(decided("d1")) == []
