"""What another policy would have earned: against worlds whose answer is known, and honest where the log is silent."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from protos.errors import InvalidArgument
from protos.messages import Estimate, Evaluation
from router.answers.candidate import with_policy
from router.answers.evaluate import evaluation
from router.answers.reading import read_study
from router.answers.shown import show_evaluation
from router.answers.study import study
from router.answers.tables import Ink
from router.answers.units import TOO_SURE
from router.answers.value import named
from router.call import REWARD, Batch, Credit, Decision, Outcome
from router.config import Arm, EpsilonGreedyPolicy, SplitPolicy
from router.config import Route as Settings
from router.config.context import Feature
from router.config.learning import WarmStart
from router.config.rules import Rule
from router.config.safety import Canary, ErrorGuardrail, Failover, Step
from router.learning.versions import Versions
from router.learning.warm_start import documents_of, taught, warm_start
from tests.router.answers.worlds import NAME, World, lived
from tests.router.fakes import NOW

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
    assert any("serving, it would have learnt on" in warning for warning in told.warnings)


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


# ------------------------------------------------------------------------------------ the terms on which it would deal


def test_the_floor_of_the_route_holds_for_the_policy_too(world: World):
    told = told_of(world, "{kind: thompson}", floor=0.1)
    assert min(arm.wanted for arm in told.arms) >= 0.1


def test_a_floor_of_the_candidates_own_is_part_of_what_is_judged(world: World):
    """Without it all goes to b, which earns 0.7; with 0.3 an arm, what is left for b is 0.1."""
    bare = told_of(world, "{kind: split, weights: {a: 0, b: 1, c: 0}}", floor=0.05)
    own = told_of(world, "{policy: {kind: split, weights: {a: 0, b: 1, c: 0}}, floor: 0.3}", floor=0.05)
    assert [arm.wanted for arm in bare.arms] == pytest.approx([0.05, 0.9, 0.05])
    assert [arm.wanted for arm in own.arms] == pytest.approx([0.3, 0.4, 0.3])
    assert own.policy == "split (weights a 0, b 1, c 0), floor 0.3"
    for told, value in (bare, 0.05 * 0.5 + 0.9 * 0.7 + 0.05 * 0.3), (own, 0.3 * 0.5 + 0.4 * 0.7 + 0.3 * 0.3):
        low, high = ends(told.value)
        assert low < value < high
    none = told_of(world, "{policy: {kind: split, weights: {a: 0, b: 1, c: 0}}, floor: 0}", floor=0.05)
    assert [arm.wanted for arm in none.arms] == [0.0, 1.0, 0.0]


def test_the_candidates_floor_is_not_taken_for_that_of_the_log():
    """The interval is told from what could have been drawn; what would be drawn says nothing of that."""
    with_floor = lived(2000, MEANS, policy=EpsilonGreedyPolicy(epsilon=0.6), floor=0.05)
    text = "{{policy: {{kind: split, weights: {{a: 0, b: 1, c: 0}}}}, floor: {}}}"
    low, high = ends(told_of(with_floor, text.format(0)).value)
    forgotten = msgspec.structs.replace(with_floor.route.settings, floor=0.0)
    study = read_study(with_floor.store, NAME, forgotten, Versions(), most=9999)
    now = evaluation(study, NAME, with_policy(forgotten, text.format(0)), alpha=0.05)
    assert ends(now.value) == (low, high)
    assert study.floor(np.ones(2000, dtype=np.bool_)) == pytest.approx(0.05)


def test_a_budget_and_a_half_life_of_the_candidates_own_hold():
    world = lived(2000, MEANS)
    held = told_of(world, "{policy: {kind: split, weights: {a: 0, b: 0, c: 1}}, budget: {share: 0.01}}")
    assert held.policy == "split (weights a 0, b 0, c 1), budget 0.01"
    assert held.arms[0].wanted > 0.8, "c earns less than the champion"
    soon = told_of(world, "{policy: {kind: thompson}, half_life_seconds: 1}")
    late = told_of(world, "{policy: {kind: thompson}}")
    assert soon.arms[1].wanted < 0.9 < late.arms[1].wanted, "who forgets in ten decisions knows little"


def elsewhere(world: World, n: int, *, arm: str = "c", after: float = -1e6, told_after: float | None = None) -> None:
    """Another route, "old", has logged n rewards of 1 for an arm, and n of 0 for the others."""
    decisions, credits = [], []
    for k in range(n):
        for each in MEANS:
            time = NOW + after + k * 1e-3
            decision = Decision(f"{round(time * 1000):012x}{each}{k:019x}", "old", each, 1 / 3, time, "v")
            told = time if told_after is None else NOW + told_after
            decisions.append(decision)
            credits.append(Credit(Outcome(decision.id, REWARD, float(each == arm), told)))
    world.store.commit(Batch(decisions, credits))


def begun(world: World, text: str, warm_start: WarmStart | None = None, *, most: int | None = None) -> Evaluation:
    settings = with_policy(msgspec.structs.replace(world.route.settings, warm_start=warm_start), text)
    warm = partial(taught, world.store, settings, most=most)
    return evaluation(world.study(), NAME, settings, alpha=0.05, warm=warm)


def test_it_begins_with_the_warm_start_that_the_route_would_begin_with():
    """Another log praises c; so does who begins with it, and after it the route's own rewards are few."""
    world = lived(200, MEANS)
    elsewhere(world, 2000)
    served = msgspec.structs.replace(world.route.settings, warm_start=WarmStart(route="old"))
    warm_start(world.store, NAME, served, world.route.policy, "counts")
    before = dict(world.store.documents(documents_of(NAME)))
    alone = begun(world, "{kind: thompson}")
    warm = begun(world, "{kind: thompson}", WarmStart(route="old"))
    assert alone.arms[1].wanted > 0.8
    assert warm.arms[2].wanted > 0.95
    assert (warm.learnt_from, warm.judged_on) == (alone.learnt_from, alone.judged_on)
    assert any(said.startswith("It began with 6,000 rewards of route 'old'") for said in warm.warnings)
    light = begun(world, "{kind: thompson}", WarmStart(route="old", weight=1e-6))
    assert [arm.wanted for arm in light.arms] == pytest.approx([arm.wanted for arm in alone.arms], abs=1e-3)
    own = begun(world, "{policy: {kind: thompson}, warm_start: {route: old}}")
    assert [arm.wanted for arm in own.arms] == [arm.wanted for arm in warm.arms], "as a term of the candidate's own"
    none = begun(world, "{policy: {kind: thompson}, warm_start: null}", WarmStart(route="old"))
    assert [arm.wanted for arm in none.arms] == [arm.wanted for arm in alone.arms]
    assert before
    assert world.store.documents(documents_of(NAME)) == before, "what the route itself begins with is left alone"


