"""What feedback adds, through the store: in parts, corrected, late, worked out, and from decisions of all kinds."""

from __future__ import annotations

import asyncio
from dataclasses import replace as replaced
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bandits.anytime import difference
from protos.errors import Code
from router.call import HELD, REWARD, TRUTH, Batch, Decision, Feedback
from router.config import Arm, EpsilonGreedyPolicy, Failover, Metric, Reward, SplitPolicy, ThompsonPolicy
from router.config import Route as Settings
from router.config.reward import BrierScore, PnlScore
from router.errors import AlreadyRewarded, BadReward, Contended, NotLearnt, NotRecorded, NotScored, TooLate
from router.learning.counting import Counted, count
from router.learning.credit import Crediting, metric_layout
from router.learning.fitting import fitted, policy_layout
from router.learning.lift import lift_layout, lift_row
from router.route import Route, Routes
from router.safety.comparisons import weighed_row
from router.safety.guardrails import Bad, Watch
from router.stores import DECISIONS, Store
from router.stores.memory import MemoryStore
from tests.router.bench import Open, running, until
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, FlakyStore, call_of, make_route, settled

pytestmark = pytest.mark.anyio

METRICS = {"pnl": Metric(unit="GBP"), "cost": Metric(unit="GBP")}
REPLACE = Reward(corrections="replace")


def served(clock: FakeClock | None = None, **told: Any) -> Route:
    """A route of the arms a and b, fitted to nothing."""
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
    return fitted(make_route(Routes(), FakeLog(), upstreams, clock=clock or FakeClock(), **told), {}, NOW)


def tell(store: Store, route: Route, *feedbacks: Feedback) -> list[Any]:
    return count(store, {route.name: route}, Batch(), feedbacks)


def decided(store: Store, route: Route, n: int = 1) -> list[Decision]:
    decisions = [route.decide(call_of(route.name))[0] for _ in range(n)]
    store.commit(Batch(decisions))
    return decisions


def sums(store: Store, name: str = "credit") -> dict[tuple[str, str], list[float]]:
    return {key: row.tolist() for key, row in store.sums(name).items()}


# ------------------------------------------------------------------------------------------------------- in parts


async def test_numbers_come_one_by_one_and_each_counts_once(open_store: Open):
    async with running(open_store(), metrics=METRICS) as bench:
        decision = bench.decided()
        parts: list[tuple[dict[str, Any], tuple[str, ...]]] = [
            ({"metrics": {"pnl": 2.0}}, ("pnl",)),
            ({"truth": 1.0}, (TRUTH,)),
            ({"value": 0.5, "metrics": {"pnl": 9.0, "cost": 1.0}, "truth": 0.0}, (REWARD, "cost")),
        ]
        for said, names in parts:
            (verdict,) = await bench.ask(bench.reward(decision, **{"value": None, **said}))
            assert isinstance(verdict, Counted)
            assert verdict.names == names
            assert verdict.rewarded == (REWARD in names)
        assert isinstance(await bench.earn(decision, 0.5, metrics={"pnl": 2.0}, truth=1.0), AlreadyRewarded)
        kept = bench.store.outcomes([decision.id])[decision.id]
        values = {name: outcome.value for name, outcome in kept.items()}
        assert values == {"pnl": 2.0, TRUTH: 1.0, REWARD: 0.5, "cost": 1.0}
        assert bench.sums()[metric_layout("pnl"), decision.arm] == [1.0, 2.0, 4.0]


async def test_feedback_that_says_nothing_is_refused(open_store: Open):
    async with running(open_store()) as bench:
        told = await bench.earn(bench.decided(), None)
        assert isinstance(told, BadReward)
        assert "says nothing" in told.message


async def test_the_policy_waits_for_the_reward(open_store: Open):
    async with running(open_store(), metrics=METRICS) as bench:
        decision = bench.decided()
        await bench.earn(decision, None, metrics={"pnl": 1.0}, truth=1.0)
        assert {layout for layout, _ in bench.sums()} == {DECISIONS, metric_layout("pnl")}


# ---------------------------------------------------------------------------------------------------- corrections


