from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace as replaced
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from bandits.anytime import difference
from router.answers.estimates import mean_within
from router.answers.explain import explain
from router.call import HELD, REWARD, Batch, Decision, Feedback, Outcome
from router.config import Failover, Metric, Reward, ThompsonPolicy
from router.config.learning import Retention as Told
from router.errors import AlreadyRewarded, TooLate
from router.export import export
from router.learning import maturity as module
from router.learning.counting import Counted, count
from router.learning.credit import GRACE_SECONDS, metric_layout
from router.learning.fitting import fitted, policy_layout
from router.learning.lift import lift_row
from router.learning.maturity import DOCUMENTS, LOOK_SECONDS, Maturity, mark_of
from router.learning.retention import Retention
from router.route import Route, Routes
from router.stores import DECISIONS, Malformed, Store
from router.stores.memory import MemoryStore
from tests.router.bench import Open, p_of, running, until
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, FlakyStore, make_route, settled

pytestmark = pytest.mark.anyio

WINDOW = 60.0
OVER = WINDOW + GRACE_SECONDS
SILENT = Reward(window_seconds=WINDOW, default=0.25)


def served(reward: Reward = SILENT, **told: Any) -> dict[str, Route]:
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
    route = make_route(Routes(), FakeLog(), upstreams, clock=FakeClock(), reward=reward, **told)
    return {route.name: fitted(route, {}, NOW)}


def taken(routes: Mapping[str, Route], *seconds: float, arm: str = "a") -> list[Decision]:
    """Decisions that were taken so many seconds after NOW."""
    version = routes["credit"].version
    return [
        Decision(f"{int((NOW + each) * 1000):012x}{k:020x}", "credit", arm, 0.5, NOW + each, version, "u")
        for k, each in enumerate(seconds)
    ]


def rewards(store: Store, decisions: Sequence[Decision]) -> list[float | None]:
    outcomes = store.outcomes([each.id for each in decisions])
    known = [outcomes.get(each.id, {}).get(REWARD) for each in decisions]
    return [None if reward is None else reward.value for reward in known]


def matured(store: Store, routes: Mapping[str, Route], now: float) -> Maturity:
    maturity = Maturity(store)
    walk(maturity, routes, now)
    return maturity


def walk(maturity: Maturity, routes: Mapping[str, Route], now: float) -> None:
    for _ in range(100):
        if not maturity.is_due(routes, now):
            return
        maturity.mature(routes, now)
    raise AssertionError("it is never done")


@pytest.fixture
def store(open_store: Open) -> Iterator[Store]:
    with closing(open_store()) as store:
        yield store


def tell(store: Store, routes: Mapping[str, Route], decision: Decision, seconds: float, reward: float) -> Any:
    """What becomes of a reward that is reported so many seconds after NOW."""
    (verdict,) = count(store, routes, Batch(), [Feedback(decision.id, NOW + seconds, reward)])
    return verdict


def tally(store: Store, arm: str = "a") -> list[float]:
    row = store.sums("credit").get((REWARD, arm))
    return [] if row is None else row.tolist()


# ---------------------------------------------------------------------------------------------- nothing too soon


def test_a_reward_is_taken_at_once_and_counts_when_silence_does(store: Store):
    routes = served(policy=ThompsonPolicy())
    decisions = taken(routes, 0.0, 1.0)
    store.commit(Batch(decisions))
    before = store.sums("credit").keys()
    verdict = tell(store, routes, decisions[0], 5.0, 1.0)
    assert (verdict.names, verdict.rewarded) == ((REWARD,), True)
    assert store.outcomes([decisions[0].id])[decisions[0].id] == {HELD: Outcome(decisions[0].id, HELD, 1.0, NOW + 5.0)}
    matured(store, routes, NOW + OVER - 0.5)
    assert store.sums("credit").keys() == before
    matured(store, routes, NOW + OVER + 1.0)
    assert tally(store) == [2.0, 1.25, 1.0625]
    known = store.outcomes([decisions[0].id])[decisions[0].id]
    assert known[REWARD] == Outcome(decisions[0].id, REWARD, 1.0, NOW + 5.0), "reported when it was"