@pytest.mark.parametrize("when", [{"after": 10.1}, {"told_after": 10.1}])
def test_it_does_not_begin_with_what_was_not_known_yet(when: dict[str, Any]):
    """The newer half begins 10 s after the older one: what was decided or told by then cannot have been its start."""
    world = lived(200, MEANS)
    elsewhere(world, 2000, **when)
    alone, warm = begun(world, "{kind: thompson}"), begun(world, "{kind: thompson}", WarmStart(route="old"))
    assert [arm.wanted for arm in warm.arms] == [arm.wanted for arm in alone.arms]
    assert any(said.startswith("It began with no rewards of route 'old'") for said in warm.warnings)


def test_a_warm_start_from_the_routes_own_log_does_not_count_twice(world: World):
    alone, own = begun(world, "{kind: thompson}"), begun(world, "{kind: thompson}", WarmStart(route=NAME))
    assert [arm.wanted for arm in own.arms] == [arm.wanted for arm in alone.arms]
    assert "Its warm start is left out: that is the route's own log, and would count twice." in own.warnings


def test_of_a_long_log_elsewhere_the_oldest_decisions_are_read_and_that_is_said():
    world = lived(200, MEANS)
    elsewhere(world, 100)
    told = begun(world, "{kind: thompson}", WarmStart(route="old"), most=30)
    (said,) = [each for each in told.warnings if "'old'" in each]
    assert said.startswith("It began with 30 rewards")
    assert said.endswith("of the oldest decisions of that log; the rest was not read.")
    (said,) = [
        each for each in begun(world, "{kind: thompson}", WarmStart(route="old"), most=300).warnings if "'old'" in each
    ]
    assert said.endswith("the first decision that it was judged on.")