def test_a_correction_takes_back_what_the_old_value_added():
    store, route = MemoryStore(), served(reward=REPLACE, metrics=METRICS, policy=ThompsonPolicy())
    (decision,) = decided(store, route)
    said = Feedback(decision.id, NOW, 0.25, {"pnl": 4.0})
    (first,) = tell(store, route, said)
    assert first.names == (REWARD, "pnl")
    before = sums(store)
    (same,) = tell(store, route, said)
    assert isinstance(same, AlreadyRewarded)
    assert str(same).endswith("all this is known; with these very values, which count once")
    assert sums(store) == before
    (corrected,) = tell(store, route, Feedback(decision.id, NOW + 1, 0.75, {"pnl": 4.0}))
    assert (corrected.names, corrected.rewarded) == ((REWARD,), False)
    arm = decision.arm
    assert sums(store)[REWARD, arm] == [1.0, 0.75, 0.5625]
    assert sums(store)[policy_layout(route), arm] == [1.0, 0.75, 0.5625]
    assert sums(store)[metric_layout("pnl"), arm] == before[metric_layout("pnl"), arm]
    assert store.outcomes([decision.id])[decision.id][REWARD].time == NOW + 1


def test_of_several_corrections_in_one_commit_the_last_stands():
    store, route = MemoryStore(), served(reward=REPLACE)
    (decision,) = decided(store, route)
    values = [0.5, 0.25, 0.25, 1.0]
    verdicts = tell(store, route, *(Feedback(decision.id, NOW, value) for value in values))
    assert [type(verdict) for verdict in verdicts] == [Counted, Counted, AlreadyRewarded, Counted]
    assert sums(store)[REWARD, decision.arm] == [1.0, 1.0, 1.0]


def test_a_correction_after_a_reload_leaves_alone_what_it_did_not_teach():
    store, route = MemoryStore(), served(reward=REPLACE, policy=ThompsonPolicy())
    (decision,) = decided(store, route)
    tell(store, route, Feedback(decision.id, NOW, 0.25))
    wider = served(reward=Reward(low=-1.0, high=3.0, corrections="replace"), policy=ThompsonPolicy())
    tell(store, wider, Feedback(decision.id, NOW, 2.0))
    assert sums(store)[policy_layout(route), decision.arm] == [1.0, 0.25, 0.0625]
    changed = {layout for layout, _ in sums(store)} - {DECISIONS, REWARD, policy_layout(route)}
    assert changed == {lift_layout(("a", "b"), 0.0, 1.0)}
    assert sums(store)[lift_layout(("a", "b"), 0.0, 1.0), decision.arm] == weighed_row(0.25, 0.5).tolist()
    assert sums(store)[REWARD, decision.arm] == [1.0, 2.0, 4.0]