def test_a_metric_counts_as_it_comes(store: Store):
    routes = served(metrics={"pnl": Metric(unit="GBP")})
    (decision,) = taken(routes, 0.0)
    store.commit(Batch([decision]))
    count(store, routes, Batch(), [Feedback(decision.id, NOW + 1.0, 1.0, {"pnl": 2.0})])
    assert store.sums("credit").keys() == {(DECISIONS, "a"), (metric_layout("pnl"), "a")}


@pytest.mark.parametrize(("corrections", "value"), [("refuse", 0.5), ("replace", 0.75)])
def test_a_reward_that_waits_stands_or_is_replaced(store: Store, corrections: Any, value: float):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections=corrections))
    (decision,) = taken(routes, 0.0)
    store.commit(Batch([decision]))
    verdicts = [tell(store, routes, decision, *said) for said in ((1.0, 0.5), (2.0, 0.5), (3.0, 0.75))]
    last = Counted if corrections == "replace" else AlreadyRewarded
    assert [type(verdict) for verdict in verdicts] == [Counted, AlreadyRewarded, last]
    assert not getattr(verdicts[2], "rewarded", False), "it was before"
    assert isinstance(tell(store, routes, decision, WINDOW + 1.0, value), AlreadyRewarded)
    matured(store, routes, NOW + OVER)
    assert tally(store) == [1.0, value, value**2]


def test_until_a_decision_counts_a_late_correction_waits_too(store: Store):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections="replace"))
    one, other = taken(routes, 0.0, 0.0)
    store.commit(Batch([one, other]))
    tell(store, routes, one, 1.0, 0.5)
    for decision in (one, other):
        assert isinstance(tell(store, routes, decision, WINDOW + 5.0, 1.0), Counted)
    assert tally(store) == []
    matured(store, routes, NOW + OVER)
    assert tally(store) == [2.0, 2.0, 2.0]
    assert isinstance(tell(store, routes, one, OVER + 5.0, 0.5), Counted)
    assert tally(store) == [2.0, 1.5, 1.25]


def test_silence_is_given_its_reward_when_the_window_has_ended_and_not_before(store: Store):
    routes = served(policy=ThompsonPolicy())
    decisions = taken(routes, 0.0, 1.0, 2.0)
    store.commit(Batch(decisions))
    count(store, routes, Batch(), [Feedback(decisions[1].id, NOW + 10, 1.0)])
    matured(store, routes, NOW + OVER - 0.5)
    assert rewards(store, decisions) == [None, None, None]
    matured(store, routes, NOW + OVER + 1.0)
    assert rewards(store, decisions) == [0.25, 1.0, None]
    matured(store, routes, NOW + OVER + 100.0)
    assert rewards(store, decisions) == [0.25, 1.0, 0.25]
    assert store.sums("credit")[REWARD, "a"].tolist() == [3.0, 1.5, 1.125]
    assert store.sums("credit")[policy_layout(routes["credit"]), "a"].tolist() == [3.0, 1.5, 1.125]


class Between:
    """A store in which something happens before each commit."""

    def __init__(self, store: Store, happens: Callable[[], object]) -> None:
        self._store, self._happens = store, happens

    def commit(self, batch: Batch) -> list[bool]:
        self._happens()
        return self._store.commit(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_two_replicas_that_walk_at_once_count_each_decision_once(store: Store):
    routes = served()
    decisions = taken(routes, *range(10))
    store.commit(Batch(decisions))
    tell(store, routes, decisions[3], 5.0, 1.0)
    now = NOW + 10 + OVER
    other = Maturity(store)
    one = Maturity(cast("Store", Between(store, lambda: other.mature(routes, now))))
    assert one.mature(routes, now) == 0, "the other gave them all, after this one had looked"
    assert one.mature(routes, now) == 0
    assert tally(store) == [10.0, 9 * 0.25 + 1.0, 9 * 0.0625 + 1.0]


@pytest.mark.parametrize("first", [None, 0.5])
def test_a_reward_that_comes_while_its_decision_is_counted_is_not_lost(store: Store, first: float | None):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections="replace"))
    decisions = taken(routes, 0.0, 0.0)
    store.commit(Batch(decisions))
    if first is not None:
        tell(store, routes, decisions[0], 1.0, first)
    said: list[Any] = []

    def once() -> None:
        if not said:  # by a replica whose clock is behind, or which was held up
            said.append(tell(store, routes, decisions[0], 2.0, 1.0))

    maturity = Maturity(cast("Store", Between(store, once)))
    walk(maturity, routes, NOW + OVER)
    assert isinstance(said[0], Counted)
    assert rewards(store, decisions) == [1.0, 0.25]
    assert tally(store) == [2.0, 1.25, 1.0625]


