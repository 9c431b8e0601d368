from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from bandits import HalfLife
from router.call import Add, Batch, Decision, Feedback
from router.config import EpsilonGreedyPolicy, Reward, SplitPolicy, ThompsonPolicy
from router.config import Route as Settings
from router.config.learning import WarmStart
from router.learning.counting import count
from router.learning.fits import AGAIN_SECONDS, MOST, Fits
from router.learning.fitter import STALE_SECONDS, Fitter
from router.learning.fitting import fit_of, fitted, learnt, policy_layout
from router.learning.settings_json import settings_json, settings_of
from router.metrics import Metrics
from router.route import Route, Routes
from router.safety.switches import ROUTE
from router.stores.memory import MemoryStore
from tests.router.bench import Open, p_of, running, until
from tests.router.fakes import NOW, FakeClock, FakeLog, FakeUpstream, call_of, make_route, settled

pytestmark = pytest.mark.anyio

HOUR = 3600.0


def served(**told: Any) -> Route:
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
    return fitted(make_route(Routes(), FakeLog(), upstreams, clock=FakeClock(), **told), {}, NOW)


def rewarded(store: MemoryStore, route: Route, *rewards: tuple[str, float, float, float]) -> None:
    """Decisions of these arms and times, with these rewards, told at these times."""
    known = len(list(store.log(route.name)))
    for k, (arm, taken, value, told) in enumerate(rewards):
        decision = Decision(f"{known + k:032x}", route.name, arm, 0.5, taken, route.version)
        count(store, {route.name: route}, Batch([decision]), [Feedback(decision.id, told, value)])


# -------------------------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": {"kind": "epsilon_greedy"}},  # whose plays may be endless
        {"policy": {"kind": "epsilon_greedy", "constant_plays": 100}},
        {"policy": {"kind": "split", "weights": {"b": 1, "a": 3}}, "floor": 0.01},
        {"policy": {"kind": "thompson"}, "half_life_seconds": 3600, "champion": "b"},
        {"policy": {"kind": "linucb"}, "context": {"x": {"parameter": "x"}, "y": {"metadata": "y", "levels": ["u"]}}},
        {"reward": {"low": -1, "window_seconds": 60, "default": 0, "score": {"kind": "pnl", "cost": 0.1}}},
        {"rules": [{"name": "day", "when": "hour > 8", "only": ["a"]}], "timezone": "Europe/Zurich"},
    ],
)
def test_settings_are_written_down_and_read_again_as_they_were(settings: dict[str, Any]):
    told = msgspec.convert({"arms": {"b": {"model": "m"}, "a": {"model": "m"}}, **settings}, Settings)
    again = settings_of(settings_json(told))
    assert again == told
    assert list(again.arms) == ["b", "a"]
    assert settings_json(again) == settings_json(told)


def test_what_arms_are_asked_with_is_not_written_down():
    secret = {"model": "m", "target": "h:1", "headers": {"authorization": "Bearer secret"}}
    together = {"ensemble": {"members": {"x": 1}, "arms": {"x": secret}}}
    text = settings_json(msgspec.convert({"arms": {"a": secret, "b": together}}, Settings))
    assert "secret" not in text
    assert list(settings_of(text).arms) == ["a", "b"]


# --------------------------------------------------------------------------------------------------------- versions


def test_a_version_says_all_that_a_decision_was_taken_by():
    versions = [
        served(**told).version
        for told in (
            {},
            {"salt": "2"},
            {"sticky": True},
            {"policy": ThompsonPolicy()},
            {"policy": ThompsonPolicy(alpha=2.0)},
            {"policy": SplitPolicy(weights={"a": 2.0, "b": 1.0})},
            {"reward": Reward(high=2.0)},
            {"half_life_seconds": HOUR},
            {"floor": 0.1},
            {"apprentice": True},
        )
    ]
    assert len(set(versions)) == len(versions)
    assert served().version == versions[0]


