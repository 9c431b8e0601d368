"""What is acknowledged is kept and counted once, whatever becomes of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from protos.errors import Code, Fault, ResourceExhausted
from router.call import REWARD, Add, Batch, Decision, Outcome
from router.config import Metric, Reward, ThompsonPolicy
from router.errors import AlreadyRewarded, BadReward, NotRecorded, NotServed, UnknownDecision
from router.learning import journal, outage
from router.learning.credit import metric_layout
from router.learning.fitting import policy_layout
from router.learning.journal import GRACE_SECONDS
from router.stores import DECISIONS, StoreError
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore
from tests.router.bench import Bench, Open, running, until
from tests.router.fakes import (
    NOW,
    SOON,
    FlakyStore,
    HeldStore,
    learning,
    settled,
)

pytestmark = pytest.mark.anyio

# ------------------------------------------------------------------------------------------------- what is written


async def test_a_reward_adds_its_row_its_tally_and_its_metrics(open_store: Open):
    metrics = {"pnl": Metric(unit="GBP"), "cost": Metric(unit="GBP")}
    async with running(open_store(), reward=Reward(low=-1.0, high=3.0), metrics=metrics) as bench:
        decision = bench.decided()
        assert await bench.earn(decision, 2.0, metrics={"pnl": -5.0}, truth=0.75) == decision
        assert bench.sums() == {
            (DECISIONS, decision.arm): [1.0],
            (policy_layout(bench.route), decision.arm): [1.0, 0.75, 0.5625],  # of the way from low to high
            (REWARD, decision.arm): [1.0, 2.0, 4.0],
            (metric_layout("pnl"), decision.arm): [1.0, -5.0, 25.0],
        }
        kept = bench.store.outcomes([decision.id])[decision.id]
        values = {"reward": 2.0, "pnl": -5.0, "truth": 0.75}
        assert kept == {name: Outcome(decision.id, name, value, NOW) for name, value in values.items()}
        assert bench.store.find([decision.id]) == {decision.id: decision}


@pytest.mark.parametrize("value", [-1.0, 3.0])
async def test_the_ends_of_the_range_are_in_it(open_store: Open, value: float):
    async with running(open_store(), reward=Reward(low=-1.0, high=3.0)) as bench:
        decision = bench.decided()
        assert await bench.earn(decision, value) == decision
        assert bench.sums()[policy_layout(bench.route), decision.arm][1] == (value + 1) / 4


async def test_what_is_acknowledged_survives_whoever_acknowledged_it(tmp_path: Path):
    path = str(tmp_path / "store.db")
    async with running(SQLiteStore(path)) as bench:
        decisions = [bench.decided() for _ in range(5)]
        await bench.learner.journal.feedback([bench.reward(decision) for decision in decisions])
        store = SQLiteStore(path)  # another process, at the moment of the acknowledgement
        assert store.outcomes([d.id for d in decisions]).keys() == {d.id for d in decisions}
        store.close()


async def test_decisions_are_committed_without_anybody_asking(open_store: Open):
    async with running(open_store()) as bench:
        decision = bench.decided()
        await until(lambda: bool(bench.store.find([decision.id])))


async def test_who_waits_for_the_commit_gets_it_at_once(open_store: Open):
    bench = Bench(open_store())
    bench.learner._flush_seconds = 1000
    bench.serve()
    async with learning(bench.learner):
        decision = bench.decide()
        await asyncio.wait_for(bench.learner.journal.committed(decision), SOON)
        assert bench.store.find([decision.id])
        assert await bench.earn(decision) == decision
    bench.learner.close()


async def test_what_comes_together_is_committed_together():
    store = FlakyStore()
    async with running(store) as bench:
        decisions = [bench.decided() for _ in range(100)]
        await settled(bench.learner)
        before = store.commits
        await asyncio.gather(*(bench.earn(decision) for decision in decisions))
        assert store.commits - before <= 2
        assert sum(row[0] for (layout, _), row in bench.sums().items() if layout == REWARD) == 100


# ---------------------------------------------------------------------------------------------------------- once


async def test_a_reward_counts_once_however_often_it_is_sent(open_store: Open):
    async with running(open_store()) as bench:
        decision = bench.decided()
        assert await bench.earn(decision, 0.25) == decision
        before = bench.sums()
        for value in (0.25, 1.0):
            outcome = await bench.earn(decision, value)
            assert isinstance(outcome, AlreadyRewarded)
            assert (outcome.code, outcome.fault) == (Code.ALREADY_EXISTS, Fault.CLIENT)
        assert bench.sums() == before


async def test_within_a_batch_the_first_counts(open_store: Open):
    async with running(open_store()) as bench:
        one, two = bench.decided(), bench.decided()
        rewards = [bench.reward(one, 0.25), bench.reward(two, 0.5), bench.reward(one, 1.0)]
        outcomes = await bench.tell(rewards)
        assert outcomes[:2] == [one, two]
        assert isinstance(outcomes[2], AlreadyRewarded)
        total = sum(row[1] for (layout, _), row in bench.sums().items() if layout == REWARD)
        assert total == 0.75


async def test_of_many_who_send_one_reward_one_is_told_that_it_counted(open_store: Open):
    async with running(open_store()) as bench:
        decision = bench.decided()
        outcomes = await asyncio.gather(*(bench.earn(decision) for _ in range(20)))
        assert [outcome for outcome in outcomes if isinstance(outcome, Decision)] == [decision]
        assert sum(isinstance(outcome, AlreadyRewarded) for outcome in outcomes) == 19


async def test_of_two_replicas_that_are_sent_one_reward_one_counts_it(open_store: Open):
    async with running(open_store()) as one, running(open_store()) as other:
        decision = one.decide()
        await one.learner.journal.committed(decision)
        outcomes = await asyncio.gather(one.earn(decision), other.earn(decision))
        assert sorted(isinstance(outcome, Decision) for outcome in outcomes) == [False, True]
        assert one.sums()[REWARD, decision.arm] == [1.0, 1.0, 1.0]


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("id", ["", "nobody", "0" * 32, "é\0", f"{int(NOW * 1000) - 60_000:012x}{'0' * 20}"])
async def test_a_reward_for_nobodys_decision_is_refused(open_store: Open, id: str):
    async with running(open_store()) as bench:
        outcome = await bench.earn(id)
        assert isinstance(outcome, UnknownDecision)
        assert outcome.code is Code.NOT_FOUND
        assert bench.sums() == {}


async def test_a_reward_that_came_before_its_decision_counts_when_it_is_sent_again_after_it(open_store: Open):
    async with running(open_store()) as cut_off, running(open_store()) as other:
        decision = cut_off.decide()
        other.clock.advance(GRACE_SECONDS)
        reward = other.reward(decision)
        assert [type(told) for told in await other.tell([reward])] == [UnknownDecision]
        cut_off.learner.journal.record(decision)
        await settled(cut_off.learner)
        assert await other.tell([reward]) == [decision]
        assert [type(told) for told in await other.tell([reward])] == [AlreadyRewarded]


async def test_a_decision_that_another_replica_is_about_to_commit_is_waited_for(open_store: Open):
    store = FlakyStore(open_store())
    async with running(store) as bench:
        decision = bench.decide()  # by another replica, that has not committed it yet
        earned = asyncio.create_task(bench.earn(decision))
        await until(lambda: store.commits > 1)
        assert not earned.done()
        store.inner.commit(Batch([decision]))
        assert await earned == decision
        assert bench.sums()[REWARD, decision.arm] == [1.0, 1.0, 1.0]


async def test_while_one_of_a_batch_is_waited_for_the_others_count_once(open_store: Open):
    store = FlakyStore(open_store())
    async with running(store) as bench:
        mine, theirs = bench.decided(), bench.decide()
        rewards = [bench.reward("nobody"), bench.reward(theirs, 0.5), bench.reward(mine, 0.25)]
        earned = asyncio.create_task(bench.tell(rewards))
        await until(lambda: store.commits > 1)
        store.inner.commit(Batch([theirs]))
        unknown, *counted = await asyncio.wait_for(earned, SOON)
        assert isinstance(unknown, UnknownDecision)
        assert counted == [theirs, mine]


async def test_nobody_waits_for_a_decision_that_never_comes(open_store: Open):
    store = FlakyStore(open_store())
    async with running(store) as bench:
        earned = asyncio.create_task(bench.earn(bench.decide()))
        await until(lambda: store.commits > 1)
        bench.clock.advance(GRACE_SECONDS)
        outcome = await earned
        assert isinstance(outcome, UnknownDecision)
        assert "cut off from the store may yet bring it: then send this again" in outcome.message


@pytest.mark.parametrize("value", [-0.001, 1.001, float("nan"), float("inf"), float("-inf")])
async def test_a_reward_outside_the_range_is_refused_and_may_be_sent_again(open_store: Open, value: float):
    async with running(open_store()) as bench:
        decision = bench.decided()
        outcome = await bench.earn(decision, value)
        assert isinstance(outcome, BadReward)
        assert outcome.code is Code.INVALID_ARGUMENT
        assert "reward: route 'credit' takes 0.0 to 1.0" in outcome.message
        assert repr(value) not in outcome.message, "rewards are private"
        assert await bench.earn(decision, 1.0) == decision


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"metrics": {"profit": 1.0}}, "metrics: route 'credit' declares pnl, not 'profit'"),
        ({"metrics": {"pnl": float("nan")}}, "metrics: pnl must be a number from -1e+100 to 1e+100"),
        ({"metrics": {"pnl": float("inf")}}, "metrics: pnl must be a number"),
        ({"metrics": {"pnl": -1e200}}, "metrics: pnl must be a number"),
        ({"truth": float("nan")}, "truth: must be a number from -1e+100 to 1e+100"),
    ],
)
async def test_what_comes_beside_a_reward_is_checked(open_store: Open, more: Mapping, sentence: str):
    async with running(open_store(), metrics={"pnl": Metric(unit="GBP")}) as bench:
        decision = bench.decided()
        outcome = await bench.earn(decision, **more)
        assert isinstance(outcome, BadReward)
        assert sentence in outcome.message
        assert [layout for layout, _ in bench.sums()] == [DECISIONS], "and nothing of it was added"


async def test_a_route_without_metrics_says_so(open_store: Open):
    async with running(open_store()) as bench:
        outcome = await bench.earn(bench.decided(), metrics={"pnl": 1.0})
        assert isinstance(outcome, BadReward)
        assert "declares none, not 'pnl'" in outcome.message


async def test_a_bad_reward_does_not_spoil_its_batch(open_store: Open):
    async with running(open_store(), metrics={"pnl": Metric(unit="GBP")}) as bench:
        good, bad, worse = bench.decided(), bench.decided(), bench.decided()
        outcomes = await bench.tell(
            [bench.reward(bad, 9.0), bench.reward(good), bench.reward(worse, metrics={"pnl": 1e300}), bench.reward("x")]
        )
        assert [type(outcome) for outcome in outcomes] == [BadReward, Decision, BadReward, UnknownDecision]
        assert outcomes[1] == good


async def test_a_reward_for_a_route_that_is_served_no_more_is_refused(open_store: Open):
    async with running(open_store()) as bench:
        bench.serve("other")
        decision = bench.decided("other")
        await settled(bench.learner)
        bench.routes.current = {"credit": bench.route}
        outcome = await bench.earn(decision)
        assert isinstance(outcome, NotServed)
        assert outcome.message.startswith("route 'other' of this decision is no longer served")


async def test_a_reward_is_checked_by_the_settings_of_now(open_store: Open):
    async with running(open_store()) as bench:
        decision = bench.decided()
        await settled(bench.learner)
        bench.serve(reward=Reward(low=0.0, high=10.0))
        assert await bench.earn(decision, 5.0) == decision


async def test_nothing_is_nothing(open_store: Open):
    async with running(open_store()) as bench:
        assert await bench.learner.journal.feedback([]) == []


# -------------------------------------------------------------------------------------------- a store that is away


async def test_while_the_store_is_away_nothing_is_acknowledged_and_nothing_is_lost(open_store: Open):
    store = FlakyStore(open_store())
    async with running(store) as bench:
        store.down = True
        decisions = [bench.decided() for _ in range(10)]
        with pytest.raises(
            NotRecorded, match="nothing was recorded, send it again: the store does not answer"
        ) as refused:
            await bench.earn(decisions[0])
        assert (refused.value.code, refused.value.retry) == (Code.UNAVAILABLE, True)
        with pytest.raises(NotRecorded):
            await bench.learner.journal.committed(bench.decide())
        assert (bench.metric("croupier_store_errors_total") or 0) >= 2
        store.down = False
        assert await bench.earn(decisions[0]) == decisions[0]
        assert bench.store.find([d.id for d in decisions]).keys() == {d.id for d in decisions}
        assert sum(row[0] for (layout, _), row in bench.sums().items() if layout == REWARD) == 1


async def test_nobody_is_kept_waiting_for_a_store_that_has_been_away_for_long(monkeypatch: pytest.MonkeyPatch):
    """Whoever would wait for the next try is told at once, and it is tried all the same."""
    monkeypatch.setattr(outage, "HOLD_SECONDS", 0.0)
    monkeypatch.setattr(outage, "FIRST_RETRY_SECONDS", 0.2)
    store = FlakyStore()
    async with running(store) as bench:
        store.down = True
        decision = bench.decided()
        await until(lambda: bench.learner.outage.seconds > 0)
        await until(lambda: bool(bench.metric("croupier_store_errors_total")))
        tried = bench.metric("croupier_store_errors_total")
        with pytest.raises(NotRecorded):
            await bench.earn(decision)
        with pytest.raises(NotRecorded):
            await bench.learner.journal.committed(bench.decide())
        assert bench.metric("croupier_store_errors_total") == tried
        store.down = False
        await until(lambda: not bench.learner.outage.seconds)
        assert await bench.earn(decision) == decision


async def test_decisions_keep_their_order_while_the_store_is_away():
    store = FlakyStore()
    async with running(store) as bench:
        store.down = True
        first = [bench.decided() for _ in range(3)]
        await until(lambda: (bench.metric("croupier_store_errors_total") or 0) >= 1)
        later = [bench.decided() for _ in range(3)]
        store.down = False
        await settled(bench.learner)
    assert store.committed == first + later


async def test_learning_goes_on_after_an_error_that_nobody_expected(caplog: pytest.LogCaptureFixture):
    class Surprising(FlakyStore):
        surprise: Exception | None = None

        def version(self) -> int:
            if self.surprise:
                raise self.surprise
            return super().version()

    store = Surprising()
    async with running(store, policy=ThompsonPolicy()) as bench:
        store.surprise = ZeroDivisionError("surprise")
        decision = bench.decided()
        assert await bench.earn(decision) == decision, "what was committed is acknowledged, fitted or not"
        await until(lambda: "a cycle failed" in caplog.text)
        store.surprise = None
        before = bench.route.version
        await until(lambda: bench.route.version != before)
    assert "ZeroDivisionError" in caplog.text


async def test_the_log_of_errors_holds_no_reward(caplog: pytest.LogCaptureFixture):
    store = FlakyStore()
    async with running(store, metrics={"pnl": Metric(unit="GBP")}) as bench:
        decision = bench.decided()
        store.down = True
        with pytest.raises(NotRecorded):
            await bench.earn(decision, 0.123456, metrics={"pnl": 98765.0})
        store.down = False
    assert "a cycle failed, 1 decisions wait: the disk is full" in caplog.text
    assert "0.123456" not in caplog.text
    assert "98765" not in caplog.text


class Deaf(MemoryStore):
    """Commits, but its answer gets lost while it is `deaf`."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False

    def commit(self, batch: Batch) -> list[bool]:
        claims = super().commit(batch)
        if self.deaf:
            raise StoreError("no answer")
        return claims


