from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import redis

from router.call import Batch
from router.stores import DECISIONS, Malformed, Store, StoreError, open_store
from router.stores.address import read_address
from router.stores.redis import RedisStore
from router.stores.redis_values import pack, unpack
from tests.certificates import Authority
from tests.process import until
from tests.redis_server import RedisServer, free_port
from tests.router.stores.contract import StoreContract
from tests.router.stores.outside import Again, Damage, OutsideContract
from tests.router.stores.words import (
    ROUTE,
    Fresh,
    add,
    credit,
    credited,
    decided,
    decision,
    event,
    fit,
    listed,
    logged,
)

T = TypeVar("T")

numbers = itertools.count()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may end."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


def opened(server: RedisServer, prefix: str, **settings: str) -> RedisStore:
    query = "&".join(f"{name}={value}" for name, value in {"prefix": prefix, **settings}.items())
    return RedisStore(read_address(f"{server.url}?{query}"))


def patiently(call: Callable[[], T]) -> T:
    """What it returns once the store answers."""

    def answered() -> list[T]:
        try:
            return [call()]
        except StoreError:
            return []

    return until(answered)[0]


def lose_the_first_answer(store: RedisStore, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = getattr(store, name)
    lost: list[object] = []

    def losing(**call):
        answer = script(**call)
        if not lost:
            lost.append(answer)
            raise redis.ConnectionError("cut")
        return answer

    monkeypatch.setattr(store, name, losing)


class TestRedisStore(StoreContract):
    @pytest.fixture
    def fresh(self, redis_server: RedisServer) -> Fresh:
        return lambda: opened(redis_server, f"test{next(numbers)}")


class TestOneRedis(OutsideContract):
    @pytest.fixture
    def prefix(self) -> str:
        return f"test{next(numbers)}"

    @pytest.fixture
    def again(self, redis_server: RedisServer, prefix: str) -> Again:
        return lambda: opened(redis_server, prefix)

    @pytest.fixture
    def damage(self, redis_server: RedisServer, prefix: str) -> Damage:
        def damage(id: str, column: int, value: object) -> None:
            with closing(redis.Redis(port=redis_server.port, protocol=2)) as client:
                key = f"{{{prefix}}}:decisions"
                row = unpack(client.hget(key, id))  # type: ignore[arg-type]
                row[column] = value
                client.hset(key, id, pack(row))

        return damage

    def test_a_decision_that_is_kept_in_the_place_of_another_is_named(self, store: Store, damage: Damage):
        store.commit(decided("d1", "d2"))
        damage("d2", 0, "d1")
        with pytest.raises(Malformed, match="decision 'd2' is malformed: what is kept there is another one"):
            store.find(["d2"])

    def test_what_is_no_row_at_all_is_named_too(self, store: Store, redis_server: RedisServer, prefix: str):
        store.commit(Batch([decision("d1")], [credit("d1")], [], fits=[fit("7")]))
        store.put("said", {}, events=[event("e1")])
        with closing(redis.Redis(port=redis_server.port, protocol=2)) as client:
            for name, field in ("events:credit", "e1"), ("fits:credit", "7"), ("outcomes", "d1"), ("decisions", "d1"):
                assert client.hset(f"{{{prefix}}}:{name}", field, b"\xc1") == 0, "it was there"
        calls: list[Callable[[], object]] = [lambda: store.events(ROUTE), lambda: store.fit(ROUTE, "7")]
        calls += [lambda: store.outcomes(["d1"]), lambda: store.find(["d1"]), lambda: list(store.log(ROUTE))]
        for call in calls:
            with pytest.raises(Malformed, match=r"'(e1|7|d1)'.* is malformed"):
                call()


class TestARestart:
    def test_what_was_acknowledged_is_there_after_redis_died_and_nobody_lends_a_hand(self, own: RedisServer):
        with closing(opened(own, "test")) as store:
            store.commit(Batch([decision("d1")], [credit("d1", [1, 0.5])], fits=[fit("7")]))
            store.put("switch", {"a": b"off"}, events=[event("e1")])
            sums, documents, version = listed(store), store.documents("switch"), store.version()
            own.kill()
            own.start()
            assert store.commit(Batch([decision("d1")], [credit("d1", [1, 0.5])])) == [False]
            assert listed(store) == sums
            assert logged(store) == ["d1"]
            assert store.fit(ROUTE, "7")
            assert store.events(ROUTE) == [event("e1")]
            assert store.documents("switch") == documents
            assert store.version() > version

    def test_while_it_is_away_every_call_says_so(self, own: RedisServer):
        with closing(opened(own, "test")) as store:
            store.commit(decided("d1"))
            own.kill()
            for call in (lambda: store.commit(decided("d2")), store.version, lambda: store.find(["d1"])):
                with pytest.raises(StoreError, match=rf"127\.0\.0\.1:{own.port}/0\?prefix=test does not answer"):
                    call()
            own.start()
            assert store.commit(decided("d2")) == []
            assert logged(store) == ["d1", "d2"]

    def test_a_call_that_redis_does_not_answer_ends_and_counts_once_when_it_is_sent_again(self, own: RedisServer):
        batch = Batch([decision("d1")], [credit("d1", [1])], [add(1, layout="calls")], "w", 1)
        with closing(opened(own, "test", timeout="0.3")) as store:
            own.freeze()
            with pytest.raises(StoreError, match="sent again, nothing counts twice"):
                store.commit(batch)
            own.thaw()
            patiently(lambda: store.commit(batch))
            assert patiently(lambda: listed(store)) == {
                (DECISIONS, "a"): [1.0],
                ("counts", "a"): [1.0],
                ("calls", "a"): [1.0],
            }


class TestALostAnswer:
    @pytest.fixture
    def store(self, redis_server: RedisServer) -> Iterator[RedisStore]:
        with closing(opened(redis_server, f"test{next(numbers)}")) as store:
            yield store

    def test_a_commit_whose_answer_got_lost_is_answered_as_the_first_time(self, store: RedisStore, monkeypatch):
        lose_the_first_answer(store, "_commit", monkeypatch)
        batch = Batch([decision("d1")], [credit("d1", [1]), credit("d1", [1])], [add(1, layout="calls")])
        assert store.commit(batch) == [True, False]
        assert listed(store) == {(DECISIONS, "a"): [1.0], ("counts", "a"): [1.0], ("calls", "a"): [1.0]}

    def test_so_is_a_document_that_was_to_be_written_over_the_expected_one(self, store: RedisStore, monkeypatch):
        lose_the_first_answer(store, "_put", monkeypatch)
        assert store.put("canary", {"a": b"1"}, expected=0)
        assert not store.put("canary", {"a": b"2"}, expected=0)

    def test_so_is_what_was_forgotten(self, store: RedisStore, monkeypatch):
        store.commit(Batch([decision("d1"), decision("d2")], fits=[fit("7"), fit("8")]))
        lose_the_first_answer(store, "_forget", monkeypatch)
        assert store.prune(ROUTE, before=np.inf, limit=1) == 1
        assert logged(store) == ["d2"]
        assert store.fit(ROUTE, "7"), "d2 names it"

    def test_what_was_on_its_way_for_too_long_does_nothing(self, store: RedisStore, monkeypatch):
        late = []
        script = store._commit

        def watched(**call):
            late.append(call)
            return script(**call)

        monkeypatch.setattr(store, "_commit", watched)
        calls = Batch(adds=[add(1)])
        store.commit(calls)
        store.commit(calls)
        assert script(**late[0]) == [b"late"]
        assert listed(store) == {("counts", "a"): [2.0]}


class TestManyReplicas:
    def test_no_update_is_lost_and_an_outcome_sent_to_all_counts_once(self, redis_server: RedisServer):
        prefix, shared = f"test{next(numbers)}", [f"shared{n}" for n in range(40)]

        def replica(first: int) -> int:
            with closing(opened(redis_server, prefix)) as store:
                for n in range(first, first + 50):
                    store.commit(Batch([decision(f"{n:04d}")], [credit(f"{n:04d}", [1, n])], [add(1, layout="calls")]))
                return sum(sum(store.commit(credited(credit(id, [1], layout="shared")))) for id in shared)

        with closing(opened(redis_server, prefix)) as store, ThreadPoolExecutor(4) as pool:
            store.commit(Batch([decision(id, "b") for id in shared]))
            assert sum(pool.map(replica, range(0, 200, 50))) == len(shared)
            assert listed(store) == {
                (DECISIONS, "a"): [200],
                (DECISIONS, "b"): [len(shared)],
                ("counts", "a"): [200, sum(range(200))],
                ("shared", "a"): [len(shared)],
                ("calls", "a"): [200],
            }

    def test_a_redis_in_cluster_mode_will_do_as_all_keys_are_on_one_node(self, tmp_path: Path):
        with RedisServer(tmp_path, **{"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
            with closing(redis.Redis(port=server.port, protocol=2)) as client:
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                until(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
            with closing(opened(server, "test")) as store:
                batch = Batch(
                    [decision("d1"), decision("d2", route="other")],
                    [credit("d1", [1], [2])],
                    [add(1, route="third")],
                    "w",
                    1,
                    [fit("7")],
                )
                assert store.commit(batch) == [True]
                assert store.put("switch", {"a": b"on", "b": b"off"}, events=[event("e1"), event("e2", "other")])
                assert [len(store.events(route)) for route in (ROUTE, "other")] == [1, 1]
                assert store.documents("switch").keys() == {"a", "b"}
                assert [len(list(store.log(route))) for route in (ROUTE, "other")] == [1, 1]
                assert [len(list(store.newest(route))) for route in (ROUTE, "other")] == [1, 1]
                assert store.fit(ROUTE, "7")
                assert store.prune(ROUTE, before=np.inf) == 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"appendonly": "no"}, "set `appendonly yes`"),
            ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "set `maxmemory-policy noeviction`"),
        ],
    )
    def test_a_redis_that_forgets_is_refused_unless_it_may(self, tmp_path: Path, settings: dict[str, str], said: str):
        with RedisServer(tmp_path, **settings) as server:
            with pytest.raises(StoreError, match=said):
                opened(server, "test")
            with closing(opened(server, "test", persistence="any")) as store:
                assert store.commit(decided("d1")) == []

    def test_full_memory_undoes_the_whole_commit_and_nothing_else(self, own: RedisServer):
        with closing(opened(own, "test")) as store:
            store.commit(decided("d1", "d2"))
            before = listed(store)
            store._redis.config_set("maxmemory", "1mb")
            with pytest.raises(StoreError, match=r"maxmemory.*Nothing has happened"):
                store.commit(Batch([decision("d3")], [credit("d2", [1])]))
            assert logged(store) == ["d1", "d2"]
            store._redis.config_set("maxmemory", "0")
            assert listed(store) == before
            assert store.commit(Batch([decision("d3")], [credit("d2", [1])])) == [True]

    def test_the_store_of_another_croupier_is_refused(self, redis_server: RedisServer):
        with closing(opened(redis_server, "another")) as store:
            store._redis.set("{another}:schema", "3")
        with pytest.raises(StoreError, match=r"prefix=another .*schema is 3, and this one reads 2"):
            opened(redis_server, "another")

    def test_nobody_there_is_said(self):
        said = r"^The store redis://127\.0\.0\.1:\d+/0\?prefix=croupier does not answer: .*[^.]\.$"
        with pytest.raises(StoreError, match=said):
            open_store(f"redis://127.0.0.1:{free_port()}")


