"""Policies are fitted to what is known, and what is known is shown."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from router.call import Decision
from router.config import EpsilonGreedyPolicy, Guard, Reward, SplitPolicy, ThompsonPolicy
from tests.router.bench import Bench, Open, p_of, running, until
from tests.router.fakes import (
    FakeClock,
    FakeUpstream,
    FlakyStore,
    HeldStore,
    call_of,
    make_route,
    settled,
)

pytestmark = pytest.mark.anyio

# -------------------------------------------------------------------------------------------------------- learning


async def test_while_nothing_was_committed_nothing_is_read():
    store = FlakyStore()
    async with running(store) as bench:
        await settled(bench.learner)
        await until(lambda: bench.learner._fitter._seen == [store.version(), 0])
        before, refreshed = store.asked, bench.learner._refreshed
        await until(lambda: bench.learner._refreshed > refreshed + 0.03)
        assert store.asked == before


async def test_the_arm_that_earns_more_is_chosen_more(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        assert p_of(bench.route) == pytest.approx([0.5, 0.5])
        before = bench.route.version
        decisions = [bench.decided() for _ in range(60)]
        await bench.learner.journal.feedback([bench.reward(d, float(d.arm == "a")) for d in decisions])
        await settled(bench.learner)
        assert p_of(bench.route)[0] > 0.999
        assert bench.route.version != before
        assert bench.decide().policy_version == bench.route.version


async def test_replicas_over_one_store_come_to_the_same_policy(open_store: Open):
    clock = FakeClock()
    policy = ThompsonPolicy()
    async with running(open_store(), clock, policy=policy) as one, running(open_store(), clock, policy=policy) as other:
        for bench, value in ((one, 1.0), (other, 0.25)):
            clock.advance(1)  # so that the two do not give the same ids
            decisions = [bench.decided() for _ in range(10)]
            await bench.learner.journal.feedback([bench.reward(decision, value) for decision in decisions])
        await settled(one.learner)
        await settled(other.learner)
        assert one.route.version == other.route.version != "nothing"
        assert p_of(one.route) == p_of(other.route)


async def test_a_route_is_fitted_to_what_the_store_knows_before_it_is_served(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        decision = bench.decided()
        await bench.earn(decision, 1.0)
        await settled(bench.learner)
        learnt = bench.route
        fresh = bench.serve(policy=ThompsonPolicy())
        fitted = await bench.learner.fit(fresh)
        assert fitted.version == learnt.version
        assert p_of(fitted) == p_of(learnt)
        assert await bench.learner.fit(fitted) is fitted, "there is nothing new"


async def test_another_policy_over_the_same_sums_takes_them_over(open_store: Open):
    async with running(open_store(), policy=SplitPolicy()) as bench:
        decisions = [bench.decided() for _ in range(40)]
        await bench.learner.journal.feedback([bench.reward(d, float(d.arm == "b")) for d in decisions])
        greedy = await bench.learner.fit(bench.serve(policy=EpsilonGreedyPolicy(epsilon=0.1)))
        assert p_of(greedy) == pytest.approx([0.05, 0.95])


async def test_another_range_of_rewards_starts_clean(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        decisions = [bench.decided() for _ in range(40)]
        await bench.learner.journal.feedback([bench.reward(d, float(d.arm == "b")) for d in decisions])
        wider = await bench.learner.fit(bench.serve(policy=ThompsonPolicy(), reward=Reward(low=0.0, high=2.0)))
        assert p_of(wider) == pytest.approx([0.5, 0.5])
        again = await bench.learner.fit(bench.serve(policy=ThompsonPolicy()))
        assert p_of(again)[1] > 0.99, "and the old sums are still there"


async def test_a_new_arm_knows_nothing_and_an_old_one_what_it_knew(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        decisions = [bench.decided() for _ in range(40)]
        await bench.learner.journal.feedback([bench.reward(d, float(d.arm == "b")) for d in decisions])
        upstreams = {"c": FakeUpstream(), "b": FakeUpstream()}
        route = make_route(bench.routes, bench.learner.journal, upstreams, clock=bench.clock, policy=ThompsonPolicy())
        new, old = p_of(await bench.learner.fit(route))
        assert new < 0.1
        assert old > 0.9


async def test_a_fit_that_was_under_way_does_not_undo_a_reload():
    store = HeldStore("sums")
    async with running(store, policy=ThompsonPolicy()) as bench:
        store.keep()
        bench.decided()
        await until(store.kept.is_set)
        reloaded = bench.serve(policy=SplitPolicy(weights={"a": 3.0, "b": 1.0}))
        store.free.set()
        await bench.learner.journal.feedback([])  # answered by the cycle after that fit, which has not fitted yet
        assert bench.route.policy is reloaded.policy
        assert p_of(bench.route) == [0.75, 0.25]


async def test_a_fit_that_was_under_way_does_not_undo_what_the_guard_said():
    store = HeldStore("sums")
    async with running(store, policy=ThompsonPolicy(), guard=Guard(failures=1)) as bench:
        store.keep()
        decision = bench.decided()
        earned = asyncio.create_task(bench.earn(decision))
        await until(store.kept.is_set)
        before = bench.route.version
        bench.route.guard.failed(0, probe=False)
        bench.routes.guard_changed("credit")
        store.free.set()
        await earned
        await settled(bench.learner)
        assert bench.route.version != before
        assert bench.route.allowed.tolist() == [False, True]
        assert p_of(bench.route) == [0.0, 1.0]


async def test_arms_that_were_left_out_are_let_in_to_be_probed(open_store: Open):
    async with running(open_store(), guard=Guard(failures=1, seconds=10.0)) as bench:
        bench.route.guard.failed(0, probe=False)
        bench.routes.guard_changed("credit")
        await settled(bench.learner)
        assert bench.route.allowed.tolist() == [False, True]
        bench.clock.advance(10.0)
        await settled(bench.learner)
        assert bench.route.allowed.tolist() == [True, True]


async def test_a_route_writes_its_decisions_down_and_learns_from_them(open_store: Open):
    """The pieces together: a call, its decision, its reward, and the policy that follows."""
    async with running(open_store(), policy=EpsilonGreedyPolicy(epsilon=0.0), strict_log=True) as bench:
        for _ in range(20):
            reply = await bench.route(call_of("credit"))
            id, arm = reply.metadata[0][1].decode(), reply.metadata[1][1].decode()
            assert bench.store.find([id])[id].arm == arm
            outcome = await bench.earn(id, 0.9 if arm == "b" else 0.1)
            assert isinstance(outcome, Decision)
            await settled(bench.learner)
        assert p_of(bench.route) == [0.0, 1.0]


# --------------------------------------------------------------------------------------------------------- metrics


async def test_what_operators_see(open_store: Open):
    async with running(open_store(), reward=Reward(low=0.0, high=10.0), policy=ThompsonPolicy()) as bench:
        decisions = [bench.decided() for _ in range(30)]
        arms = {arm: [d for d in decisions if d.arm == arm] for arm in "ab"}
        await bench.learner.journal.feedback([bench.reward(d, 4.0) for d in arms["a"]] + [bench.reward("nobody", 4.0)])
        await bench.learner.journal.feedback([bench.reward(d, 4.0) for d in arms["a"]])
        await settled(bench.learner)
        a, b = {"route": "credit", "arm": "a"}, {"route": "credit", "arm": "b"}
        assert bench.metric("croupier_decisions_total", **a) == len(arms["a"])
        assert bench.metric("croupier_decisions_total", **b) == len(arms["b"])
        assert bench.metric("croupier_rewards_total", **a) == len(arms["a"]), "once each"
        assert bench.metric("croupier_rewards_total", **b) is None
        assert bench.metric("croupier_mean_reward", **a) == 4.0
        p = p_of(bench.route)
        assert [bench.metric("croupier_arm_probability", **each) for each in (a, b)] == p


async def test_a_route_whose_arms_are_all_switched_off_goes_on_learning():
    async with running(FlakyStore()) as bench:
        decision = bench.decided()
        for arm in "ab":
            bench.switch(arm, "off")
        await until(lambda: not bench.route.allowed.any())
        assert await bench.earn(decision) == decision
        await settled(bench.learner)
        assert not bench.metric("croupier_store_errors_total")
        assert bench.metric("croupier_arm_probability", route="credit", arm="a") == 0.0


async def test_a_fit_does_not_take_back_what_a_look_has_just_put_in_force():
    bench = Bench(FlakyStore())
    bench.serve(policy=ThompsonPolicy())
    bench.switch("b", "off")
    learner = bench.learner
    both = asyncio.gather(learner.look(), learner._change(lambda: learner._fitter.refit(bench.routes.current)))
    await asyncio.sleep(0)
    learner._thread.submit(int).result()  # what they have asked of the thread is done, and they do not know it yet
    await both
    assert bench.route.allowed.tolist() == [True, False]
    learner.close()


async def test_the_lag_is_the_age_of_the_oldest_decision_that_waits():
    store = FlakyStore()
    async with running(store) as bench:
        store.down = True
        bench.decided()
        bench.clock.advance(5)
        bench.decided()
        await until(lambda: bench.metric("croupier_learner_lag_seconds") == 5)
        assert bench.metric("croupier_decisions_waiting") == 2
        store.down = False
        await settled(bench.learner)
        assert bench.metric("croupier_learner_lag_seconds") == 0
        assert bench.metric("croupier_decisions_waiting") == 0


async def test_an_answer_of_an_older_route_is_written_down_as_it_was_made(open_store: Open):
    async with running(open_store(), strict_log=True) as bench:
        older = replace(bench.route, version="older")
        reply = await older(call_of("credit"))
        id = reply.metadata[0][1].decode()
        assert bench.store.find([id])[id].policy_version == "older"
