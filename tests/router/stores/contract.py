"""What every store promises. A store's tests subclass StoreContract and say how to open a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router.call import Add, Credit, Decision, Reward
from router.stores import DECISIONS, Store, StoreError

Fresh: TypeAlias = Callable[[], Store]

ROUTE = "credit"
# Each example opens its own store, so it doesn't matter that they share a fixture and that subclasses share the test.
ONE_STORE_AN_EXAMPLE = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
texts = st.text(max_size=8)
contexts = st.lists(st.floats(), max_size=5)
numbers = st.floats(allow_nan=False)
finite = st.floats(allow_nan=False, allow_infinity=False)
small = st.integers(-1000, 1000).map(float)  # sums of these are exact in any order


def decision(id: str, arm: str = "a", route: str = ROUTE, **more) -> Decision:
    return replace(Decision(id, route, arm, propensity=0.5, time=1.5, policy_version="7"), **more)


def credit(id: str, *rows: Sequence[float], arm: str = "a", layout: str = "counts", value: float = 1.0) -> Credit:
    adds = tuple(Add(ROUTE, layout, arm, np.array(row, dtype=np.float64)) for row in rows)
    return Credit(Reward(id, value, time=2.5), adds)


def listed(store: Store, route: str = ROUTE) -> dict[tuple[str, str], list[float]]:
    return {key: row.tolist() for key, row in store.sums(route).items()}


def bits(made: Decision | Reward) -> tuple[str, bytes]:
    """Tells 0.0 from -0.0, and one NaN from another, which == does not."""
    context = made.context if isinstance(made, Decision) else None
    return repr(made), np.array(context or ()).tobytes()


class Model:
    """The contract in the fewest lines, to compare with."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.rewards: dict[str, Reward] = {}
        self.sums: dict[tuple[str, str, str], np.ndarray] = {}

    def commit(self, decisions: Sequence[Decision], credits: Sequence[Credit]) -> list[bool]:
        for one in credits:
            if one.reward.decision not in self.decisions | {d.id: d for d in decisions}:
                raise KeyError(one.reward.decision)
        for each in decisions:
            if self.decisions.setdefault(each.id, each) is each:
                self.add(each.route, DECISIONS, each.arm, np.ones(1))
        return [self.claim(one) for one in credits]

    def claim(self, one: Credit) -> bool:
        if self.rewards.setdefault(one.reward.decision, one.reward) is not one.reward:
            return False
        for add in one.adds:
            self.add(add.route, add.layout, add.arm, add.row)
        return True

    def add(self, route: str, layout: str, arm: str, row: np.ndarray) -> None:
        self.sums[route, layout, arm] = self.sums.get((route, layout, arm), 0) + row