class TestSecrets:
    def test_a_password_opens_and_is_never_said(self, tmp_path: Path):
        (tmp_path / "password").write_text("hunter/2\n")
        with RedisServer(tmp_path / "redis", requirepass="hunter/2") as server:
            at = f"127.0.0.1:{server.port}/0"
            open_store(f"redis://:hunter%2F2@{at}").close()
            open_store(f"redis://default@{at}?password_file={tmp_path}/password").close()
            for wrong in (f"redis://:hunter3@{at}", f"redis://{at}"):
                with pytest.raises(StoreError) as refused:
                    open_store(wrong)
                assert "hunter" not in "".join(traceback.format_exception(refused.value))

    def test_tls_asks_both_for_a_certificate_that_is_trusted(self, tmp_path: Path):
        authority = Authority(tmp_path)
        certificate, key = authority.sign("redis")
        files = {"tls-ca-cert-file": authority.certificate, "tls-cert-file": certificate, "tls-key-file": key}
        port = free_port()
        settings = {name: str(file) for name, file in files.items()}
        with RedisServer(tmp_path / "redis", **{"tls-port": str(port), **settings}):
            at = f"rediss://127.0.0.1:{port}/0?"
            ours = f"certificate={certificate}&key={key}"
            with closing(open_store(f"{at}ca={authority.certificate}&{ours}")) as store:
                assert store.commit(decided("d1")) == []
            for wrong in (ours, f"ca={authority.certificate}"):
                with pytest.raises(StoreError, match="does not answer"):
                    open_store(at + wrong)