@pytest.mark.parametrize("kind", [FlakyStore, Deaf])
async def test_rows_are_added_once_however_often_a_commit_fails(kind: type):
    store = kind()
    async with running(store, writer="me") as bench:

        def calls(n: float) -> Add:
            return Add("credit", "calls", "a", np.array([n]))

        store.deaf = store.down = True
        bench.learner.journal.keep([calls(1.0), calls(2.0)])
        await until(bench.fails_after_now())
        bench.learner.journal.keep([calls(4.0)])
        await until(bench.fails_after_now())
        store.deaf = store.down = False
        bench.learner.journal.keep([calls(8.0)])
        await until(lambda: bench.sums().get(("calls", "a")) == [15.0])


async def test_a_store_that_is_away_is_asked_less_often_up_to_a_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outage, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(outage, "LAST_RETRY_SECONDS", 0.01)
    store = FlakyStore()
    async with running(store) as bench:
        store.down = True
        bench.decided()
        await until(lambda: bench.learner.outage.retry_seconds == 0.01)
        await until(bench.fails_after_now())
        assert bench.learner.outage.retry_seconds == 0.01
        store.down = False
        await settled(bench.learner)
        assert bench.learner.outage.retry_seconds == 0.001


async def test_nobody_who_stops_it_waits_for_the_next_try(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(outage, "FIRST_RETRY_SECONDS", 1000.0)
    store = FlakyStore()
    bench = Bench(store)
    bench.serve()
    store.down = True
    failed = bench.fails_after_now()
    learning = asyncio.create_task(bench.learner.run())
    await until(failed)
    store.down = False
    decision = bench.decided()
    bench.learner.stop()
    await asyncio.wait_for(learning, SOON)
    assert store.committed == [decision]
    bench.learner.close()


async def test_stopping_commits_rows_too():
    bench = Bench(MemoryStore())
    bench.serve()
    bench.learner.journal.keep(adds=[Add("credit", "calls", "a", np.array([1.0]))])
    bench.learner.stop()
    await asyncio.wait_for(bench.learner.run(), SOON)
    assert bench.sums() == {("calls", "a"): [1.0]}
    bench.learner.close()


# ---------------------------------------------------------------------------------------------------------- bounds


async def test_of_too_many_decisions_the_oldest_are_given_up_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "MOST_WAITING", 10)
    bench = Bench(MemoryStore())
    bench.serve()
    decisions = [bench.decided() for _ in range(15)]
    assert [*bench.learner.journal._queue.decisions] == decisions[5:]
    assert bench.metric("croupier_decisions_dropped_total") == 5