@pytest.mark.parametrize(("corrections", "value"), [("refuse", 0.25), ("replace", 1.0)])
def test_a_reward_in_time_that_is_written_after_its_decision_has_counted_is_refused_or_corrects_it(
    store: Store, corrections: Any, value: float
):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections=corrections))
    (decision,) = taken(routes, 0.0)
    store.commit(Batch([decision]))
    matured(store, routes, NOW + OVER)
    verdict = tell(store, routes, decision, 2.0, 1.0)
    assert isinstance(verdict, AlreadyRewarded if corrections == "refuse" else Counted)
    assert tally(store) == [1.0, value, value**2]


def test_the_work_is_bounded_goes_on_where_it_was_and_is_not_begun_anew(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MOST", 4)
    routes = served()
    decisions = taken(routes, *range(10))
    store.commit(Batch(decisions))
    now = NOW + 10 + OVER
    first = Maturity(store)
    assert first.mature(routes, now) == 4
    second = Maturity(store)  # as after a restart
    assert second.mature(routes, now) == 4
    assert first.mature(routes, now) == 2, "and it hears of what the other one did"
    assert not first.is_due(routes, now)
    assert rewards(store, decisions) == [0.25] * 10


def test_until_the_next_is_due_nothing_is_read(store: Store):
    routes = served()
    store.commit(Batch(taken(routes, 0.0, 50.0)))
    maturity = matured(store, routes, NOW + OVER)
    assert not maturity.is_due(routes, NOW + OVER + 49.0)
    assert maturity.is_due(routes, NOW + OVER + 50.0)
    shorter = served(Reward(window_seconds=1.0, default=0.0))
    assert maturity.is_due(shorter, NOW + OVER), "a reload may shorten the window"


def test_what_is_committed_when_its_window_has_ended_gets_its_default_with_the_commit(store: Store):
    routes = served()
    early, late, told, open = taken(routes, 0.0, 1.0, 2.0, 500.0)
    matured(store, routes, NOW + 400.0)
    store.commit(Batch([early]))
    now = NOW + 510.0
    defaults = module.overdue(routes, [late, told, open], now)
    in_time = [Feedback(told.id, NOW + 3.0, 1.0), Feedback(open.id, now, 1.0)]
    verdicts = count(store, routes, Batch([late, told, open], defaults), in_time)
    assert [verdict.names for verdict in verdicts if isinstance(verdict, Counted)] == [(REWARD,), (REWARD,)]
    assert rewards(store, [late, told, open]) == [0.25, 1.0, None]
    assert store.sums("credit")[REWARD, "a"].tolist() == [2.0, 1.25, 1.0625]


class Spoilt(MemoryStore):
    """The log of one route holds a row that cannot be read."""

    def log(self, route: str, *, after: str = "") -> Iterator[tuple[Decision, Mapping[str, Outcome]]]:
        for decision, outcomes in super().log(route, after=after):
            if route == "credit" and decision.time > NOW:
                raise Malformed("decision 'd'", "its time is no number")
            yield decision, outcomes


def test_a_log_that_cannot_be_read_keeps_no_other_route_from_counting(caplog: pytest.LogCaptureFixture):
    store, routes = Spoilt(), served()
    routes = {"credit": routes["credit"], "other": replaced(routes["credit"], name="other")}
    decisions = taken(routes, 0.0, 1.0)
    others = [replace(each, id=f"{'e' * 31}{k}", route="other") for k, each in enumerate(decisions)]
    store.commit(Batch([*decisions, *others]))
    maturity = matured(store, routes, NOW + OVER + 1.0)
    assert rewards(store, [*others, *decisions]) == [0.25, 0.25, 0.25, None]
    assert caplog.text.count("route credit: what is due cannot be counted") == 1
    assert maturity.is_due(routes, NOW + OVER + 1.0 + LOOK_SECONDS), "it may be mended"
    retention = Retention(store)
    short = {"credit": served(retention=Told(seconds=1.0))["credit"]}
    assert retention.forget(short, NOW + 1000.0) == 0


def test_nobody_answered_so_nothing_could_be_earned(store: Store):
    routes = served(failover=Failover(attempts=1, learn="answered"))
    (decision,) = taken(routes, 0.0)
    unanswered = replace(decision, failed=("b", "a"))
    store.commit(Batch([unanswered]))
    matured(store, routes, NOW + OVER)
    assert rewards(store, [unanswered]) == [None]


@pytest.mark.parametrize(("corrections", "late"), [("refuse", AlreadyRewarded), ("replace", None)])
def test_after_the_default_a_reward_is_refused_or_takes_its_place(store: Store, corrections: Any, late: type | None):
    routes = served(Reward(window_seconds=WINDOW, default=0.25, corrections=corrections))
    decisions = taken(routes, 0.0)
    store.commit(Batch(decisions))
    now = NOW + OVER
    matured(store, routes, now)
    (verdict,) = count(store, routes, Batch(), [Feedback(decisions[0].id, now, 1.0)])
    assert isinstance(verdict, late or Counted)
    value = 0.25 if late else 1.0
    assert store.sums("credit")[REWARD, "a"].tolist() == [1.0, value, value**2]


def test_between_the_windows_end_and_its_default_a_reward_is_too_late(store: Store):
    routes = served()
    decisions = taken(routes, 0.0)
    store.commit(Batch(decisions))
    (verdict,) = count(store, routes, Batch(), [Feedback(decisions[0].id, NOW + WINDOW + 1, 1.0)])
    assert isinstance(verdict, TooLate)
    assert "60 seconds" in verdict.message


async def test_a_learner_gives_defaults_behind_the_requests(open_store: Open):
    async with running(open_store(), reward=SILENT) as bench:
        decision = bench.decided()
        await until(lambda: bool(bench.store.find([decision.id])))
        bench.clock.advance(OVER + 1)
        await until(lambda: bool(bench.store.outcomes([decision.id])))
        kept = bench.store.outcomes([decision.id])[decision.id]
        assert kept == {REWARD: Outcome(decision.id, REWARD, 0.25, NOW + OVER + 1)}
        await until(lambda: bench.metric("croupier_default_rewards_total") == 1)
        assert (bench.metric("croupier_rewards_total", route="credit", arm=decision.arm) or 0) == 0
        told = bench.decided()
        assert await bench.earn(told) == told
        assert bench.metric("croupier_rewards_total", route="credit", arm=told.arm) == 1
        bench.clock.advance(OVER + 1)
        await until(lambda: REWARD in bench.store.outcomes([told.id])[told.id])
        assert bench.metric("croupier_default_rewards_total") == 1
        assert set(bench.store.documents(DOCUMENTS)) == {"credit"}


async def test_after_an_outage_longer_than_the_window_all_is_as_if_the_store_had_been_there():
    store = FlakyStore()
    async with running(store, reward=SILENT) as bench:
        store.down = True
        decisions = [bench.decided() for _ in range(3)]
        bench.clock.advance(10 * OVER)
        later = bench.decided()
        await asyncio.sleep(0)
        store.down = False
        await until(lambda: len(store.committed) == 4)
        assert rewards(store, [*decisions, later]) == [0.25] * 3 + [None]


# ------------------------------------------------------------------------------------------------ what people see


def test_people_see_a_reward_that_waits_and_never_the_name_that_it_has_meanwhile():
    store, routes = MemoryStore(), served()
    decisions = taken(routes, 0.0)
    store.commit(Batch(decisions))
    tell(store, routes, decisions[0], 5.0, 1.0)

    def seen() -> tuple[dict[str, float], Any]:
        out = io.BytesIO()
        export(store, "credit", "jsonl", out)
        row = msgspec.json.decode(out.getvalue())
        explained = {each.name: each.value for each in explain(store, decisions[0].id).outcomes}
        return explained, (row["reward"], row["others"], row["reported"])

    assert seen() == ({REWARD: 1.0}, (None, None, None)), "whoever adds up an export is not misled either"
    matured(store, routes, NOW + OVER)
    assert seen() == ({REWARD: 1.0}, (1.0, None, NOW + 5.0))


# ---------------------------------------------------------------------------------------------------- no feedback loop


async def test_an_arm_that_comes_later_is_not_known_by_its_successes_alone():
    """Both arms pay .2, and clients report only what paid, at once. Arm b is switched on in the middle."""
    rng, paid = np.random.default_rng(3), 0.2
    seen: list[tuple[float, float, float]] = []
    async with running(
        MemoryStore(), policy=ThompsonPolicy(), floor=0.05, reward=Reward(window_seconds=30.0, default=0.0)
    ) as bench:
        bench.switch("b", "off")
        for second in range(200):
            if second == 60:
                bench.switch("b", "on")
            taken_now = [bench.decided() for _ in range(20)]
            paying = [each for each in taken_now if rng.random() < paid]
            verdicts = await bench.ask(*(bench.reward(each) for each in paying))
            assert all(isinstance(verdict, Counted) for verdict in verdicts)
            bench.clock.advance(1.0)
            await settled(bench.learner)
            sums = bench.store.sums("credit")
            for arm in ("a", "b"):
                row = sums.get((REWARD, arm), np.zeros(3))
                mean = mean_within(row, SILENT, alpha=0.01)
                assert not mean.HasField("low") or mean.low <= paid <= mean.high
                seen.append((float(row[0]), float(row[1]), p_of(bench.route)[1]))
            lift = difference(lift_row(sums, "b", "a", low=0.0, high=1.0), alpha=0.01)
            assert lift.low <= 0.0 <= lift.high
    for n, total, _ in seen:
        assert abs(total - paid * n) <= 4.0 * (paid * (1.0 - paid) * n) ** 0.5 + 1.0
    assert seen[-1][0] > 200, "b is known"
    assert max(p for _, _, p in seen[-200:]) < 0.95


# ----------------------------------------------------------------------------------- another configuration meanwhile


def test_what_waits_counts_though_there_is_no_default_any_more(store: Store):
    routes, without = served(), served(Reward())
    decisions = taken(routes, 0.0, 1.0, 50.0)
    maturity = matured(store, routes, NOW)  # as every cycle does
    store.commit(Batch(decisions[:2]))
    tell(store, routes, decisions[1], 5.0, 1.0)
    maturity.mature(without, NOW + 6.0)
    assert tally(store) == []
    store.commit(Batch(decisions[2:]))
    tell(store, without, decisions[2], 51.0, 0.5)
    assert tally(store) == [1.0, 0.5, 0.25], "what comes now counts at once"
    restarted = Maturity(store)
    for second in range(52, 72):
        assert tally(store) == [1.0, 0.5, 0.25], "it is not due yet"
        if restarted.is_due(without, NOW + second):
            assert restarted.mature(without, NOW + second) == 0, "silence means nothing"
    assert tally(store) == [2.0, 1.5, 1.25]
    matured(store, without, NOW + 1000.0)
    assert rewards(store, decisions) == [None, 1.0, 0.5]


def test_a_replica_that_never_had_a_default_counts_what_waits_when_those_that_had_are_gone(store: Store):
    routes, without = served(), served(Reward())
    other = matured(store, without, NOW)
    assert not other.is_due(without, NOW + LOOK_SECONDS - 1.0), "it costs a look now and then"
    matured(store, routes, NOW + 1.0)
    decisions = taken(routes, 1.0)
    store.commit(Batch(decisions))
    tell(store, routes, decisions[0], 2.0, 1.0)
    assert other.mature(without, NOW + LOOK_SECONDS) == 0
    assert tally(store) == []
    other.mature(without, NOW + LOOK_SECONDS + OVER)
    assert tally(store) == [1.0, 1.0, 1.0]


def test_a_route_that_gets_a_default_counts_nothing_twice(store: Store):
    routes, before = served(), served(Reward())
    decisions = taken(routes, 0.0, 1.0)
    store.commit(Batch(decisions))
    tell(store, before, decisions[0], 1.0, 1.0)
    assert isinstance(tell(store, routes, decisions[0], 2.0, 1.0), AlreadyRewarded)
    matured(store, routes, NOW + OVER + 1.0)
    assert tally(store) == [2.0, 1.25, 1.0625]


@pytest.mark.parametrize(("window", "default"), [(WINDOW, 0.5), (10.0, 0.5), (600.0, 0.5)])
def test_what_counts_is_what_the_configuration_of_then_says(store: Store, window: float, default: float):
    routes, after = served(), served(Reward(window_seconds=window, default=default))
    decisions = taken(routes, 0.0, 100.0, 101.0)
    store.commit(Batch(decisions))
    maturity = matured(store, routes, NOW + OVER)  # the first has counted
    tell(store, routes, decisions[1], 102.0, 1.0)
    walk(maturity, after, NOW + 1000.0)
    assert rewards(store, decisions) == [0.25, 1.0, default]
    assert tally(store) == [3.0, 1.25 + default, 1.0625 + default**2]


def test_a_longer_window_finds_what_a_shorter_one_has_walked_over(store: Store):
    short, without, long = served(), served(Reward()), served(Reward(window_seconds=600.0, default=0.0))
    decisions = taken(short, 100.0)
    maturity = matured(store, short, NOW)
    maturity.mature(without, NOW + 1.0)
    store.commit(Batch(decisions))
    walk(maturity, without, NOW + 100.0 + OVER)
    mark = mark_of(store, "credit")
    assert mark is not None
    assert mark.after == decisions[0].id
    maturity.mature(long, NOW + 200.0)
    assert isinstance(tell(store, long, decisions[0], 210.0, 1.0), Counted)
    matured(store, long, NOW + 100.0 + 600.0 + GRACE_SECONDS)
    assert rewards(store, decisions) == [1.0]


settings_of = st.sampled_from(
    [
        Reward(),
        Reward(corrections="replace"),
        Reward(window_seconds=20.0),
        *(
            Reward(window_seconds=window, default=0.25, corrections=corrections)
            for window in (20.0, 60.0)
            for corrections in ("refuse", "replace")
        ),
    ]
)
eighths = st.integers(0, 8).map(lambda k: k / 8)  # whose sums and squares are exact
steps = st.one_of(
    st.tuples(st.just("reload"), st.integers(0, 1), settings_of),
    st.tuples(st.just("take"), st.integers(0, 1), st.just(0.0)),
    st.tuples(st.just("tell"), st.integers(0, 7), eighths),
    st.tuples(st.just("walk"), st.integers(0, 1), st.just(0.0)),
    st.tuples(st.just("wait"), st.integers(1, 40), st.just(0.0)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=40))
def test_whatever_is_configured_meanwhile_the_sums_are_those_of_the_log_and_what_was_acknowledged_counts(told: Any):
    store, now = MemoryStore(), NOW
    known = {reward: served(reward) for reward in (SILENT, Reward())}
    served_by = [SILENT, SILENT]
    replicas = [Maturity(store), Maturity(store)]
    decisions: list[Decision] = []
    said: dict[str, set[float]] = {}
    for replica in replicas:
        replica.mature(known[SILENT], now)
    for what, k, value in told:
        if what == "wait":
            now += k
        elif what == "reload":
            served_by[k] = value
            known.setdefault(value, served(value))
            replicas[k].mature(known[value], now)  # a cycle does it before long
        elif what == "walk":
            replicas[k].mature(known[served_by[k]], now)
        elif what == "take":
            decisions.append(taken(known[SILENT], now - NOW + 0.001 * len(decisions))[0])
            store.commit(Batch(decisions[-1:]))
        elif k < len(decisions):
            by = known[served_by[len(said) % 2]]
            verdict = tell(store, by, decisions[k], now - NOW, value)
            if isinstance(verdict, Counted):
                said.setdefault(decisions[k].id, set()).add(value)
    for _ in range(4):
        now += 100.0
        for replica, reward in zip(replicas, served_by, strict=True):
            walk(replica, known[reward], now)
    values = dict(zip([each.id for each in decisions], rewards(store, decisions), strict=True))
    for id, acknowledged in said.items():
        assert values[id] in acknowledged
    earned = [value for value in values.values() if value is not None]
    assert tally(store) == ([len(earned), sum(earned), sum(v * v for v in earned)] if earned else [])
