"""What another policy would have earned: against worlds whose answer is known, and honest where the log is silent."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from protos.errors import InvalidArgument
from protos.messages import Estimate, Evaluation
from router.answers.evaluate import evaluation, with_policy
from router.answers.service import read_study
from router.answers.study import Versions, study
from router.answers.value import named
from router.config import EpsilonGreedyPolicy, SplitPolicy
from router.config import Route as Settings
from router.config.context import Feature
from router.config.safety import Failover
from tests.router.answers.worlds import NAME, World, lived

MEANS = {"a": 0.5, "b": 0.7, "c": 0.3}
CONTEXT = {"x": Feature(tensor="x", column=0, mean=0.5, scale=0.3)}


def told_of(world: World, policy: str, *, alpha: float = 0.05, **settings: object) -> Evaluation:
    told: Settings = msgspec.structs.replace(world.route.settings, **settings)
    return evaluation(world.study(), NAME, with_policy(told, policy), alpha=alpha)


def ends(known: Estimate) -> tuple[float, float]:
    assert known.HasField("low")
    assert known.HasField("high")
    return known.low, known.high


@pytest.fixture(scope="module")
def world() -> World:
    return lived(4000, MEANS, policy=EpsilonGreedyPolicy(epsilon=0.6), rewarded=0.9)


def test_the_value_of_a_split_covers_the_truth_over_many_worlds():
    covered = lifts = 0
    for seed in range(20):
        world = lived(1500, MEANS, seed=seed)
        told = told_of(world, "{kind: split, weights: {a: 0.1, b: 0.8, c: 0.1}}")
        assert told.answerable
        low, high = ends(told.value)
        covered += low <= 0.64 <= high
        assert told.value.value == pytest.approx(0.64, abs=0.08)
        low, high = ends(told.lift)
        lifts += low <= 0.64 - 0.5 <= high
    assert covered >= 18
    assert lifts >= 18


def test_the_numbers_are_those_of_a_walk_over_the_log(world: World):
    told = told_of(world, "{kind: split, weights: {a: 1, b: 3, c: 0}}")
    rows = [(decision, outcomes["reward"]) for decision, outcomes in world.log if "reward" in outcomes]
    pi = {"a": 0.25, "b": 0.75, "c": 0.0}
    weights = [pi[decision.arm] / decision.propensity for decision, _ in rows]
    rewards = [reward for _, reward in rows]
    by_name = {each.name: each.value for each in told.estimators}
    assert by_name["ips"] == pytest.approx(np.mean([w * r for w, r in zip(weights, rewards, strict=True)]))
    assert by_name["snips"] == pytest.approx(sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights))
    assert told.earned.value == pytest.approx(np.mean(rewards))
    assert told.lift.value == pytest.approx(told.value.value - told.earned.value)
    assert told.effective_rows == pytest.approx(sum(weights) ** 2 / sum(w * w for w in weights))
    assert told.largest_weight == pytest.approx(max(weights))
    assert [(arm.name, arm.wanted) for arm in told.arms] == list(pi.items())
    drawn = [decision.arm for decision, _ in rows]
    assert [arm.share for arm in told.arms] == pytest.approx([drawn.count(arm) / len(drawn) for arm in pi])
    assert (told.learnt_from, told.judged_on) == (0, len(rows))
    assert told.log.whole


def test_the_policy_of_the_route_itself_earns_what_was_earned():
    world = lived(1000, MEANS)
    told = told_of(world, "{kind: split}")
    assert told.value.value == pytest.approx(told.earned.value, abs=0.01)
    assert told.lift.value == pytest.approx(0.0, abs=0.01)


def test_what_learns_learns_from_the_older_half_and_is_judged_on_the_newer(world: World):
    told = told_of(world, "{kind: thompson}")
    rewarded = sum("reward" in outcomes for _, outcomes in world.log)
    assert (told.learnt_from, told.judged_on) == (rewarded // 2, rewarded - rewarded // 2)
    assert [arm.wanted > 0.95 for arm in told.arms] == [False, True, False]
    low, high = ends(told.value)
    assert low <= 0.7 <= high
    assert any("in service it would have learnt on" in warning for warning in told.warnings)


def test_a_policy_that_reads_the_context_is_worth_more_where_that_helps():
    """Each arm is good on its side of one half; to know which is worth 0.3."""

    def reward_of(rng: np.random.Generator, arm: str, x: float) -> float:
        return float(rng.random() < (0.8 if (x > 0.5) == (arm == "b") else 0.2))

    world = lived(4000, {"a": 0.5, "b": 0.5}, reward_of=reward_of, context=CONTEXT)
    told = told_of(world, "{kind: linear_thompson}")
    assert told.answerable
    low, high = ends(told.lift)
    assert 0.2 < low < 0.3 < high < 0.4
    blind = told_of(world, "{kind: thompson}")
    assert abs(blind.lift.value) < 0.06


def test_the_floor_of_the_route_holds_for_the_policy_too(world: World):
    told = told_of(world, "{kind: thompson}", floor=0.1)
    assert min(arm.wanted for arm in told.arms) >= 0.1


def test_an_arm_that_was_never_played_cannot_be_judged_and_is_named():
    world = lived(1000, MEANS, policy=SplitPolicy(weights={"a": 1, "b": 1, "c": 0}))
    told = told_of(world, "{kind: split, weights: {a: 0, b: 0.5, c: 0.5}}")
    assert not told.answerable
    assert "50.0% go to arms never played: c." in told.why


def test_few_rewards_are_no_answer():
    told = told_of(lived(1000, MEANS, rewarded=0.0), "{kind: thompson}")
    assert not told.answerable
    assert told.why == "There are 0 rewarded decisions that it could be told from."
    assert not told.HasField("value")


def test_stand_ins_are_not_judged(world: World):
    rows = [(decision, outcomes.get("reward")) for decision, outcomes in world.store.log(NAME)]
    assert all(not decision.failed for decision, _ in rows)
    settings = msgspec.structs.replace(world.route.settings, failover=Failover(attempts=1))
    forged = [
        (msgspec.structs.replace(decision, failed=tuple(arm for arm in MEANS if arm != decision.arm)[:1]), reward)
        for decision, reward in rows[:1000]
    ]
    read = study([*forged, *rows[1000:]], settings, lambda _version: settings)
    told = evaluation(read, NAME, with_policy(settings, "{kind: split}"), alpha=0.05)
    assert told.judged_on == sum(reward is not None for _, reward in rows[1000:])


def test_a_context_that_meant_something_else_is_not_read():
    world = lived(1000, MEANS, context=CONTEXT)
    other = {"x": Feature(tensor="x", column=0, mean=9.0, scale=3.0)}
    settings = with_policy(msgspec.structs.replace(world.route.settings, context=other), "{kind: linucb}")
    read = read_study(world.store, NAME, settings, Versions(), most=10_000, now=world.clock())
    told = evaluation(read, NAME, settings, alpha=0.05)
    assert told.why == "There are 0 rewarded decisions that it could be told from."


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("{kind: clever}", "policy: Invalid value 'clever'"),
        ("[", "policy: "),
        ("", "policy: Expected `object`"),
        ("{kind: thompson, alpha: much}", "policy: Expected `float`"),
        ("{kind: thompson, alpha: -1}", "policy: alpha: must lie between"),
        ("{kind: linucb}", "policy: linucb reads a context, and the route declares none"),
        ("{kind: split, weights: {a: 1}}", "policy: weights: give one for each arm"),
        ("a: &x [*x]", "policy: "),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_a_sentence(world: World, policy: str, sentence: str):
    with pytest.raises(InvalidArgument) as refused:
        told_of(world, policy)
    assert sentence in str(refused.value)


def test_arms_are_named_in_the_sentences_of_overlap():
    assert named("go to arms never played: 1.", ("a", "b")) == "go to arms never played: b."
    assert named("fewer than 10 plays: 1, 0 and 3 more.", ("a", "b")) == "fewer than 10 plays: b, a and 3 more."
    assert named("Row 7 alone has 12% of all the weight.", ("a", "b")) == "Row 7 alone has 12% of all the weight."