class StoreContract:
    @pytest.fixture
    def fresh(self) -> Fresh:
        """A function that opens an empty store, another one at each call."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, fresh: Fresh) -> Iterator[Store]:
        with closing(fresh()) as store:
            yield store

    def test_an_empty_store_has_nothing(self, store: Store):
        assert store.commit([], []) == []
        assert store.find(["d1"]) == {}
        assert store.rewards(["d1"]) == {}
        assert store.sums(ROUTE) == {}
        assert list(store.log(ROUTE)) == []

    def test_a_decision_is_found_by_its_id_alone(self, store: Store):
        store.commit([decision("d1"), decision("d2", unit="u", context=(0.25, -1.0))], [])
        assert store.find(iter(["d2", "d3", "d2"])) == {"d2": decision("d2", unit="u", context=(0.25, -1.0))}
        assert store.rewards(["d1", "d2"]) == {}

    @pytest.mark.parametrize("id", ["d1\0", "d1\0x", "", "\ud800", "'", '"', "%", "é\U0001f600", "d" * 10_000])
    def test_ids_that_clients_make_up_are_unknown_and_nothing_worse(self, store: Store, id: str):
        store.commit([decision("d1")], [])
        assert store.find([id]) == {}
        assert store.rewards([id]) == {}
        with pytest.raises(KeyError):
            store.commit([], [credit(id)])

    def test_a_decision_recorded_twice_stays_as_it_was_and_counts_once(self, store: Store):
        store.commit([decision("d1", "a")], [])
        store.commit([decision("d2", "b"), decision("d1", "b", time=9.0)], [])
        store.commit([decision("d2", "b"), decision("d1", "a")], [])
        assert store.find(["d1"]) == {"d1": decision("d1", "a")}
        assert listed(store) == {(DECISIONS, "a"): [1.0], (DECISIONS, "b"): [1.0]}

    def test_a_decision_twice_in_one_commit_is_the_first_and_counts_once(self, store: Store):
        store.commit([decision("d1", "a"), decision("d1", "b"), decision("d2", "a")], [])
        assert store.find(["d1"]) == {"d1": decision("d1", "a")}
        assert listed(store) == {(DECISIONS, "a"): [2.0]}

    def test_a_reward_is_claimed_once(self, store: Store):
        store.commit([decision("d1")], [])
        assert store.commit([], [credit("d1", [1, 0.25], value=0.25)]) == [True]
        assert store.commit([], [credit("d1", [1, 0.75], value=0.75)]) == [False]
        assert store.rewards(["d1"]) == {"d1": Reward("d1", 0.25, time=2.5)}
        assert listed(store) == {(DECISIONS, "a"): [1.0], ("counts", "a"): [1.0, 0.25]}

    def test_a_reward_is_claimed_once_within_one_commit_too(self, store: Store):
        store.commit([decision("d1"), decision("d2")], [])
        credits = [credit("d1", [1, 0.25]), credit("d2", [1, 0.5]), credit("d1", [1, 64.0])]
        assert store.commit([], credits) == [True, True, False]
        assert listed(store)["counts", "a"] == [2.0, 0.75]

    def test_a_decision_and_its_reward_may_come_in_one_commit(self, store: Store):
        assert store.commit([decision("d1")], [credit("d1", [1, 0.5])]) == [True]
        assert listed(store) == {(DECISIONS, "a"): [1.0], ("counts", "a"): [1.0, 0.5]}

    def test_a_reward_may_add_to_several_arms_layouts_and_routes_or_to_none(self, store: Store):
        adds = (
            Add(ROUTE, "counts", "a", np.array([1.0, 2.0])),
            Add(ROUTE, "counts", "b", np.array([3.0, 4.0])),
            Add(ROUTE, "linear", "a", np.array([5.0])),
            Add("other", "counts", "a", np.array([6.0])),
            Add(ROUTE, "counts", "a", np.array([0.5, 0.5])),
        )
        claims = store.commit(
            [decision("d1"), decision("d2")], [Credit(Reward("d1", 1.0, 2.0), adds), Credit(Reward("d2", 1.0, 2.0), ())]
        )
        assert claims == [True, True]
        assert listed(store) == {
            (DECISIONS, "a"): [2.0],
            ("counts", "a"): [1.5, 2.5],
            ("counts", "b"): [3.0, 4.0],
            ("linear", "a"): [5.0],
        }
        assert listed(store, "other") == {("counts", "a"): [6.0]}

    def test_a_reward_for_an_unknown_decision_undoes_the_whole_commit(self, store: Store):
        store.commit([decision("d1")], [])
        before = listed(store)
        with pytest.raises(KeyError, match="nobody"):
            store.commit([decision("d2")], [credit("d1", [1, 1]), credit("nobody", [1, 1]), credit("d2", [1, 1])])
        assert store.find(["d2", "nobody"]) == {}
        assert store.rewards(["d1", "d2", "nobody"]) == {}
        assert listed(store) == before
        assert store.commit([decision("d2")], [credit("d1", [1, 1])]) == [True], "the store works on"

    @pytest.mark.parametrize("stored", [[], [credit("d1", [1, 1])]], ids=["within one commit", "after a commit"])
    def test_a_row_of_another_width_is_refused_and_undoes_the_whole_commit(self, store: Store, stored: list[Credit]):
        store.commit([decision("d1"), decision("d2"), decision("d3")], stored)
        before = listed(store)
        with pytest.raises(StoreError, match=r"'credit'.*'a'.*'counts' are 2 wide.*row of 3"):
            store.commit([decision("d4")], [credit("d2", [1, 1]), credit("d3", [1, 1, 1])])
        assert store.find(["d4"]) == {}
        assert store.rewards(["d2", "d3"]) == {}
        assert listed(store) == before
        assert store.commit([], [credit("d2", [1, 1]), credit("d3", [1, 1, 1], layout="wider")]) == [True, True]

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_a_sum_never_stops_being_finite(self, store: Store, bad: float):
        store.commit([decision("d1")], [])
        with pytest.raises(StoreError, match="finite"):
            store.commit([decision("d2")], [credit("d1", [1, bad])])
        assert store.rewards(["d1"]) == {}
        assert listed(store) == {(DECISIONS, "a"): [1.0]}

    def test_sums_do_not_change_under_whoever_reads_them(self, store: Store):
        row = np.array([1.0, 1.0])
        store.commit(
            [decision("d1"), decision("d2")], [Credit(Reward("d1", 1.0, 2.0), (Add(ROUTE, "counts", "a", row),))]
        )
        before = store.sums(ROUTE)
        store.commit([], [credit("d2", [1, 1])])
        row += 100
        with suppress(ValueError):  # read-only will do as well as a copy
            store.sums(ROUTE)["counts", "a"][:] += 100
        assert before["counts", "a"].tolist() == [1.0, 1.0]
        assert before["counts", "a"].dtype == np.float64
        assert listed(store)["counts", "a"] == [2.0, 2.0]

    def test_the_version_changes_with_the_sums(self, store: Store):
        versions = [store.version()]
        store.commit([decision("d1"), decision("d2")], [])
        versions.append(store.version())
        for id in ("d1", "d2"):
            store.commit([], [credit(id, [1, 1])])
            versions.append(store.version())
        assert len(set(versions)) == len(versions)
        assert store.version() == versions[-1], "and only then"
        with pytest.raises(KeyError):
            store.commit([], [credit("nobody", [1, 1])])
        assert store.version() == versions[-1]

    def test_the_log_is_in_the_order_of_ids_with_rewards_where_there_are_some(self, store: Store):
        ids = [f"{n:04x}" for n in range(2500)]  # more than any store reads at a time
        shuffled = [ids[i] for i in np.random.default_rng(1).permutation(len(ids))]
        store.commit([decision(id, "ab"[int(id, 16) % 2]) for id in shuffled], [])
        store.commit([decision("0000x", route="other")], [])
        store.commit([], [credit(id, value=int(id, 16)) for id in shuffled[:1000]])
        log = list(store.log(ROUTE))
        assert [made.id for made, _ in log] == ids
        rewarded = {reward.decision: reward.value for _, reward in log if reward}
        assert rewarded == {id: int(id, 16) for id in shuffled[:1000]}
        assert all(reward is None or reward.decision == made.id for made, reward in log)
        assert [made.id for made, _ in store.log("other")] == ["0000x"]

    def test_the_log_can_be_read_while_more_is_committed(self, store: Store):
        store.commit([decision(f"{n:04x}") for n in range(2500)], [])
        seen = 0
        for made, _ in store.log(ROUTE):
            if seen % 500 == 0:
                assert store.commit([], [credit(made.id)]) == [True]
            seen += 1
        assert seen == 2500

    def test_closing_twice_is_closing_once(self, store: Store):
        store.close()
        store.close()

    @pytest.mark.parametrize("number", [0.0, -0.0, 0.1 + 0.2, 5e-324, -1.7976931348623157e308, 2.0**53, 3.0])
    def test_awkward_numbers_are_kept_to_the_bit(self, store: Store, number: float):
        made = decision("d1", propensity=number, time=number, context=(number,))
        reward = Reward("d1", number, number, {"profit": number}, number)
        store.commit([made], [Credit(reward, ())])
        assert bits(store.find(["d1"])["d1"]) == bits(made)
        assert bits(store.rewards(["d1"])["d1"]) == bits(reward)

    @ONE_STORE_AN_EXAMPLE
    @given(
        made=st.builds(
            Decision, st.just("d1"), texts, texts, numbers, numbers, texts, texts, st.none() | contexts.map(tuple)
        ),
        reward=st.builds(Reward, st.just("d1"), numbers, numbers, st.dictionaries(texts, finite), st.none() | numbers),
        row=st.lists(finite, max_size=5),
    )
    def test_what_is_read_is_what_was_written_to_the_bit(self, fresh: Fresh, made, reward, row):
        add = Add(made.route, "layout", made.arm, np.array(row, dtype=np.float64))
        with closing(fresh()) as store:
            assert store.commit([made], [Credit(reward, (add,))]) == [True]
            assert bits(store.find(["d1"])["d1"]) == bits(made)
            assert bits(store.rewards(["d1"])["d1"]) == bits(reward)
            assert [(bits(a), bits(b)) for a, b in store.log(made.route) if b] == [(bits(made), bits(reward))]
            # There was nothing, 0.0, before: and 0.0 + -0.0 is 0.0.
            assert store.sums(made.route)["layout", made.arm].tobytes() == (np.zeros(len(row)) + row).tobytes()

    @ONE_STORE_AN_EXAMPLE
    @given(st.data())
    def test_any_sequence_of_commits_does_what_the_model_does(self, fresh: Fresh, data: st.DataObject):
        ids = st.sampled_from([f"d{n}" for n in range(8)])
        names = st.sampled_from(["a", "b"])
        rows = st.lists(small, min_size=2, max_size=2).map(np.array)
        decisions = st.builds(decision, ids, names, names)
        credits = st.builds(
            Credit,
            st.builds(Reward, ids, small, small),
            st.lists(st.builds(Add, names, names, names, rows), max_size=3).map(tuple),
        )
        commits = data.draw(st.lists(st.tuples(st.lists(decisions), st.lists(credits, max_size=6)), max_size=8))
        model = Model()
        with closing(fresh()) as store:
            for commit in commits:
                try:
                    expected = model.commit(*commit)
                except KeyError:
                    with pytest.raises(KeyError):
                        store.commit(*commit)
                else:
                    assert store.commit(*commit) == expected
            everything = [f"d{n}" for n in range(8)]
            assert store.find(everything) == model.decisions
            assert store.rewards(everything) == model.rewards
            for route in ("a", "b"):
                expected_sums = {key[1:]: row.tolist() for key, row in model.sums.items() if key[0] == route}
                assert listed(store, route) == expected_sums
                log = sorted((d for d in model.decisions.values() if d.route == route), key=lambda d: d.id)
                assert list(store.log(route)) == [(made, model.rewards.get(made.id)) for made in log]

    def test_sums_over_many_commits_are_numpy_s_sums(self, store: Store):
        rng = np.random.default_rng(5)
        rows = rng.uniform(1, 2, (600, 7)) * 10.0 ** rng.integers(-6, 6, (600, 1))
        arms = rng.integers(0, 3, 600)
        for part in np.split(np.arange(600), np.sort(rng.choice(600, 25, replace=False))):
            store.commit([decision(f"{n:04x}", f"arm{arms[n]}") for n in part], [])
            store.commit([], [credit(f"{n:04x}", rows[n], arm=f"arm{arms[n]}") for n in part])
        sums = store.sums(ROUTE)
        for arm in range(3):
            np.testing.assert_allclose(sums["counts", f"arm{arm}"], rows[arms == arm].sum(axis=0), rtol=1e-13)
            assert sums[DECISIONS, f"arm{arm}"].tolist() == [(arms == arm).sum()]