def test_a_version_changes_with_what_is_known_and_only_then():
    store, route = MemoryStore(), served(policy=ThompsonPolicy())
    assert fitted(route, store.sums("credit"), NOW + 1e6) is route
    rewarded(store, route, ("a", NOW, 1.0, NOW))
    knows = fitted(route, store.sums("credit"), NOW)
    assert knows.version != route.version
    assert knows.sums.tolist() == [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    assert knows.version.partition("-")[0] == route.version.partition("-")[0], "it learns as before"


# -------------------------------------------------------------------------------------------------------- half-life


def test_a_reward_counts_half_after_each_half_life_since_its_decision():
    store, route = MemoryStore(), served(policy=EpsilonGreedyPolicy(), half_life_seconds=HOUR)
    rewarded(store, route, ("a", NOW, 1.0, NOW), ("b", NOW - HOUR, 0.5, NOW), ("a", NOW - 2 * HOUR, 1.0, NOW))
    for hours in (0, 1, 40, 90):  # an era has 32
        known = learnt(route, store.sums("credit"), NOW + hours * HOUR)
        weight = 2.0**-hours
        expected = np.array([[1.25, 1.25, 1.25], [0.5, 0.25, 0.125]]) * weight
        # `now` is rounded down to a 64th of a half-life.
        assert np.allclose(known, expected, rtol=2 ** (1 / 64) - 1 + 1e-9)


def test_what_was_learnt_is_that_of_the_bandits_library():
    store, route = MemoryStore(), served(policy=ThompsonPolicy(), half_life_seconds=10.0)
    rng, half_life = np.random.default_rng(3), HalfLife(10.0)
    eras: dict[int, Any] = {}
    for _ in range(60):
        arm, time, value = int(rng.integers(2)), NOW - float(rng.uniform(0, 900)), float(rng.random())
        rewarded(store, route, ("ab"[arm], time, value, NOW))
        rows = eras.setdefault(half_life.era(time), np.zeros((2, 3)))
        rows[arm] += half_life.weight(time) * route.policy.delta(value, None, 0.5)
    step = 10.0 / 64
    assert np.allclose(learnt(route, store.sums("credit"), NOW), half_life.sums(eras, math.floor(NOW / step) * step))


def test_a_reward_from_the_future_counts_as_of_when_it_was_told_and_a_foreign_clock_raises_nothing():
    store, route = MemoryStore(), served(policy=ThompsonPolicy(), half_life_seconds=HOUR)
    rewarded(store, route, ("a", NOW + 10 * HOUR, 1.0, NOW))
    assert learnt(route, store.sums("credit"), NOW)[0, 0] == pytest.approx(1.0, rel=0.02)
    rewarded(store, route, ("b", NOW + 1e6 * HOUR, 1.0, NOW + 1e6 * HOUR))
    known = learnt(route, store.sums("credit"), NOW)
    assert known[1].tolist() == [0.0, 0.0, 0.0], "its time has not come"
    assert learnt(route, store.sums("credit"), NOW + 1e6 * HOUR)[1, 0] == pytest.approx(1.0, rel=0.02)


def test_another_half_life_starts_clean():
    one, other = served(half_life_seconds=HOUR), served(half_life_seconds=2 * HOUR)
    assert len({policy_layout(one), policy_layout(other), policy_layout(served())}) == 3


async def test_what_is_learnt_ages_though_nothing_is_committed(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy(), half_life_seconds=HOUR) as bench:
        decisions = [bench.decided() for _ in range(40)]
        await bench.tell([bench.reward(each, float(each.arm == "b")) for each in decisions])
        await settled(bench.learner)
        sure = p_of(bench.route)
        bench.clock.advance(10 * HOUR)
        await settled(bench.learner)
        doubtful = p_of(bench.route)
        assert sure[1] > 0.99
        assert doubtful == pytest.approx([0.5, 0.5], abs=0.05)


# ------------------------------------------------------------------------------------------------------------- fits


async def test_the_first_decision_that_names_a_version_brings_what_it_knew(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        bench.routes.publish(await bench.learner.fit(bench.route))
        first = bench.decided()
        await bench.earn(first, 1.0)
        await settled(bench.learner)
        second = bench.decided()
        await settled(bench.learner)
        assert first.policy_version != second.policy_version
        for decision in (first, second):
            fit = bench.store.fit("credit", decision.policy_version)
            assert fit is not None
            assert settings_of(fit.settings) == bench.route.settings
            policy = settings_of(fit.settings).build_policy()
            p = policy.fit(fit.sums)(None, np.ones(2, dtype=bool))
            assert tuple(p.tolist()) == decision.probabilities


async def test_a_fit_that_could_not_be_written_is_written_later():
    fitter = Fitter(MemoryStore(), Metrics(CollectorRegistry()), FakeClock())
    route = fitter.fit(replace(served(), version=""))
    decision = route.decide(call_of("credit"))[0]
    assert [fit.version for fit in fitter.fits.named_by([decision])] == [route.version]
    fits = fitter.fits.named_by([decision])
    assert fits == fitter.fits.named_by([decision, decision]), "until it is heard that they are there"
    fitter.fits.written(fits)
    assert fitter.fits.named_by([decision]) == []


async def test_a_fit_that_stays_in_force_is_written_again_for_the_log_may_have_been_pruned_meanwhile():
    store, clock = MemoryStore(), FakeClock()
    fitter = Fitter(store, Metrics(CollectorRegistry()), clock)
    route = fitter.fit(replace(served(), version=""))

    def decides() -> Decision:
        decision = route.decide(call_of("credit"))[0]
        fits = fitter.fits.named_by([decision])
        store.commit(Batch([decision], fits=fits))
        fitter.fits.written(fits)
        return decision

    decides()
    store.commit(Batch(fits=[fit_of(replace(route, version="of another replica"), NOW)]))
    clock.advance(60.0)
    store.prune("credit", before=clock())
    assert store.fit("credit", route.version) is None
    decides()
    assert store.fit("credit", route.version)
    assert fitter.fits.named_by([route.decide(call_of("credit"))[0]]) == [], "not with each"
    clock.advance(AGAIN_SECONDS)
    assert fitter.fits.named_by([route.decide(call_of("credit"))[0]])


async def test_a_call_that_took_long_does_not_take_the_place_of_the_fit_in_force():
    clock = FakeClock()
    fits = Fits(clock)
    older, newer = (fit_of(replace(served(), version=version), NOW) for version in ("1", "2"))
    for fit in older, newer:
        fits.note(fit)
    fits.written([newer])
    fits.written([older])
    clock.advance(AGAIN_SECONDS)
    decision = Decision("d", "credit", "a", 0.5, NOW, "2")
    assert fits.named_by([decision]) == [newer]


async def test_a_route_that_learns_much_does_not_take_the_fits_of_the_others():
    fits = Fits(FakeClock())
    quiet, busy = (fit_of(replace(served(), name=name, version="1"), NOW) for name in ("quiet", "busy"))
    fits.note(quiet)
    for n in range(2 * MOST):
        fits.note(replace(busy, version=str(n)))
    assert fits.get("quiet", "1") is quiet
    assert fits.get("busy", str(MOST - 1)) is None


async def test_fits_that_nobody_names_are_forgotten():
    store = MemoryStore()
    fitter = Fitter(store, Metrics(CollectorRegistry()), FakeClock())
    route = first = fitter.fit(replace(served(policy=ThompsonPolicy()), version=""))
    for _ in range(MOST):
        store.commit(Batch(adds=[Add("credit", policy_layout(route), "a", np.array([1.0, 1.0, 1.0]))]))
        route = fitter.fit(route)
    assert fitter.fits.named_by([first.decide(call_of("credit"))[0]]) == []
    assert len(fitter.fits.named_by([route.decide(call_of("credit"))[0]])) == 1


async def test_a_route_that_knows_much_is_fitted_again_when_it_knows_noticeably_more_or_after_a_while():
    store, clock = MemoryStore(), FakeClock()
    fitter = Fitter(store, Metrics(CollectorRegistry()), clock)
    route = served(policy=ThompsonPolicy())

    def learn(n: float) -> int:
        """Adds as many rewards, and says whether that made a new version."""
        nonlocal route
        store.commit(Batch(adds=[Add("credit", policy_layout(route), "a", np.array([n, n / 2, n / 2]))]))
        before = route.version
        for known in fitter.refit({"credit": route}):
            route = known
        return route.version != before

    assert [learn(1), learn(1), learn(10_000)] == [True] * 3
    assert [learn(2), learn(2)] == [False] * 2
    assert route.sums[0, 0] == 10_002
    assert learn(5)
    assert route.sums[0, 0] == 10_011
    assert not learn(1)
    clock.advance(STALE_SECONDS)
    assert fitter.refit({"credit": route})[0].sums[0, 0] == 10_012, "though nothing was committed since"


async def test_a_route_that_cannot_be_fitted_does_not_keep_the_others_from_it(caplog: pytest.LogCaptureFixture):
    store, routes = MemoryStore(), Routes()
    fitter = Fitter(store, Metrics(CollectorRegistry()), FakeClock())
    upstreams = {"a": FakeUpstream(), "b": FakeUpstream()}
    for name in ("broken", "whole"):
        route = make_route(routes, FakeLog(), upstreams, clock=FakeClock(), name=name, policy=ThompsonPolicy())
        row = np.array([-1.0, 1.0, 1.0]) if name == "broken" else np.array([1.0, 1.0, 1.0])
        store.commit(Batch(adds=[Add(name, policy_layout(route), "a", row)]))
    assert [route.name for route in fitter.refit(routes.current)] == ["whole"]
    assert "route broken cannot be fitted" in caplog.text


async def test_a_frozen_route_serves_what_it_knew_and_knows_everything_when_it_is_thawed(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        await settled(bench.learner)
        before = bench.route.version
        bench.switch(ROUTE, "frozen", version=before)
        await until(lambda: bench.route.frozen)
        decisions = [bench.decided() for _ in range(20)]
        await bench.tell([bench.reward(each) for each in decisions])
        await settled(bench.learner)
        assert bench.route.version == before
        bench.switch(ROUTE, "on")
        await until(lambda: not bench.route.frozen)
        await settled(bench.learner)
        assert bench.route.sums[:, 0].sum() == 20


async def test_a_warm_start_is_added_to_what_is_learnt(open_store: Open):
    async with running(open_store(), policy=ThompsonPolicy()) as bench:
        await bench.tell([bench.reward(bench.decided(), 1.0) for _ in range(10)])
        new = bench.serve("new", policy=ThompsonPolicy(), warm_start=WarmStart(route="credit", weight=0.5))
        known = await bench.learner.fit(new)
        assert known.sums[:, 0].sum() == 5.0
        assert (await bench.learner.fit(known)) is known