async def test_however_long_the_store_is_away_the_queue_stays_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "MOST_WAITING", 10)
    store = HeldStore("commit")
    decisions = []
    async with running(store) as bench:
        store.down = True
        for _ in range(3):
            store.keep()
            decisions += [bench.decided() for _ in range(8)]
            await until(store.kept.is_set)  # the commit of these is on its way when the next ones come
            decisions += [bench.decided() for _ in range(8)]
            failed_again = bench.fails_after_now()
            store.free.set()
            await until(failed_again)
        store.down = False
        await settled(bench.learner)
        assert bench.metric("croupier_decisions_dropped_total") == len(decisions) - 10
    assert store.committed == decisions[-10:]


async def test_too_many_rewards_are_refused_at_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "MOST_WAITING", 3)
    bench = Bench(MemoryStore())
    bench.serve()
    waiting = [asyncio.create_task(bench.earn("nobody")) for _ in range(3)]
    await until(lambda: len(bench.learner.journal._queue.feedback) == 3)
    with pytest.raises(ResourceExhausted, match="too many rewards are waiting"):
        await bench.earn("nobody")
    async with learning(bench.learner):
        assert [type(outcome) for outcome in await asyncio.gather(*waiting)] == [UnknownDecision] * 3


async def test_a_reward_waits_for_its_decision_however_long_the_backlog_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(journal, "MOST_AT_ONCE", 10)
    store = FlakyStore()
    store.down = True
    async with running(store) as bench:
        decisions = [bench.decided() for _ in range(200)]
        bench.clock.advance(1000)
        store.down = False
        assert await bench.tell([bench.reward(decisions[-1])]) == [decisions[-1]]
        assert await bench.tell([bench.reward(decisions[0])]) == [decisions[0]]


