"""What stores promise that keep things outside of the process, for others to see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TypeAlias

import pytest

from router.call import Batch
from router.stores import Malformed, Store, StoreError
from tests.router.stores.words import credit, decided, decision, event, fit, listed

Again: TypeAlias = Callable[[], Store]

Damage: TypeAlias = Callable[[str, int, object], None]
"""Writes something else into a column of a decision's row."""

FAULTS = {
    (3, "0.5"): "propensity: it cannot be of type str",
    (4, "yesterday"): "time: it cannot be of type str",
    (6, b"u"): "unit: it cannot be of type bytes",
    (7, b"seven.."): "context: it has 7 bytes, and numbers have 8 each",
    (8, "0.5, 0.5"): "probabilities: it cannot be of type str",
    (9, "all"): "allowed: it is no integer",
    (11, "["): "failed: it is no JSON of names",
    (11, "[1]"): "failed: it is no JSON of names",
    (13, "high"): "prediction: it is no number",
}


class OutsideContract:
    @pytest.fixture
    def again(self) -> Again:
        """A function that opens the same store as other processes do, empty at first."""
        raise NotImplementedError

    @pytest.fixture
    def damage(self, again: Again) -> Damage:
        raise NotImplementedError

    @pytest.fixture
    def store(self, again: Again) -> Iterator[Store]:
        with closing(again()) as store:
            yield store

    def test_what_one_wrote_the_other_reads(self, store: Store, again: Again):
        made = decision("d1", unit="u", context=(0.1, -0.0))
        batch = Batch([made, decision("d2")], [credit("d1", [1, 0.1], value=0.1)], fits=[fit("7")])
        store.commit(batch)
        store.put("switch", {"a": b"off"}, events=[event("e")])
        with closing(again()) as other:
            assert other.find(["d1"]) == {"d1": made}
            assert list(other.log(made.route)) == list(store.log(made.route))
            assert listed(other) == listed(store)
            assert other.fit(made.route, "7").settings == "{}"  # type: ignore[union-attr]
            assert other.events(made.route) == [event("e")]
            assert other.documents("switch") == store.documents("switch")
            assert other.commit(batch) == [False]
            assert listed(other) == listed(store)

    def test_all_see_that_the_version_changes(self, store: Store, again: Again):
        with closing(again()) as other:
            seen = [(store.version(), other.version())]
            for n, one in enumerate([store, other, other, store, store, other]):
                if n % 2:
                    one.commit(decided(f"d{n}"))
                else:
                    one.put("switch", {"a": str(n).encode()})
                seen.append((store.version(), other.version()))
            ours, theirs = zip(*seen, strict=True)
            assert len(set(ours)) == len(set(theirs)) == len(seen)

    def test_of_two_who_know_the_same_stamp_one_writes(self, store: Store, again: Again):
        with closing(again()) as other:
            assert [one.put("canary", {"a": b"1"}, expected=0) for one in (store, other)] == [True, False]
            stamp = store.documents("canary")["a"].stamp
            assert [one.put("canary", {"a": b"2"}, expected=stamp) for one in (other, store)] == [True, False]

    def test_text_that_is_not_unicode_is_refused_and_undoes_the_whole_commit(self, store: Store):
        for batch in (
            Batch([decision("d1"), decision("d2", unit="\ud800")]),
            Batch([decision("d1")], [credit("d1", name="\ud800")]),
            Batch([decision("d1")], fits=[fit("1", settings="\ud800")]),
        ):
            with pytest.raises(StoreError):
                store.commit(batch)
            assert store.find(["d1"]) == {}
        with pytest.raises(StoreError):
            store.put("switch", {"a": b"1", "\ud800": b"2"})
        with pytest.raises(StoreError):
            store.put("switch", {"a": b"1"}, events=[event("e"), event("\ud800")])
        assert store.documents("switch") == {}
        assert store.events("credit") == []

    @pytest.mark.parametrize(("place", "said"), FAULTS.items(), ids=str)
    def test_a_decision_that_somebody_else_wrote_is_named_with_what_is_wrong(
        self, store: Store, damage: Damage, place: tuple[int, object], said: str
    ):
        store.commit(decided("d1", "d2", "d3"))
        damage("d2", *place)
        for read in (store.log, store.newest, lambda _: store.find(["d1", "d2"])):
            with pytest.raises(Malformed, match=rf"decision 'd2' is malformed: {re.escape(said)}\."):
                list(read("credit"))
        assert store.find(["d1", "d3"]).keys() == {"d1", "d3"}, "the rest can be read"

    def test_a_closed_store_says_so(self, store: Store):
        store.commit(decided("d1"))
        log = store.log("credit")
        store.close()
        calls: list[Callable[[], object]] = [
            lambda: store.commit(Batch()),
            lambda: store.find(["d1"]),
            store.version,
            lambda: next(log),
            lambda: store.put("switch", {"a": b""}),
            lambda: store.prune("credit", before=0.0),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="closed"):
                call()