class Racing(MemoryStore):
    """Another replica corrects a reward whenever this one has looked, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.route = times, served(reward=REPLACE)

    def outcomes(self, ids: Any) -> Any:
        ids = list(ids)
        seen = super().outcomes(ids)
        if self.times:
            self.times -= 1
            other = MemoryStore.outcomes(self, ids)[ids[0]][REWARD].value / 2
            decision = self.find(ids)[ids[0]]
            credits = Crediting(self.route).credits(decision, Feedback(ids[0], NOW, other), seen[ids[0]])
            assert self.commit(Batch(credits=credits)) == [True]
        return seen


@pytest.mark.parametrize(("times", "kind"), [(1, Counted), (4, Counted), (50, Contended)])
def test_a_correction_that_another_replica_was_faster_than_is_made_anew(times: int, kind: type):
    store = Racing(0)
    (decision,) = decided(store, store.route)
    tell(store, store.route, Feedback(decision.id, NOW, 1.0))
    store.times = times
    (verdict,) = tell(store, store.route, Feedback(decision.id, NOW, 0.75))
    assert isinstance(verdict, kind)
    n, total, squares = sums(store)[REWARD, decision.arm]
    value = store.outcomes([decision.id])[decision.id][REWARD].value
    assert (n, total, squares) == (1.0, value, value * value)


eighths = st.integers(0, 8).map(lambda k: k / 8)  # whose sums and squares are exact


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.lists(
            st.tuples(
                st.integers(0, 4), st.none() | eighths, st.dictionaries(st.sampled_from(["pnl", "cost"]), eighths)
            ),
            max_size=6,
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_however_feedback_is_parted_ordered_and_corrected_the_sums_are_those_of_the_log(
    batches: list[list[tuple[int, float | None, dict[str, float]]]], corrects: bool
):
    store = MemoryStore()
    route = served(reward=REPLACE if corrects else Reward(), metrics=METRICS, policy=ThompsonPolicy())
    decisions = decided(store, route, 5)
    for batch in batches:
        tell(store, route, *(Feedback(decisions[k].id, NOW, reward, metrics) for k, reward, metrics in batch))
    again, crediting = MemoryStore(), Crediting(route)
    again.commit(Batch(decisions))
    for decision, outcomes in store.log(route.name):
        for name, outcome in outcomes.items():
            said = {"reward": outcome.value} if name == REWARD else {"metrics": {name: outcome.value}}
            again.commit(Batch(credits=crediting.credits(decision, Feedback(decision.id, NOW, **said), {})))
    assert sums(store) == sums(again)


# ---------------------------------------------------------------------------------------------------- too late


@pytest.mark.parametrize("seconds", [60.0, 60.5])
def test_after_its_window_a_reward_is_refused_and_the_rest_is_taken(seconds: float):
    store = MemoryStore()
    route = served(reward=Reward(window_seconds=60.0), metrics=METRICS)
    one, two = decided(store, route, 2)
    when = NOW + seconds
    verdicts = tell(store, route, Feedback(one.id, when, 1.0), Feedback(two.id, when, 1.0, {"pnl": 1.0}, 1.0))
    if seconds <= 60.0:
        assert [verdict.names for verdict in verdicts] == [(REWARD,), (REWARD, "pnl", TRUTH)]
    else:
        assert isinstance(verdicts[0], TooLate)
        assert (verdicts[0].code, verdicts[0].retry) == (Code.FAILED_PRECONDITION, False)
        assert verdicts[1].names == ("pnl", TRUTH)


def test_a_reward_in_time_that_is_sent_again_too_late_is_known():
    store, route = MemoryStore(), served(reward=Reward(window_seconds=60.0))
    (decision,) = decided(store, route)
    tell(store, route, Feedback(decision.id, NOW, 1.0))
    (again,) = tell(store, route, Feedback(decision.id, NOW + 100, 1.0))
    assert isinstance(again, AlreadyRewarded)


def test_where_corrections_are_taken_a_late_reward_is_too():
    store, route = MemoryStore(), served(reward=Reward(window_seconds=60.0, corrections="replace"))
    (decision,) = decided(store, route)
    (late,) = tell(store, route, Feedback(decision.id, NOW + 100, 1.0))
    assert late.names == (REWARD,)


# -------------------------------------------------------------------------------------------------- from the truth


def test_a_reward_is_worked_out_from_the_truth():
    store, route = MemoryStore(), served(reward=Reward(low=-1.0, high=1.0, score=PnlScore(cost=0.25)))
    (decision,) = [replace(each, prediction=-0.5) for each in [route.decide(call_of("credit"))[0]]]
    store.commit(Batch([decision]))
    (verdict,) = tell(store, route, Feedback(decision.id, NOW, truth=-1.0))
    assert verdict.names == (REWARD, TRUTH)
    assert store.outcomes([decision.id])[decision.id][REWARD].value == 0.375


@pytest.mark.parametrize(
    ("prediction", "reward", "truth", "kind"),
    [
        (0.5, 0.75, 1.0, Counted),  # the same said twice
        (0.5, 0.75 + 1e-12, 1.0, Counted),
        (0.5, 0.7, 1.0, BadReward),
        (0.5, 0.3, None, Counted),  # the client knows better than to ask
        (0.5, None, 0.5, BadReward),  # no event
        (None, None, 1.0, NotScored),
        (None, 0.3, 1.0, Counted),
    ],
)
def test_what_is_sent_beside_the_truth(prediction: float | None, reward: float | None, truth: float | None, kind: type):
    store, route = MemoryStore(), served(reward=Reward(score=BrierScore()))
    decision = replace(route.decide(call_of("credit"))[0], prediction=prediction)
    store.commit(Batch([decision]))
    (verdict,) = tell(store, route, Feedback(decision.id, NOW, reward, truth=truth))
    assert isinstance(verdict, kind)
    if kind is not Counted:
        assert store.outcomes([decision.id]) == {}


def test_a_corrected_truth_corrects_the_reward():
    store, route = MemoryStore(), served(reward=Reward(score=BrierScore(), corrections="replace"))
    decision = replace(route.decide(call_of("credit"))[0], prediction=0.25)
    store.commit(Batch([decision]))
    for truth in (1.0, 0.0):
        (verdict,) = tell(store, route, Feedback(decision.id, NOW, truth=truth))
        assert verdict.names == (REWARD, TRUTH)
    assert sums(store)[REWARD, decision.arm] == [1.0, 0.9375, 0.9375**2]


# ------------------------------------------------------------------------------------- decisions of all kinds


@pytest.mark.parametrize(("learn", "learns"), [("none", False), ("answered", True)])
def test_what_the_policy_learns_from_a_stand_in_is_configured(learn: Any, learns: bool):
    store, route = MemoryStore(), served(failover=Failover(attempts=1, learn=learn), policy=ThompsonPolicy())
    decision = replace(route.decide(call_of("credit"))[0], arm="b", failed=("a",), propensity=1.0)
    store.commit(Batch([decision]))
    tell(store, route, Feedback(decision.id, NOW, 1.0))
    assert sums(store)[REWARD, "b"] == [1.0, 1.0, 1.0], "it is tallied in any case"
    assert ((policy_layout(route), "b") in sums(store)) is learns
    assert not any(layout.startswith("lift:") for layout, _ in sums(store)), "and compared in none"


def test_under_an_apprentice_the_champions_rewards_teach_with_propensity_1():
    store, route = MemoryStore(), served(apprentice=True, policy=EpsilonGreedyPolicy(epsilon=0.5))
    decision = route.decide(call_of("credit"))[0]
    assert (decision.arm, decision.propensity) == ("a", 1.0)
    assert decision.proposed is not None
    store.commit(Batch([decision]))
    tell(store, route, Feedback(decision.id, NOW, 1.0))
    assert sums(store)[policy_layout(route), "a"] == [1.0, 1.0, 1.0]


def test_a_context_that_meant_something_else_teaches_nothing_and_the_reward_is_tallied():
    linear: dict[str, Any] = {"policy": {"kind": "linucb"}, "arms": {"a": {"model": "m"}, "b": {"model": "m"}}}
    clock = FakeClock()
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}

    def of(context: dict[str, Any]) -> Route:
        told = msgspec.convert({**linear, "context": context}, Settings)
        route = make_route(Routes(), FakeLog(), upstreams, clock=clock, context=told.context, policy=told.policy)
        return fitted(route, {}, NOW)

    route, other = of({"x": {"parameter": "x"}}), of({"y": {"parameter": "y"}})
    store = MemoryStore()
    decision = Decision("d" * 32, "credit", "a", 0.5, NOW, route.version, context=(0.5,), probabilities=(0.5, 0.5))
    late = replace(decision, id="e" * 32)
    store.commit(Batch([decision, late]))
    tell(store, route, Feedback(decision.id, NOW, 1.0))
    tell(store, other, Feedback(late.id, NOW, 1.0))
    learnt = [layout for layout, _ in sums(store) if layout.startswith("policy:")]
    assert learnt == [policy_layout(route)]
    assert policy_layout(route) != policy_layout(other)
    assert sums(store)[REWARD, "a"] == [2.0, 2.0, 2.0]


def test_feedback_that_the_policy_cannot_learn_from_fails_alone(caplog: pytest.LogCaptureFixture):
    store, route = MemoryStore(), served(policy=ThompsonPolicy())
    good = decided(store, route, 2)
    bad = replace(good[0], id="0" * 32, propensity=0.0)  # as no route writes it
    worse = replace(good[0], id="1" * 32, propensity=float("nan"))
    store.commit(Batch([bad, worse]))
    said = [Feedback(each.id, NOW, 0.123456) for each in (good[0], bad, worse, good[1])]
    verdicts = tell(store, route, *said)
    assert [type(verdict) for verdict in verdicts] == [Counted, NotLearnt, NotLearnt, Counted]
    assert sum(row[0] for (layout, _), row in sums(store).items() if layout == REWARD) == 2
    assert "0.123456" not in caplog.text


def test_a_row_that_is_not_finite_fails_alone(monkeypatch: pytest.MonkeyPatch):
    store, route = MemoryStore(), served()
    decisions = decided(store, route, 2)
    plain = Crediting.credits

    def spoilt(self: Crediting, decision: Decision, feedback: Feedback, known: Any, **more: Any) -> Any:
        credits = plain(self, decision, feedback, known, **more)
        if decision.id == decisions[0].id:
            credits[0].adds[0].row[0] = np.inf
        return credits

    monkeypatch.setattr(Crediting, "credits", spoilt)
    verdicts = tell(store, route, *(Feedback(each.id, NOW, 1.0) for each in decisions))
    assert [type(verdict) for verdict in verdicts] == [NotLearnt, Counted]


# ------------------------------------------------------------------------------------------------------------ lift


def test_the_sums_say_how_much_more_an_arm_earns_however_it_was_drawn():
    store, rng = MemoryStore(), np.random.default_rng(7)
    route = served(policy=SplitPolicy(weights={"a": 0.8, "b": 0.2}))
    decisions = decided(store, route, 4000)
    earned = {"a": 0.5, "b": 0.7}
    said = [Feedback(each.id, NOW, float(rng.random() < earned[each.arm])) for each in decisions]
    tell(store, route, *said)
    found = difference(lift_row(store.sums("credit"), "b", "a", low=0.0, high=1.0))
    assert found.n == 4000
    assert found.low < 0.2 < found.high
    assert found.low > 0.0
    back = difference(lift_row(store.sums("credit"), "a", "b", low=0.0, high=1.0))
    assert back.effect == pytest.approx(-found.effect)


def test_decisions_that_could_not_have_drawn_both_say_nothing_of_the_difference():
    store = MemoryStore()
    route = served(policy=SplitPolicy(weights={"a": 1.0, "b": 0.0}))
    decisions = decided(store, route, 10)
    tell(store, route, *(Feedback(each.id, NOW, 1.0) for each in decisions))
    assert lift_row(store.sums("credit"), "b", "a", low=0.0, high=1.0).tolist() == [0.0] * 7


# -------------------------------------------------------------------------------------------- replicas and outages


async def test_of_two_replicas_that_correct_at_once_the_sums_are_those_of_the_last(open_store: Open):
    async with running(open_store(), reward=REPLACE) as one, running(open_store(), reward=REPLACE) as other:
        decision = one.decide()
        await one.learner.journal.committed(decision)
        said = [(bench, value) for bench in (one, other) for value in (0.125, 0.25, 0.5, 0.75)]
        await asyncio.gather(*(bench.earn(decision, value) for bench, value in said))
        value = one.store.outcomes([decision.id])[decision.id][REWARD].value
        assert one.sums()[REWARD, decision.arm] == [1.0, value, value * value]


async def test_after_an_outage_feedback_is_sent_again_and_counts_once():
    store = FlakyStore()
    async with running(store) as bench:
        decisions = [bench.decided() for _ in range(5)]
        store.down = True
        refused = await asyncio.gather(*(bench.earn(each) for each in decisions), return_exceptions=True)
        assert all(isinstance(each, Exception) for each in refused)
        assert bench.learner.outage.seconds > 0
        assert (bench.metric("croupier_store_away_seconds") or 0) >= 0
        store.down = False
        assert await asyncio.gather(*(bench.earn(each) for each in decisions)) == decisions
        await settled(bench.learner)
        assert bench.learner.outage.seconds == 0
        assert bench.metric("croupier_store_away_seconds") == 0
        assert sum(row[0] for (layout, _), row in bench.sums().items() if layout == REWARD) == 5


# --------------------------------------------------------------------------------------------------------- watches


def test_what_guardrails_are_judged_by_is_added_once_and_corrected():
    store, bad = MemoryStore(), Bad("shortfall", REWARD)
    watch = Watch("b", "a", NOW - 1.0, (), (bad,))
    route = replaced(served(reward=REPLACE), watches=(watch,))
    one, other = decided(store, route, 2)
    for decision, values in (one, (0.25, 0.75)), (other, (0.5,)):
        for value in values:
            tell(store, route, Feedback(decision.id, NOW, value))
    rows = [row for (layout, _), row in store.sums("credit").items() if layout == watch.weighed_layout(bad)]
    expected = [weighed_row(bad.part(value), 0.5) for value in (0.75, 0.5)]
    assert np.sum(rows, axis=0).tolist() == np.sum(expected, axis=0).tolist()


async def test_through_replicas_outages_corrections_and_defaults_the_sums_are_those_of_the_log(open_store: Open):
    rng = np.random.default_rng(11)
    told: dict[str, Any] = {
        "reward": Reward(window_seconds=60.0, default=0.25, corrections="replace"),
        "metrics": METRICS,
        "policy": ThompsonPolicy(),
        "half_life_seconds": 3600.0,
    }
    clock = FakeClock()
    stores = [FlakyStore(open_store()), FlakyStore(open_store())]
    acknowledged: dict[tuple[str, str], set[float]] = {}

    async with running(stores[0], clock, **told) as one, running(stores[1], clock, **told) as other:
        benches, decisions = [one, other], []
        for bench in benches:
            bench.routes.publish(await bench.learner.fit(bench.route))

        async def say(bench: Any, decision: Decision, value: float) -> None:
            try:
                (verdict,) = await bench.ask(bench.reward(decision, value, metrics={"pnl": value}))
            except NotRecorded:
                return
            if isinstance(verdict, Counted):
                for name in verdict.names:
                    acknowledged.setdefault((decision.id, name), set()).add(value)

        for _ in range(16):
            clock.advance(7.0)  # less than the grace: no commit takes so long
            for store in stores:
                store.down = bool(rng.random() < 0.25)
            for bench in benches:
                clock.advance(0.5)  # so that the two do not give the same ids
                decisions += [bench.decided() for _ in range(5)]
            there = {each.id for store in stores for each in store.committed}
            # What is not committed yet is told to who made it: the clock stands, and others would wait for ever.
            asked = [
                (benches[int(rng.integers(2)) if decisions[k].id in there else k // 5 % 2], decisions[k])
                for k in rng.integers(len(decisions), size=20).tolist()
            ]
            await asyncio.gather(*(say(bench, each, int(rng.integers(9)) / 8) for bench, each in asked))
        for store in stores:
            store.down = False
        for _ in range(10):
            for bench in benches:
                await settled(bench.learner)
            clock.advance(8.0)
        ids = {each.id for each in decisions}
        await until(lambda: {id for id, known in one.store.outcomes(ids).items() if REWARD in known} == ids)

        again, crediting = MemoryStore(), Crediting(one.route)
        for decision, outcomes in one.store.log("credit"):
            credits = [crediting._credit(decision, outcome) for name, outcome in outcomes.items() if name != HELD]
            again.commit(Batch([decision], credits))
        assert {each.id for each, _ in again.log("credit")} == ids
        for key, row in one.store.sums("credit").items():
            assert row.tolist() == pytest.approx(again.sums("credit")[key].tolist(), abs=1e-6 * max(1.0, *abs(row)))
        assert one.store.sums("credit").keys() == again.sums("credit").keys()
        for (id, name), values in acknowledged.items():
            assert one.store.outcomes([id])[id][name].value in values, "no acknowledged number is lost"


async def test_a_policy_learns_what_a_decision_is_worth_and_tallies_tell_what_it_earned():
    arms = {"cheap": Arm(model="m", target="h:1", cost=0.1), "dear": Arm(model="m", target="h:1", cost=0.6)}
    settings = Settings(arms=arms)
    assert (settings.worths.low, settings.worths.high) == (-0.6, 0.9)
    assert settings.share("cheap", 1.0) == pytest.approx(1.0)
    assert settings.share("dear", 0.0) == 0.0
    assert settings.share("cheap", 0.5) == settings.share("dear", 1.0), "half a reward is what the difference costs"
    free = Settings(arms={name: msgspec.structs.replace(arm, cost=None) for name, arm in arms.items()})
    assert free.share("dear", 0.25) == 0.25
    route = make_route(Routes(), FakeLog(), {"cheap": FakeUpstream(), "dear": FakeUpstream()}, clock=FakeClock())
    route = replaced(route, settings=settings, in_force=settings)
    decision = msgspec.structs.replace(route.decide(call_of("credit"))[0], arm="dear")
    rows = {
        add.layout: add.row for add in Crediting(route).credits(decision, Feedback(decision.id, NOW, 1.0), {})[0].adds
    }
    assert rows[policy_layout(route)][1] == pytest.approx((1.0 - 0.6 + 0.6) / 1.5)
    assert rows[REWARD].tolist() == [1.0, 1.0, 1.0]