def test_a_warm_start_from_another_context_is_refused_as_the_route_would_refuse_it():
    world = lived(200, MEANS, context=CONTEXT)
    elsewhere(world, 10)
    with pytest.raises(
        InvalidArgument, match=r"policy: it cannot be judged on this log: warm_start\.route: 'old' logged"
    ):
        begun(world, "{kind: linucb}", WarmStart(route="old"))
    assert begun(world, "{kind: split}", WarmStart(route="old")).learnt_from == 0, "which begins with nothing anyway"


def test_what_rules_allow_is_as_it_was_logged():
    rule = Rule(name="hard", when="x > 0.5", only=("a", "c"))
    world = lived(2000, MEANS, context=CONTEXT, rules=(rule,))
    told = told_of(world, "{kind: split, weights: {a: 0, b: 1, c: 1}}")
    ruled = np.mean([decision.rule == "hard" for decision, _ in world.log])
    assert [arm.wanted for arm in told.arms] == pytest.approx([0.0, (1 - ruled) / 2, ruled + (1 - ruled) / 2])
    low, high = ends(told.value)
    assert low < (1 - ruled) * 0.5 + ruled * 0.3 < high
    without = msgspec.structs.replace(world.route.settings, rules=())
    again = evaluation(world.study(), NAME, with_policy(without, "{kind: split}"), alpha=0.05)
    assert [arm.wanted for arm in again.arms][1] == pytest.approx((1 - ruled) / 3), "also where they are no more"


def test_a_candidate_is_in_charge_whatever_comes_before_the_routes_own_policy():
    """A canary's share and an apprentice's silence belong to the log; the log of an apprentice alone cannot tell."""
    canary = Canary(arm="c", steps=[Step(share=0.1, calls=1)])
    errors = {"errors": ErrorGuardrail(most=0.5, action="roll_back")}
    world = lived(2000, MEANS, canary=canary, guardrails=errors)
    told = told_of(world, "{kind: split, weights: {a: 1, b: 2, c: 1}}")
    assert [arm.wanted for arm in told.arms] == [0.25, 0.5, 0.25]
    silent = lived(1000, MEANS, policy=EpsilonGreedyPolicy(epsilon=0.6), apprentice=True)
    told = told_of(silent, "{kind: split}")
    assert [arm.wanted for arm in told.arms] == pytest.approx([1 / 3] * 3)
    assert not told.answerable
    assert "go to arms never played: b, c." in told.why or "go to arms never played: c, b." in told.why


def test_what_learns_is_taught_what_the_route_teaches_it():
    """Arm b earns more than a, but costs more than that: whoever reckons with costs prefers a."""
    arms = {"a": Arm(model="a"), "b": Arm(model="b", cost=0.5), "c": Arm(model="c")}
    world = lived(2000, MEANS)
    told = told_of(world, "{kind: thompson}", arms=arms)
    assert told.arms[0].wanted > 0.95
    assert told.cost == pytest.approx(0.5 * told.arms[1].wanted)
    assert told.had_cost == pytest.approx(0.5 * told.arms[1].share)
    assert not told_of(world, "{kind: thompson}").HasField("cost")


