"""Reading a log: the newest decisions that fit, and what they say, against slow counts of the same."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from bandits.anytime import draw_evidence, draw_rows
from router.answers.reading import EVERY, read_study
from router.answers.study import study
from router.call import Fit
from router.config import Route as Settings
from router.config import ThompsonPolicy
from router.learning.fitting import fit_of
from router.learning.versions import Versions
from router.stores.memory import MemoryStore
from tests.router.answers.worlds import NAME, World, lived
from tests.router.fakes import NOW


@pytest.fixture(scope="module")
def world() -> World:
    return lived(2000, {"a": 0.5, "b": 0.6, "c": 0.2}, rewarded=0.7, policy=ThompsonPolicy())


def test_the_arrays_are_the_log(world: World):
    read = world.study()
    log = world.log
    assert len(read) == len(log) == 2000
    assert [read.arms[k] for k in read.chosen] == [decision.arm for decision, _ in log]
    assert read.propensities.tolist() == [decision.propensity for decision, _ in log]
    assert [tuple(row) for row in read.probabilities.tolist()] == [decision.probabilities for decision, _ in log]
    rewards = [outcomes.get("reward") for _, outcomes in log]
    assert [None if math.isnan(each) else each for each in read.rewards] == rewards
    assert read.allowed.all()
    assert read.part.decisions == 2000
    assert read.part.whole
    assert (read.part.first, read.part.last) == (log[0][0].time, log[-1][0].time)


@pytest.mark.parametrize("most", [1, 1999, 2000, 2001])
def test_the_newest_are_read_and_whether_there_are_more_is_told(world: World, most: int):
    read = world.study(most=most)
    assert read.times.tolist() == [decision.time for decision, _ in world.log][-most:]
    assert read.part.whole is (most >= 2000)


def test_whoever_waits_gets_a_turn_now_and_then(world: World):
    turns: list[int] = []
    settings, pause = world.route.settings, lambda: turns.append(1)
    read_study(world.store, NAME, settings, Versions(), most=1000, pause=pause)
    assert len(turns) == math.ceil(1001 / EVERY)


def test_draws_that_the_log_tells_truly_raise_no_alarm_and_forged_ones_do(world: World):
    read = world.study()
    everything = np.ones(len(read), dtype=np.bool_)
    n, evidence = read.mismatch(everything)
    p = np.array([decision.probabilities for decision, _ in world.log])
    assert n == 2000
    assert evidence == pytest.approx(draw_evidence(draw_rows(p, read.first_drawn)))
    assert evidence < -math.log(0.001)
    forged = [
        (msgspec.structs.replace(decision, probabilities=(1 / 3, 1 / 3, 1 / 3)), None)
        for decision, _ in world.store.log(NAME)
    ]
    told = study(forged, world.route.settings, lambda _version: world.route.settings)
    assert told.mismatch(everything)[1] > -math.log(0.001)


def test_a_draw_that_could_not_be_is_all_the_evidence_there_is(world: World):
    decision, _ = next(world.store.log(NAME))
    p = tuple(0.0 if arm == decision.arm else 0.5 for arm in "abc")
    forged = msgspec.structs.replace(decision, probabilities=p)
    read = study([(forged, None)], world.route.settings, lambda _version: world.route.settings)
    assert read.mismatch(np.ones(1, dtype=np.bool_)) == (1, math.inf)


def test_a_sticky_unit_is_one_draw_however_often_it_comes():
    world = lived(1000, {"a": 0.5, "b": 0.5}, units=50, sticky=True)
    read = world.study()
    assert read.mismatch(np.ones(1000, dtype=np.bool_))[0] == 50
    plain = lived(1000, {"a": 0.5, "b": 0.5}, units=50)
    assert plain.study().mismatch(np.ones(1000, dtype=np.bool_))[0] == 1000


def test_a_failed_draw_counts_for_the_arm_that_was_drawn(world: World):
    decision, _ = next(world.store.log(NAME))
    other = next(arm for arm in "abc" if arm != decision.arm)
    stood_in = msgspec.structs.replace(decision, arm=other, failed=(decision.arm,))
    unanswered = msgspec.structs.replace(decision, failed=(decision.arm,))
    settings = world.route.settings
    read = study([(stood_in, None), (unanswered, None)], settings, lambda _version: settings)
    assert [read.arms[k] for k in read.first_drawn] == [decision.arm, decision.arm]
    assert [read.arms[k] for k in read.chosen] == [other, decision.arm]
    assert read.stood_in.tolist() == [True, False]
    assert read.answered.tolist() == [True, False]


def test_decisions_between_other_arms_are_left_out_and_counted(world: World):
    other: Settings = msgspec.structs.replace(
        world.route.settings, arms=dict(list(world.route.settings.arms.items())[:2])
    )
    read = study(
        ((decision, None) for decision, _ in world.store.log(NAME)), other, lambda _version: world.route.settings
    )
    assert len(read) == 0
    assert read.part.other_arms == 2000
    assert not read.part.HasField("first")


def test_what_the_log_holds_no_more_is_counted():
    """Of 300 decisions that were taken, retention has left the newest 180."""
    world = lived(300, {"a": 0.5, "b": 0.5})
    assert world.store.prune(NAME, before=world.log[120][0].time) == 120
    part = world.study().part
    assert (part.decisions, part.gone, part.whole) == (180, 120, True)
    assert world.study(most=100).part.gone == 0, "what was not read is no loss"
    assert lived(300, {"a": 0.5, "b": 0.5}).study().part.gone == 0


def test_what_a_version_meant_is_read_once():
    world = lived(300, {"a": 0.5, "b": 0.5})
    asked = []

    class Counting(MemoryStore):
        def fit(self, route: str, version: str) -> Fit | None:
            asked.append(version)
            return world.store.fit(route, version)

    versions = Versions()
    version = next(world.store.log(NAME))[0].policy_version
    first, second = versions(Counting(), NAME, version), versions(Counting(), NAME, version)
    assert first is second is not None
    assert first == world.route.settings
    assert asked == [version]
    assert versions(Counting(), NAME, "unheard-of") is None
    assert fit_of(world.route, NOW).settings


def test_rewards_are_due_once_they_are_there_or_their_window_is_over():
    world = lived(100, {"a": 0.5, "b": 0.5}, rewarded=0.5, seconds=1.0)
    read, now = world.study(), world.clock()
    expected = ["reward" in outcomes or decision.time + 30.0 <= now for decision, outcomes in world.log]
    assert read.due(30.0, now).tolist() == expected
    assert 0 < sum(expected) < 100
    assert read.due(None, now).all()


def test_a_floor_counts_where_it_held_for_every_arm():
    world = lived(500, {"a": 0.5, "b": 0.9}, policy=ThompsonPolicy(), floor=0.1)
    read = world.study()
    everything = np.ones(500, dtype=np.bool_)
    floor = read.floor(everything)
    assert floor is not None
    assert floor == pytest.approx(0.1)
    assert floor <= read.probabilities.min()
    assert replace(read, floors=np.full(500, 0.2)).floor(everything) is None, "as where a canary got less"
    assert lived(500, {"a": 0.5, "b": 0.9}, policy=ThompsonPolicy()).study().floor(everything) is None


def test_the_floor_that_counts_is_the_one_of_then_and_not_of_now():
    world = lived(500, {"a": 0.5, "b": 0.9}, policy=ThompsonPolicy(), floor=0.1)
    now: Settings = msgspec.structs.replace(world.route.settings, floor=0.3)
    read = read_study(world.store, NAME, now, Versions(), most=500)
    assert read.floor(np.ones(500, dtype=np.bool_)) == pytest.approx(0.1)
