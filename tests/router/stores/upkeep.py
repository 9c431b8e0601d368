"""What every store promises of fits, events and documents, and of forgetting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from router.call import Batch, Document, Event
from router.stores import DECISIONS, Store
from tests.router.stores.words import ROUTE, add, credit, credited, decided, decision, event, fit, listed, logged, say


def dated(store: Store, times: dict[str, float], route: str = ROUTE) -> None:
    store.commit(Batch([decision(id, route=route, time=time) for id, time in times.items()]))


def versions(store: Store) -> str:
    return "".join(version for version in "123456" if store.fit(ROUTE, version))


class UpkeepContract:
    def test_a_fit_is_kept_under_its_version_as_it_first_came(self, store: Store):
        first = fit("1", [0.1, -0.0, np.inf], settings='{"é": 1}')
        store.commit(Batch([decision("d1", policy_version="1")], fits=[first, fit("2"), fit("1", route="other")]))
        store.commit(Batch(fits=[fit("1", [9.0]), fit("2", [9.0])]))
        kept = store.fit(ROUTE, "1")
        assert kept
        assert (kept.route, kept.version, kept.settings, kept.time) == (ROUTE, "1", '{"é": 1}', 0.5)
        assert (kept.sums.shape, kept.sums.tobytes()) == ((1, 3), first.sums.tobytes())
        assert store.fit(ROUTE, "2").sums.tolist() == [[1.0, 2.0], [3.0, 4.0]]  # type: ignore[union-attr]
        assert store.fit("other", "1").settings == "{}"  # type: ignore[union-attr]
        assert store.fit("other", "2") is None

    @pytest.mark.parametrize("shape", [(3, 0), (1, 1), (5, 2)])
    def test_a_fit_keeps_its_shape(self, store: Store, shape: tuple[int, int]):
        store.commit(Batch(fits=[fit("1", *np.ones(shape))]))
        assert store.fit(ROUTE, "1").sums.shape == shape  # type: ignore[union-attr]

    def test_a_fit_of_a_commit_that_fails_is_not_kept(self, store: Store):
        with pytest.raises(KeyError):
            store.commit(Batch(credits=[credit("nobody")], fits=[fit("1")]))
        assert store.fit(ROUTE, "1") is None

    def test_events_come_in_the_order_of_their_ids_each_once(self, store: Store):
        say(store, event("e3"), event("e1", errors=0.25), event("e2", "other"))
        say(store, event("e1"), event("e4"), event("e4", errors=1.0))
        assert store.events(ROUTE) == [event("e1", errors=0.25), event("e3"), event("e4")]
        assert store.events(ROUTE, after="e1") == [event("e3"), event("e4")]
        assert store.events(ROUTE, after="e4") == []
        assert store.events("other") == [event("e2", "other")]

    def test_the_numbers_of_an_event_may_have_no_bound(self, store: Store):
        numbers = {"upper": np.inf, "lower": -np.inf, "mean": -0.0, "é\0": 0.1, "none": np.nan}
        say(store, Event("e1", 0.25, ROUTE, "", "frozen", "Nothing is known.", numbers))
        (kept,) = store.events(ROUTE)
        assert (kept.time, kept.arm, kept.kind, kept.why) == (0.25, "", "frozen", "Nothing is known.")
        assert {name: repr(value) for name, value in kept.numbers.items()} == {
            name: repr(value) for name, value in numbers.items()
        }

    def test_documents_are_written_over_and_deleted(self, store: Store):
        assert store.put("switch", {"a": b"on", "b": b"\0\xff"})
        assert store.put("switch", {"b": b"off"})
        assert store.put("canary", {"a": b"5 %"})
        assert {key: document.body for key, document in store.documents("switch").items()} == {"a": b"on", "b": b"off"}
        assert store.put("switch", {"a": b"", "c": b""})
        assert {key: document.body for key, document in store.documents("switch").items()} == {"b": b"off"}
        assert store.put("switch", {"a": b"again"})
        assert {key: document.body for key, document in store.documents("switch").items()} == {
            "a": b"again",
            "b": b"off",
        }
        assert store.put("switch", {})

    def test_who_knows_a_stamp_reads_what_was_written_since(self, store: Store):
        store.put("switch", {"a": b"1", "b": b"1", "c": b"1"})
        seen = max(document.stamp for document in store.documents("switch").values())
        assert store.documents("switch", after=seen) == {}
        store.put("switch", {"a": b"2"})
        store.put("switch", {"b": b""})
        news = store.documents("switch", after=seen)
        assert {key: document.body for key, document in news.items()} == {"a": b"2", "b": b""}
        assert seen < news["a"].stamp < news["b"].stamp
        assert store.documents("switch", after=news["a"].stamp) == {"b": news["b"]}
        assert store.documents("switch")["a"] == Document(news["a"].stamp, b"2")

    def test_an_event_is_written_with_the_document_that_it_is_about_or_not_at_all(self, store: Store):
        said = event("e2", errors=0.25)
        assert store.put("switch", {"a": b"off", "b": b"on"}, expected=0, events=[said, event("e1", "other")])
        assert store.put("switch", {"a": b"on"}, events=[event("e2"), event("e3")]), "e2 is there already"
        assert not store.put("switch", {"b": b"off"}, expected=0, events=[event("e4")])
        assert {key: document.body for key, document in store.documents("switch").items()} == {"a": b"on", "b": b"on"}
        assert store.events(ROUTE) == [said, event("e3")]
        assert store.events("other") == [event("e1", "other")]

    def test_many_documents_are_read_whole(self, store: Store):
        bodies = {f"unit\0{n}": n.to_bytes(8, "big") for n in range(3000)}
        store.put("features", bodies)
        assert {key: document.body for key, document in store.documents("features").items()} == bodies
        store.put("features", {"unit": b"1"})
        seen = max(document.stamp for document in store.documents("features").values())
        store.put("features", bodies)
        assert {key: document.body for key, document in store.documents("features", after=seen).items()} == bodies

    def test_a_document_is_written_only_over_the_expected_one(self, store: Store):
        assert store.put("canary", {"a": b"1"}, expected=0)
        assert not store.put("canary", {"a": b"2"}, expected=0)
        stamp = store.documents("canary")["a"].stamp
        assert not store.put("canary", {"a": b"2", "b": b"2"}, expected=stamp), "all or none, and b is not there"
        assert not store.put("canary", {"b": b"2", "a": b"2"}, expected=0)
        assert store.put("canary", {"a": b"2"}, expected=stamp)
        assert not store.put("canary", {"a": b"3"}, expected=stamp)
        assert {key: document.body for key, document in store.documents("canary").items()} == {"a": b"2"}
        assert store.put("canary", {"a": b""}, expected=store.documents("canary")["a"].stamp)
        assert store.put("canary", {"a": b"4"}, expected=0), "it was deleted"

    def test_of_two_who_write_at_once_one_wins(self, store: Store):
        def step(_: int) -> int:
            won = 0
            while (now := store.documents("canary").get("step", Document(0, b"0"))).body != b"40":
                won += store.put("canary", {"step": str(int(now.body) + 1).encode()}, expected=now.stamp)
            return won

        with ThreadPoolExecutor(3) as pool:
            assert sum(pool.map(step, range(3))) == 40

    def test_what_is_older_is_forgotten_and_sums_and_events_stay(self, store: Store):
        dated(store, {"d1": 1.0, "d2": 2.0, "d3": 3.0})
        dated(store, {"d0": 1.0}, "other")
        store.commit(Batch(credits=[credit(id, [1, 1]) for id in ("d1", "d3")]))
        say(store, event("e1"))
        sums = listed(store)
        assert store.prune(ROUTE, before=1.0) == 0
        assert store.prune(ROUTE, before=3.0) == 2
        assert store.prune(ROUTE, before=3.0) == 0
        assert logged(store) == ["d3"]
        assert store.outcomes(["d1", "d2", "d3"]).keys() == {"d3"}
        assert listed(store) == sums
        assert store.events(ROUTE) == [event("e1")]
        assert logged(store, "other") == ["d0"]
        with pytest.raises(KeyError):
            store.commit(credited(credit("d1")))

    def test_the_newest_are_kept_and_a_little_is_forgotten_at_a_time(self, store: Store):
        dated(store, {f"d{n}": float(n) for n in range(9)})
        assert store.prune(ROUTE, before=0.0, most=9) == 0
        assert [store.prune(ROUTE, before=1.0, most=4, limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert logged(store) == ["d5", "d6", "d7", "d8"]
        assert store.prune(ROUTE, before=np.inf, most=4, limit=3) == 3
        assert store.prune(ROUTE, before=0.0, most=0) == 1
        assert logged(store) == []
        dated(store, {"d9": 9.0})
        assert listed(store) == {(DECISIONS, "a"): [10.0]}

    def test_the_first_that_is_young_ends_it_whatever_comes_after(self, store: Store):
        dated(store, {"d1": 1.0, "d2": 9.0, "d3": 1.0})
        assert store.prune(ROUTE, before=5.0) == 1
        assert logged(store) == ["d2", "d3"]

    def test_thousands_are_forgotten(self, store: Store):
        ids = [f"{n:04x}" for n in range(2500)]
        store.commit(decided(*ids))
        store.commit(credited(*map(credit, ids)))
        assert store.prune(ROUTE, before=0.0, most=100, limit=2000) == 2000
        assert store.prune(ROUTE, before=0.0, most=100, limit=2000) == 400
        assert logged(store) == ids[-100:]
        assert sorted(store.outcomes(ids)) == ids[-100:]

    def test_a_fit_that_is_to_stay_outlives_the_decisions_that_name_it(self, store: Store):
        for n in "123":
            store.commit(Batch([decision(f"d{n}", policy_version=n)], fits=[fit(n)]))
        assert store.prune(ROUTE, before=np.inf, keep={"1", "unheard of"}) == 3
        assert versions(store) == "13", "and 3 is the latest"
        store.commit(Batch([decision("d4", policy_version="1"), decision("d5", policy_version="5")], fits=[fit("5")]))
        assert store.prune(ROUTE, before=np.inf, keep=["1"]) == 2
        assert versions(store) == "135"
        store.commit(Batch([decision("d6", policy_version="1")]))
        assert store.prune(ROUTE, before=np.inf) == 1
        assert versions(store) == "35", "it was to stay no more"

    def test_the_sums_of_a_layout_are_forgotten_whole_and_no_others(self, store: Store):
        rows = [add(1, 2), add(3, 4, arm="b"), add(5, layout="counts@1"), add(6, route="other"), add(7, layout="é'")]
        store.commit(Batch([decision("d1")], adds=rows))
        before = store.version()
        store.drop(ROUTE, ["counts", "é'", "nothing"])
        assert store.version() != before
        assert listed(store) == {("decisions", "a"): [1.0], ("counts@1", "a"): [5.0]}
        assert listed(store, "other") == {("counts", "a"): [6.0]}
        store.commit(Batch(adds=[add(1, 2, 3)]))
        assert listed(store)["counts", "a"] == [1.0, 2.0, 3.0], "which begins anew"
        store.drop(ROUTE, [])
        store.drop("nobody", ["counts"])

    def test_a_fit_is_forgotten_with_the_last_decision_that_names_it(self, store: Store):
        store.commit(Batch([decision("d1", policy_version="1")], fits=[fit("1")]))
        store.commit(Batch([decision("d2", policy_version="2")], fits=[fit("2"), fit("3")]))
        store.commit(Batch([decision("d3", policy_version="1"), decision("d1", policy_version="2")]))
        store.commit(Batch([decision("d4", policy_version="4")], fits=[fit("4", settings="[]")]))
        store.commit(Batch([decision("d0", route="other", policy_version="2")], fits=[fit("2", route="other")]))
        seen = [versions(store)]
        while store.prune(ROUTE, before=np.inf, limit=1):
            seen.append(versions(store))
        assert seen == ["1234", "1234", "134", "34", "34"], "3 was never named, 4 is the latest"
        assert store.fit("other", "2")
        store.commit(Batch([decision("d5", policy_version="2")], fits=[fit("2")]))
        assert versions(store) == "234"