def test_units_that_come_back_widen_what_is_said():
    """A unit's reward is always the same one: a hundred decisions of it are one observation."""
    worth: dict[float, float] = {}
    drawn = iter(range(4000))

    def reward_of(rng: np.random.Generator, _arm: str, _x: float) -> float:
        return worth.setdefault(next(drawn) % 200, float(rng.random() < 0.5))

    world = lived(4000, {"a": 0.5, "b": 0.5}, reward_of=reward_of, units=200, sticky=True)
    told = told_of(world, "{kind: split, weights: {a: 1, b: 3}}")
    assert told.by_unit.units == 200
    assert told.by_unit.design_effect == pytest.approx(20.0, rel=0.35)
    assert told.by_unit.value.value == pytest.approx(told.value.value)
    for known, by_unit in (told.value, told.by_unit.value), (told.lift, told.by_unit.lift):
        (low, high), (least, most) = ends(known), ends(by_unit)
        assert least < low < high < most
    assert TOO_SURE in told.warnings
    assert not told_of(lived(500, MEANS), "{kind: split}").HasField("by_unit")


# ------------------------------------------------------------------------------------------------------ what it cannot


def test_an_arm_that_was_never_played_cannot_be_judged_and_is_named():
    world = lived(1000, MEANS, policy=SplitPolicy(weights={"a": 1, "b": 1, "c": 0}))
    told = told_of(world, "{kind: split, weights: {a: 0, b: 0.5, c: 0.5}}")
    assert not told.answerable
    assert "50.0% go to arms never played: c." in told.why


def test_few_rewards_are_no_answer():
    told = told_of(lived(1000, MEANS, rewarded=0.0), "{kind: thompson}")
    assert not told.answerable
    assert told.why == "The log holds no rewarded decisions that it could be told from."
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


def test_a_lift_without_an_interval_says_from_when_on_it_has_one():
    needs = "A lift has an interval from 100 decisions on, unless all of them would have earned the same."
    for n, expected in (60, True), (1000, False):
        shown = list(show_evaluation(told_of(lived(n, MEANS), "{kind: split}"), Ink(colours=False)))
        assert any(line.startswith("lift ") for line in shown)
        assert (needs in shown) == expected
        assert any("apprentice under" in line for line in shown) != expected, "no advice on what the log cannot answer"


def test_a_context_that_meant_something_else_is_not_read():
    world = lived(1000, MEANS, context=CONTEXT)
    other = {"x": Feature(tensor="x", column=0, mean=9.0, scale=3.0)}
    settings = with_policy(msgspec.structs.replace(world.route.settings, context=other), "{kind: linucb}")
    read = read_study(world.store, NAME, settings, Versions(), most=10_000)
    told = evaluation(read, NAME, settings, alpha=0.05)
    assert told.why == "The log holds no rewarded decisions that it could be told from."


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        ("{kind: clever}", "policy.kind: Invalid value 'clever'; there are split, "),
        ("[", "policy: "),
        ("", "policy: Expected a mapping"),
        ("{kind: thompson, alpha: much}", "policy.alpha: Expected a number"),
        ("{kind: thompson, alpha: -1}", "policy: alpha: must lie between"),
        ("{kind: linucb}", "policy: linucb reads a context, and the route declares none"),
        ("{kind: split, weights: {a: 1}}", "policy: weights: give one for each arm"),
        ("a: &x [*x]", "policy: "),
        (
            "{kind: thompson, floor: 0.1}",
            "policy: floor: belongs beside the policy, as in {policy: ",
        ),
        ("{policy: {kind: thompson}, floor: 2}", "policy: floor: must be at least 0 and below 0.333"),
        ("{policy: {kind: thompson}, floor: 0.1, budget: {share: 0.1}}", "policy: budget: a floor would take"),
        (
            "{policy: {kind: thompson}, rules: []}",
            "policy: rules: judged are budget, floor, half_life_seconds, policy, warm_start",
        ),
        ("{policy: {kind: thompson}, 3: 4}", "policy: 3: judged are"),
        ("{policy: thompson}", "policy: Expected a mapping, got a text; write {kind: thompson}"),
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
