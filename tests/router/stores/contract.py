"""What every store promises. A store's tests subclass StoreContract and say how to open a fresh one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router.call import REWARD, Add, Batch, Credit, Decision, Outcome
from router.stores import DECISIONS, Store, StoreError
from tests.router.stores.model import Model
from tests.router.stores.upkeep import UpkeepContract
from tests.router.stores.words import ROUTE, Fresh, add, bits, credit, credited, decided, decision, listed, logged

# Each example opens its own store, so it doesn't matter that they share a fixture and that subclasses share the test.
ONE_STORE_AN_EXAMPLE = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
texts = st.text(max_size=8)
numbers = st.floats(allow_nan=False)
vectors = st.none() | st.lists(st.floats(), max_size=5).map(tuple)
finite = st.floats(allow_nan=False, allow_infinity=False)
small = st.integers(-1000, 1000).map(float)  # sums of these are exact in any order


class StoreContract(UpkeepContract):
    @pytest.fixture
    def fresh(self) -> Fresh:
        """A function that opens an empty store, another one at each call."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, fresh: Fresh) -> Iterator[Store]:
        with closing(fresh()) as store:
            yield store

    def test_nothing_is_known_at_first(self, store: Store):
        assert store.commit(Batch()) == []
        assert store.find(["d1"]) == {}
        assert store.outcomes(["d1"]) == {}
        assert store.sums(ROUTE) == {}
        assert list(store.log(ROUTE)) == []
        assert list(store.newest(ROUTE)) == []
        assert store.fit(ROUTE, "7") is None
        assert store.events(ROUTE) == []
        assert store.documents("switch") == {}
        assert store.prune(ROUTE, before=np.inf, most=0) == 0

    def test_a_decision_is_found_by_its_id_alone(self, store: Store):
        store.commit(Batch([decision("d1"), decision("d2", unit="u", context=(0.25, -1.0))]))
        assert store.find(iter(["d2", "d3", "d2"])) == {"d2": decision("d2", unit="u", context=(0.25, -1.0))}
        assert store.outcomes(["d1", "d2"]) == {}

    @pytest.mark.parametrize("id", ["d1\0", "d1\0x", "", "\ud800", "'", '"', "%", "é\U0001f600", "d" * 10_000])
    def test_ids_that_clients_make_up_are_unknown_and_nothing_worse(self, store: Store, id: str):
        store.commit(decided("d1"))
        assert store.find([id]) == {}
        assert store.outcomes([id]) == {}
        with pytest.raises(KeyError):
            store.commit(credited(credit(id)))

    def test_a_decision_recorded_twice_stays_as_it_was_and_counts_once(self, store: Store):
        store.commit(Batch([decision("d1", "a")]))
        store.commit(Batch([decision("d2", "b"), decision("d1", "b", time=9.0)]))
        store.commit(Batch([decision("d2", "b"), decision("d1", "a")]))
        assert store.find(["d1"]) == {"d1": decision("d1", "a")}
        assert listed(store) == {(DECISIONS, "a"): [1.0], (DECISIONS, "b"): [1.0]}

    def test_a_decision_twice_in_one_commit_is_the_first_and_counts_once(self, store: Store):
        store.commit(Batch([decision("d1", "a"), decision("d1", "b"), decision("d2", "a")]))
        assert store.find(["d1"]) == {"d1": decision("d1", "a")}
        assert listed(store) == {(DECISIONS, "a"): [2.0]}

    def test_an_outcome_is_claimed_once(self, store: Store):
        store.commit(decided("d1"))
        assert store.commit(credited(credit("d1", [1, 0.25], value=0.25))) == [True]
        assert store.commit(credited(credit("d1", [1, 0.75], value=0.75))) == [False]
        assert store.commit(credited(credit("d1", [1, 0.25], value=0.25))) == [False]
        assert store.outcomes(["d1"]) == {"d1": {REWARD: Outcome("d1", REWARD, 0.25, time=2.5)}}
        assert listed(store) == {(DECISIONS, "a"): [1.0], ("counts", "a"): [1.0, 0.25]}

    def test_an_outcome_is_claimed_once_within_one_commit_too(self, store: Store):
        store.commit(decided("d1", "d2"))
        credits = [credit("d1", [1, 0.25]), credit("d2", [1, 0.5]), credit("d1", [1, 64.0])]
        assert store.commit(Batch(credits=credits)) == [True, True, False]
        assert listed(store)["counts", "a"] == [2.0, 0.75]

    def test_outcomes_of_other_names_are_claimed_apart(self, store: Store):
        store.commit(decided("d1", "d2"))
        claims = store.commit(
            credited(
                credit("d1", [1], value=0.5),
                credit("d1", [1], name="profit", value=-0.5),
                credit("d1", [1], name="profit", value=7.0),
                credit("d2", [1], name="profit", value=3.0),
            )
        )
        assert claims == [True, True, False, True]
        assert store.commit(credited(credit("d2", [1]), credit("d2", [1], name="profit"))) == [True, False]
        outcomes = store.outcomes(iter(["d2", "d1", "d3"]))
        assert {id: {name: one.value for name, one in known.items()} for id, known in outcomes.items()} == {
            "d1": {REWARD: 0.5, "profit": -0.5},
            "d2": {REWARD: 1.0, "profit": 3.0},
        }
        assert listed(store)["counts", "a"] == [4.0]

    def test_a_correction_takes_the_place_of_exactly_the_value_that_it_replaces(self, store: Store):
        store.commit(Batch([decision("d1")], [credit("d1", [1, 0.1], value=0.1)]))
        wrong = [credit("d1", [0, 9], value=0.5, replaces=value) for value in (0.5, np.nextafter(0.1, 1), 0.0, np.nan)]
        assert store.commit(credited(*wrong)) == [False] * 4
        assert store.outcomes(["d1"])["d1"][REWARD].value == 0.1
        assert store.commit(credited(credit("d1", [0, 0.5], value=0.6, replaces=0.1))) == [True]
        assert store.commit(credited(credit("d1", [0, 0.5], value=0.6, replaces=0.1))) == [False], "that was then"
        assert store.outcomes(["d1"]) == {"d1": {REWARD: Outcome("d1", REWARD, 0.6, time=2.5)}}
        assert listed(store)["counts", "a"] == [1.0, 0.6]

    def test_corrections_of_one_commit_follow_each_other(self, store: Store):
        claims = store.commit(
            Batch(
                [decision("d1"), decision("d2")],
                [
                    credit("d1", [1], value=1.0),
                    credit("d1", [1], value=2.0, replaces=1.0),
                    credit("d1", [1], value=3.0, replaces=1.0),
                    credit("d1", [1], value=4.0, replaces=2.0),
                    credit("d2", [1], value=4.0, replaces=0.0),
                ],
            )
        )
        assert claims == [True, True, False, True, False], "there was nothing to correct about d2"
        assert {id: known[REWARD].value for id, known in store.outcomes(["d1", "d2"]).items()} == {"d1": 4.0}
        assert listed(store)["counts", "a"] == [3.0]

    def test_a_credit_holds_only_while_what_it_was_worked_out_from_is_so(self, store: Store):
        store.commit(Batch([decision("d1"), decision("d2")], [credit("d1", name="held", value=0.1)]))
        wrong = [credit("d1", [1], given=("held", value)) for value in (None, 0.5, np.nextafter(0.1, 1), np.nan)]
        assert store.commit(credited(*wrong, credit("d2", [1], given=("held", 0.1)))) == [False] * 5
        right = [credit("d1", [1], given=("held", 0.1)), credit("d2", [1], given=("held", None))]
        assert store.commit(credited(*right)) == [True, True]
        assert store.commit(credited(*right)) == [False, False], "and is claimed once"
        late = [
            credit("d1", name="held", value=0.2, replaces=0.1, given=(REWARD, None)),
            credit("d2", name="held", given=(REWARD, None)),
        ]
        assert store.commit(credited(*late)) == [False, False]
        assert {id: set(known) for id, known in store.outcomes(["d1", "d2"]).items()} == {
            "d1": {REWARD, "held"},
            "d2": {REWARD},
        }
        assert listed(store)["counts", "a"] == [2.0]

    def test_what_a_credit_was_worked_out_from_may_have_come_in_the_same_commit(self, store: Store):
        first = [credit("d1", name="held", value=0.5), credit("d2", [1], given=("held", None))]
        then = [credit("d1", [1], given=("held", None)), credit("d2", name="held", given=(REWARD, None))]
        assert store.commit(Batch([decision("d1"), decision("d2")], [*first, *then])) == [True, True, False, False]
        assert listed(store)["counts", "a"] == [1.0]

    def test_a_decision_and_its_outcome_may_come_in_one_commit(self, store: Store):
        assert store.commit(Batch([decision("d1")], [credit("d1", [1, 0.5])])) == [True]
        assert listed(store) == {(DECISIONS, "a"): [1.0], ("counts", "a"): [1.0, 0.5]}

    def test_an_outcome_may_add_to_several_arms_layouts_and_routes_or_to_none(self, store: Store):
        adds = (
            add(1, 2),
            add(3, 4, arm="b"),
            add(5, layout="linear"),
            add(6, route="other"),
            add(0.5, 0.5),
        )
        several = Credit(Outcome("d1", REWARD, 1.0, 2.0), adds)
        assert store.commit(Batch([decision("d1"), decision("d2")], [several, credit("d2")])) == [True, True]
        assert listed(store) == {
            (DECISIONS, "a"): [2.0],
            ("counts", "a"): [1.5, 2.5],
            ("counts", "b"): [3.0, 4.0],
            ("linear", "a"): [5.0],
        }
        assert listed(store, "other") == {("counts", "a"): [6.0]}

    def test_adds_that_hang_on_nothing_are_made_however_often_they_come(self, store: Store):
        calls = Batch(adds=[add(1, 0, layout="calls"), add(1, 1, layout="calls"), add(1, 0, layout="calls", arm="b")])
        assert store.commit(calls) == []
        assert store.commit(calls) == []
        assert listed(store) == {("calls", "a"): [4.0, 2.0], ("calls", "b"): [2.0, 0.0]}

    def test_adds_with_the_number_of_their_writer_are_made_once_and_the_rest_of_the_batch_all_the_same(self, store):
        def sent(writer: str, number: int, *ids: str) -> list[float]:
            store.commit(Batch([decision(id) for id in ids], adds=[add(1)], writer=writer, number=number))
            return listed(store)["counts", "a"]

        assert sent("one", 1, "d1") == [1.0]
        assert sent("one", 1, "d1", "d2") == [1.0], "its answer was lost, and it is sent again with more"
        assert sent("other", 1) == [2.0]
        assert sent("one", 7) == [3.0]
        assert sent("one", 6) == [3.0]
        assert sent("one", 8) == [4.0]
        assert sent("", 0) == [5.0]
        assert sent("", 0) == [6.0]
        assert logged(store) == ["d1", "d2"]
        store.commit(Batch([decision("d3")], [credit("d1", [1])], writer="one", number=8))
        assert listed(store)["counts", "a"] == [7.0], "credits are claimed by themselves"

    def test_an_outcome_of_an_unknown_decision_undoes_the_whole_commit(self, store: Store):
        store.commit(decided("d1"))
        before = listed(store)
        bad = [credit("d1", [1, 1]), credit("nobody", [1, 1]), credit("d2", [1, 1])]
        with pytest.raises(KeyError, match="nobody"):
            store.commit(Batch([decision("d2")], bad, adds=[add(1, layout="calls")], writer="one", number=1))
        assert store.find(["d2", "nobody"]) == {}
        assert store.outcomes(["d1", "d2", "nobody"]) == {}
        assert listed(store) == before
        good = Batch([decision("d2")], bad[:1], adds=[add(1, layout="calls")], writer="one", number=1)
        assert store.commit(good) == [True], "the store works on"
        assert listed(store)["calls", "a"] == [1.0]

    @pytest.mark.parametrize("stored", [[], [credit("d1", [1, 1])]], ids=["within one commit", "after a commit"])
    def test_a_row_of_another_width_is_refused_and_undoes_the_whole_commit(self, store: Store, stored: list[Credit]):
        store.commit(Batch([decision("d1"), decision("d2"), decision("d3")], stored))
        before = listed(store)
        with pytest.raises(StoreError, match=r"'credit'.*'a'.*'counts' are 2 wide.*row of 3"):
            store.commit(Batch([decision("d4")], [credit("d2", [1, 1]), credit("d3", [1, 1, 1])]))
        assert store.find(["d4"]) == {}
        assert store.outcomes(["d2", "d3"]) == {}
        assert listed(store) == before
        assert store.commit(credited(credit("d2", [1, 1]), credit("d3", [1, 1, 1], layout="wider"))) == [True, True]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_sum_never_stops_being_finite(self, store: Store, bad: float):
        store.commit(decided("d1"))
        for batch in (Batch([decision("d2")], [credit("d1", [1, bad])]), Batch([decision("d2")], adds=[add(1, bad)])):
            with pytest.raises(StoreError, match=r"'credit'.*'a'.*'counts'.*finite"):
                store.commit(batch)
        assert store.outcomes(["d1"]) == {}
        assert listed(store) == {(DECISIONS, "a"): [1.0]}

    def test_sums_do_not_change_under_whoever_reads_them(self, store: Store):
        row = np.array([1.0, 1.0])
        first = Credit(Outcome("d1", REWARD, 1.0, 2.0), (Add(ROUTE, "counts", "a", row),))
        store.commit(Batch([decision("d1"), decision("d2")], [first]))
        before = store.sums(ROUTE)
        store.commit(credited(credit("d2", [1, 1])))
        row += 100
        with suppress(ValueError):  # read-only will do as well as a copy
            store.sums(ROUTE)["counts", "a"][:] += 100
        assert before["counts", "a"].tolist() == [1.0, 1.0]
        assert before["counts", "a"].dtype == np.float64
        assert listed(store)["counts", "a"] == [2.0, 2.0]

    def test_the_version_changes_with_the_sums_and_the_documents(self, store: Store):
        versions = [store.version()]
        store.commit(decided("d1", "d2"))
        versions.append(store.version())
        for id in ("d1", "d2"):
            store.commit(credited(credit(id, [1, 1])))
            versions.append(store.version())
        store.put("switch", {"a": b"off"})
        versions.append(store.version())
        assert len(set(versions)) == len(versions)
        assert store.version() == versions[-1], "and only then"
        with pytest.raises(KeyError):
            store.commit(credited(credit("nobody", [1, 1])))
        assert store.version() == versions[-1]

    def test_the_log_is_in_the_order_of_ids_with_outcomes_where_there_are_some(self, store: Store):
        ids = [f"{n:04x}" for n in range(2500)]  # more than any store reads at a time
        shuffled = [ids[i] for i in np.random.default_rng(1).permutation(len(ids))]
        store.commit(Batch([decision(id, "ab"[int(id, 16) % 2]) for id in shuffled]))
        store.commit(Batch([decision("0000x", route="other")]))
        store.commit(credited(*[credit(id, value=int(id, 16)) for id in shuffled[:1000]]))
        store.commit(credited(*[credit(id, name="profit", value=-int(id, 16)) for id in shuffled[500:1500]]))
        log = list(store.log(ROUTE))
        assert [made.id for made, _ in log] == ids
        for name, sign, some in ((REWARD, 1, shuffled[:1000]), ("profit", -1, shuffled[500:1500])):
            known = {made.id: outcomes[name].value for made, outcomes in log if name in outcomes}
            assert known == {id: sign * int(id, 16) for id in some}
        assert all(one.decision == made.id and one.name == name for made, all in log for name, one in all.items())
        assert logged(store, "other") == ["0000x"]

    @pytest.mark.parametrize(("after", "count"), [("", 2500), ("04e1", 1250), ("04e1x", 1250), ("09c3", 0), ("z", 0)])
    def test_the_log_can_be_read_from_any_id_on(self, store: Store, after: str, count: int):
        ids = [f"{n:04x}" for n in range(2500)]
        store.commit(decided(*ids))
        assert logged(store, after=after) == ids[len(ids) - count :]

    def test_the_log_can_be_read_from_its_newest_end_and_only_as_far_as_is_asked(self, store: Store):
        ids = [f"{n:04x}" for n in range(2500)]
        store.commit(decided(*ids))
        store.commit(Batch([decision("9", route="other"), decision("\U0010ffff", route="third")]))
        store.commit(credited(*[credit(id, name=name) for id in ids[1000:2000] for name in (REWARD, "profit")]))
        assert list(store.newest(ROUTE)) == list(store.log(ROUTE))[::-1]
        assert [made.id for made, _ in islice(store.newest(ROUTE), 3)] == ids[:-4:-1]
        assert [[made.id for made, _ in store.newest(route)] for route in ("other", "third")] == [["9"], ["\U0010ffff"]]

    def test_the_log_can_be_read_while_more_is_committed(self, store: Store):
        store.commit(decided(*[f"{n:04x}" for n in range(2500)]))
        seen = 0
        for made, _ in store.log(ROUTE):
            if seen % 500 == 0:
                assert store.commit(credited(credit(made.id))) == [True]
            seen += 1
        assert seen == 2500

    def test_closing_twice_is_closing_once(self, store: Store):
        store.close()
        store.close()

    @pytest.mark.parametrize("number", [0.0, -0.0, 0.1 + 0.2, 5e-324, -1.7976931348623157e308, 2.0**53, 3.0])
    def test_awkward_numbers_are_kept_to_the_bit(self, store: Store, number: float):
        vector = (number,)
        made = decision("d1", propensity=number, time=number, context=vector, probabilities=vector, prediction=number)
        outcome = Outcome("d1", REWARD, number, number)
        store.commit(Batch([made], [Credit(outcome)]))
        assert bits(store.find(["d1"])["d1"]) == bits(made)
        assert bits(store.outcomes(["d1"])["d1"][REWARD]) == bits(outcome)
        assert store.commit(credited(credit("d1", value=1.0, replaces=number))) == [True]

    @pytest.mark.parametrize("allowed", [-1, 0, 5, 2**62, 2**63 - 1, 2**63, 2**64, 2**200 + 1])
    def test_any_number_of_arms_may_be_allowed(self, store: Store, allowed: int):
        store.commit(Batch([decision("d1", allowed=allowed)]))
        assert store.find(["d1"])["d1"].allowed == allowed

    @ONE_STORE_AN_EXAMPLE
    @given(
        made=st.builds(
            Decision,
            st.just("d1"),
            texts,
            texts,
            numbers,
            numbers,
            texts,
            texts,
            vectors,
            vectors,
            st.integers(),
            texts,
            st.lists(texts, max_size=3).map(tuple),
            vectors,
            st.none() | st.floats(),
        ),
        known=st.lists(st.builds(Outcome, st.just("d1"), texts, numbers, numbers), unique_by=lambda one: one.name),
        row=st.lists(finite, max_size=5),
    )
    def test_what_is_read_is_what_was_written_to_the_bit(self, fresh: Fresh, made, known, row):
        adds = (Add(made.route, "layout", made.arm, np.array(row, dtype=np.float64)),)
        with closing(fresh()) as store:
            store.commit(Batch([made], [Credit(one) for one in known], adds))
            assert bits(store.find(["d1"])["d1"]) == bits(made)
            outcomes = {one.name: bits(one) for one in known}
            assert {name: bits(one) for name, one in store.outcomes(["d1"]).get("d1", {}).items()} == outcomes
            ((logged, beside),) = store.log(made.route)
            assert bits(logged) == bits(made)
            assert {name: bits(one) for name, one in beside.items()} == outcomes
            # There was nothing, 0.0, before: and 0.0 + -0.0 is 0.0.
            assert store.sums(made.route)["layout", made.arm].tobytes() == (np.zeros(len(row)) + row).tobytes()

    @ONE_STORE_AN_EXAMPLE
    @given(st.data())
    def test_any_sequence_of_commits_does_what_the_model_does(self, fresh: Fresh, data: st.DataObject):
        ids = st.sampled_from([f"d{n}" for n in range(8)])
        names = st.sampled_from(["a", "b"])
        few = st.sampled_from([0.0, 1.0, 2.0])
        rows = st.lists(small, min_size=2, max_size=2).map(np.array)
        adds = st.lists(st.builds(Add, names, names, names, rows), max_size=3)
        batches = st.builds(
            Batch,
            st.lists(st.builds(decision, ids, names, names, policy_version=names, time=few), max_size=6),
            st.lists(
                st.builds(
                    Credit,
                    st.builds(Outcome, ids, names, few, small),
                    adds.map(tuple),
                    st.sampled_from([None, 0.0, 1.0]),
                    st.none() | st.tuples(names, st.sampled_from([None, 0.0, 1.0])),
                ),
                max_size=6,
            ),
            adds,
            st.sampled_from(["", "w"]),
            st.integers(0, 2),
        )
        model = Model()
        everything = [f"d{n}" for n in range(8)]
        with closing(fresh()) as store:
            for batch in data.draw(st.lists(batches, max_size=8)):
                try:
                    expected = model.commit(batch)
                except KeyError:
                    with pytest.raises(KeyError):
                        store.commit(batch)
                else:
                    assert store.commit(batch) == expected
                    most = data.draw(st.none() | st.integers(0, 3))
                    pruned = data.draw(names), data.draw(few), most, data.draw(st.sampled_from([1, 100]))
                    route, before, most, limit = pruned
                    assert store.prune(route, before=before, most=most, limit=limit) == model.prune(*pruned)
            assert store.find(everything) == model.decisions
            assert store.outcomes(everything) == model.outcomes
            for route in ("a", "b"):
                expected_sums = {key[1:]: row.tolist() for key, row in model.sums.items() if key[0] == route}
                assert listed(store, route) == expected_sums
                log = sorted((d for d in model.decisions.values() if d.route == route), key=lambda d: d.id)
                pairs = [(made, model.outcomes.get(made.id, {})) for made in log]
                assert list(store.log(route)) == pairs
                assert list(store.newest(route)) == pairs[::-1]

    def test_sums_over_many_commits_are_numpy_s_sums(self, store: Store):
        rng = np.random.default_rng(5)
        rows = rng.uniform(1, 2, (600, 7)) * 10.0 ** rng.integers(-6, 6, (600, 1))
        arms = rng.integers(0, 3, 600)
        for part in np.split(np.arange(600), np.sort(rng.choice(600, 25, replace=False))):
            store.commit(Batch([decision(f"{n:04x}", f"arm{arms[n]}") for n in part]))
            store.commit(credited(*[credit(f"{n:04x}", rows[n], arm=f"arm{arms[n]}") for n in part]))
        sums = store.sums(ROUTE)
        for arm in range(3):
            np.testing.assert_allclose(sums["counts", f"arm{arm}"], rows[arms == arm].sum(axis=0), rtol=1e-13)
            assert sums[DECISIONS, f"arm{arm}"].tolist() == [(arms == arm).sum()]