# -------------------------------------------------------------------------------------------------------- the end


async def test_stopping_commits_what_is_there_and_answers_who_waits(open_store: Open):
    bench = Bench(open_store())
    bench.serve()
    decisions = [bench.decided() for _ in range(50)]
    earned = asyncio.create_task(bench.earn(decisions[7]))
    waiting = asyncio.create_task(bench.learner.journal.committed(bench.decide()))
    await until(lambda: bool(bench.learner.journal._queue.feedback and bench.learner.journal._queue.strict))
    bench.learner.stop()
    await asyncio.wait_for(bench.learner.run(), SOON)
    assert await earned == decisions[7]
    await waiting
    assert len(bench.store.find([decision.id for decision in decisions])) == 50
    bench.learner.close()


async def test_stopping_waits_for_decisions_alone_and_for_rewards_alone(open_store: Open):
    bench = Bench(open_store())
    bench.serve()
    bench.learner.stop()
    decisions = [bench.decided() for _ in range(3)]
    await asyncio.wait_for(bench.learner.run(), SOON)
    assert len(bench.store.find([decision.id for decision in decisions])) == 3
    earned = asyncio.create_task(bench.earn(decisions[0]))
    await until(lambda: bool(bench.learner.journal._queue.feedback))
    await asyncio.wait_for(bench.learner.run(), SOON)
    assert await earned == decisions[0]
    bench.learner.close()


async def test_stopping_with_the_store_away_ends_and_tells_who_waits():
    store = FlakyStore()
    store.down = True
    bench = Bench(store)
    bench.serve()
    earned = asyncio.create_task(bench.earn(bench.decided()))
    await until(lambda: bool(bench.learner.journal._queue.feedback))
    bench.learner.stop()
    with pytest.raises(StoreError, match="the disk is full"):
        await asyncio.wait_for(bench.learner.run(), SOON)
    with pytest.raises(NotRecorded):
        await earned


async def test_who_leaves_before_the_answer_leaves_the_others_theirs():
    store = HeldStore("commit")
    async with running(store) as bench:
        store.keep()
        one, two = bench.decided(), bench.decided()
        await until(store.kept.is_set)
        left, stayed = asyncio.create_task(bench.earn(one)), asyncio.create_task(bench.earn(two))
        strict = asyncio.create_task(bench.learner.journal.committed(bench.decide()))
        await until(
            lambda: len(bench.learner.journal._queue.feedback) == 2 and bool(bench.learner.journal._queue.strict)
        )
        left.cancel()
        strict.cancel()
        await asyncio.wait([left, strict])
        store.free.set()
        assert await stayed == two
        assert isinstance(await bench.earn(one), AlreadyRewarded), "it was counted all the same"


async def test_who_left_before_the_store_failed_does_not_keep_the_others_from_being_told():
    store = HeldStore("commit")
    async with running(store) as bench:
        learner, decision = bench.learner, bench.decided()
        await settled(learner)
        store.keep()
        left, stayed = (
            [
                asyncio.create_task(learner.journal.committed(bench.decide())),
                asyncio.create_task(learner.journal.feedback([bench.reward(decision)])),
            ]
            for _ in range(2)
        )
        await until(store.kept.is_set)
        for each in left:
            each.cancel()
        await asyncio.wait(left)
        store.down = True
        store.free.set()
        for each in stayed:
            with pytest.raises(NotRecorded):
                await asyncio.wait_for(each, SOON)
        store.down = False
