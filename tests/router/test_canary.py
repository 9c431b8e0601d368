from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandits import POLICIES, Mask, Split, sampler
from router.call import Vector
from router.config.reward import Range
from router.config.safety import AnyGuardrail, Canary, ErrorGuardrail, RewardGuardrail, Step, check_canary
from router.safety import canary
from router.safety.canary import State
from router.safety.comparisons import odds_row, weighed_row
from router.safety.guardrails import ERRORS, Bad, Watch, earned

ARMS = ["champion", "new"]
UNIT = Range()
GUARDRAILS: dict[str, AnyGuardrail] = {"errors": ErrorGuardrail(action="roll_back", most=0.05)}
STEPS = [Step(share=0.1, seconds=60.0, calls=100), Step(share=0.5, rewards=200)]
TOLD = Canary(arm="new", champion="champion", steps=STEPS)

Sums = dict[tuple[str, str], Vector]


def watch(told: Canary = TOLD, guardrails: dict[str, AnyGuardrail] = GUARDRAILS) -> Watch:
    return canary.watch(told, guardrails, "champion", UNIT, since=0.0)


def sums_of(
    calls: float = 0, errors: float = 0, *, rewards: int = 0, earns: float = 0.6, watched: Watch | None = None
) -> Sums:
    """A canary that had so many calls and rewards at a share of one half, beside a champion that earns 0.6."""
    watched = watched or watch()
    rng = np.random.default_rng(3)
    lacks = Bad(ERRORS), earned(UNIT)
    sums: Sums = {(watched.calls_layout(lacks[0]), "new"): np.array([calls, errors], float)}
    for arm, mean in ("new", earns), ("champion", 0.6):
        xs = 1.0 - np.clip(rng.normal(mean, 0.1, rewards), 0.0, 1.0)
        rows = [weighed_row(x, 0.5) for x in xs]
        sums[watched.weighed_layout(lacks[1]), arm] = np.sum(rows, axis=0) if rows else np.zeros(8)
    return sums


def advance(state: State, sums: Sums, now: float, told: Canary = TOLD, watched: Watch | None = None):
    return canary.advance(told, watched or watch(told), state, sums, route="r", arms=ARMS, reward=UNIT, now=now)


def begun() -> State:
    return canary.begin(0.0)


def at_the_last_step() -> State:
    return msgspec.structs.replace(begun(), step=1, entered=60.0)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"arm": "new", "steps": []}, "steps: at least one"),
        (
            {"arm": "new", "steps": [{"share": 0.5, "calls": 9}, {"share": 0.1, "calls": 9}]},
            "steps: shares must not fall",
        ),
        ({"arm": "new", "steps": [{"share": 1.0}]}, "share: must lie between 0 and 1"),
        ({"arm": "new", "steps": [{"share": 0.1, "seconds": -1}]}, "seconds: must not be below 0"),
        ({"arm": "new", "steps": [{"share": 0.1}]}, "seconds: say how long a step lasts"),
        ({"arm": "new", "steps": [{"share": 0.1, "calls": 9}], "non_inferior": True}, "margin: must be above 0"),
        ({"arm": "new", "steps": [{"share": 0.1, "calls": 9}], "champion": "new"}, "champion: must be another arm"),
        ({"arm": "new", "steps": [{"share": 0.1, "calls": 9}], "alpha": 0}, "alpha: must be above 0"),
    ],
)
def test_a_canary_that_cannot_be_run_is_refused(told: dict, sentence: str):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(told, Canary)


def test_a_canary_must_fit_its_route():
    for told, sentence in (
        (Canary(arm="who", steps=STEPS), "arm: 'who' is none of the arms"),
        (Canary(arm="new", champion="who", steps=STEPS), "champion: 'who' is none"),
        (Canary(arm="champion", steps=STEPS), "arm: 'champion' is the champion"),
        (Canary(arm="new", steps=STEPS, objective="guardrails"), "objective: there are no guardrails"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_canary(told, arms=ARMS, champion="champion", guardrails={})
    check_canary(TOLD, arms=ARMS, champion="champion", guardrails={})


@pytest.mark.parametrize("objective", ["reward", "guardrails"])
def test_all_that_is_asked_of_a_canary_shares_its_alpha(objective: str):
    guardrails: dict[str, AnyGuardrail] = {
        "errors": ErrorGuardrail(action="roll_back", most=0.05, times=2.0),
        "pay": RewardGuardrail(action="roll_back", margin=0.1),
        "other": ErrorGuardrail(action="alert", most=0.5),
    }
    told = msgspec.structs.replace(TOLD, objective=objective, alpha=0.04)
    watched = watch(told, guardrails)
    assert [bounds.name for bounds in watched.bounds] == ["errors", "pay"]
    asked = 4 if objective == "reward" else 3
    assert {bounds.alpha for bounds in watched.bounds} == {0.04 / asked}


# -------------------------------------------------------------------------------------------------- steps


def test_a_step_ends_when_its_time_is_over_and_its_evidence_has_come():
    start = begun()
    assert canary.share(TOLD, start) == 0.1
    assert advance(start, sums_of(99), 1000.0) == (start, None)
    assert advance(start, sums_of(100), 59.0) == (start, None)
    state, said = advance(start, sums_of(100), 61.0)
    assert (state.step, state.entered, state.calls) == (1, 61.0, 100)
    assert canary.share(TOLD, state) == 0.5
    assert said is not None
    assert (said.kind, said.arm, said.time) == ("stepped", "new", 61.0)
    assert said.numbers["share"] == 0.5
    assert said.numbers["errors.most.n"] == 100


def test_the_evidence_of_a_step_is_that_of_the_step():
    state = msgspec.structs.replace(at_the_last_step(), rewards=150.0)
    assert advance(state, sums_of(1_000, rewards=300), 1e6)[1] is None
    assert advance(state, sums_of(1_000, rewards=350), 1e6)[1] is not None


def test_time_alone_promotes_nobody():
    state, said = advance(at_the_last_step(), sums_of(5_000, 10, rewards=250), 1e9)
    assert said is not None
    assert (state.outcome, said.kind) == ("left_alone", "left_alone")
    assert canary.share(TOLD, state) == 0.5
    assert advance(state, sums_of(5_000, 10, rewards=250), 2e9) == (state, None), "it is said once"


def test_a_canary_that_earns_more_is_promoted_at_its_last_step_also_if_it_was_left_alone():
    better = sums_of(5_000, 10, rewards=2_000, earns=0.7)
    assert advance(begun(), better, 1000.0)[0].outcome == "running", "first the steps"
    for outcome in "running", "left_alone":
        state, said = advance(msgspec.structs.replace(at_the_last_step(), outcome=outcome), better, 1000.0)
        assert said is not None
        assert (state.outcome, said.kind) == ("promoted", "promoted")
        assert "better" in said.why
        assert canary.share(TOLD, state) == 1.0


def test_a_canary_that_earns_more_is_not_promoted_while_a_guardrail_is_open():
    state, _ = advance(at_the_last_step(), sums_of(100, 3, rewards=2_000, earns=0.7), 1000.0)
    assert state.outcome == "left_alone"


@pytest.mark.parametrize("state", [begun(), at_the_last_step()])
def test_a_broken_guardrail_rolls_back_at_any_step_without_waiting_for_it(state: State):
    new, said = advance(state, sums_of(90, 30), 1.0)
    assert said is not None
    assert (new.outcome, said.kind) == ("rolled_back", "rolled_back")
    assert "errors: above the limit of 0.05" in said.why
    assert said.numbers["errors.most.bad"] == 30
    assert canary.share(TOLD, new) == 0.0
    assert advance(new, sums_of(90_000), 1e9) == (new, None), "it stays so"


def test_a_canary_that_earns_less_is_rolled_back_unless_it_is_within_the_margin():
    worse = sums_of(5_000, 10, rewards=2_000, earns=0.55)
    state, said = advance(begun(), worse, 1.0)
    assert state.outcome == "rolled_back"
    assert said.why.startswith(f"The canary {TOLD.arm} is worse: the difference is ")
    allowed = msgspec.structs.replace(TOLD, margin=0.1, non_inferior=True)
    assert advance(at_the_last_step(), worse, 1000.0, allowed)[0].outcome == "promoted"


def test_a_canary_without_rewards_is_promoted_when_every_guardrail_is_known_to_be_kept():
    told = msgspec.structs.replace(TOLD, objective="guardrails", steps=[Step(share=0.5, calls=10)])
    watched = watch(told)
    assert advance(begun(), sums_of(50, 1), 1.0, told, watched)[0].outcome == "left_alone"
    assert advance(begun(), sums_of(5_000, 10), 1.0, told, watched)[0].outcome == "promoted"


def test_a_state_comes_out_of_its_document_as_it_went_in():
    state = at_the_last_step()
    assert canary.decode(canary.encode(state)) == state
    with pytest.raises(ValueError, match="missing required field"):
        canary.decode(b"{}")


def test_other_settings_or_another_model_begin_anew():
    one = canary.digest(TOLD, GUARDRAILS, "model-1")
    assert one == canary.digest(TOLD, {**GUARDRAILS, "other": ErrorGuardrail(most=0.1)}, "model-1")
    assert one != canary.digest(TOLD, GUARDRAILS, "model-2")
    assert one != canary.digest(msgspec.structs.replace(TOLD, run="again"), GUARDRAILS, "model-1")
    assert one != canary.digest(TOLD, {"errors": ErrorGuardrail(action="roll_back", most=0.1)}, "model-1")


def test_failures_of_both_arms_are_compared_hour_by_hour():
    """The same failures, once drawn at the canary's share, once as if it had hardly been drawn."""
    guardrails: dict[str, AnyGuardrail] = {"errors": ErrorGuardrail(action="roll_back", times=2.0)}
    told = msgspec.structs.replace(TOLD, objective="guardrails")
    watched = watch(told, guardrails)
    layout = watched.odds_layout(watched.bounds[0])
    for share, outcome in (0.5, "running"), (0.05, "rolled_back"):
        row = odds_row(2.0, share, 1.0 - share)
        sums: Sums = {(layout, "new"): 30.0 * row, (layout, "champion"): 30.0 * row}
        assert advance(begun(), sums, 1.0, told, watched)[0].outcome == outcome


# -------------------------------------------------------------------------------------------- probabilities

masks = st.lists(st.booleans(), min_size=4, max_size=4).filter(any)
shares = st.floats(0.0, 1.0)


@given(st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4), masks, shares, st.integers(0, 3))
def test_a_canary_gets_its_share_and_the_others_keep_their_proportions(
    weights: list[float], mask: list[bool], share: float, index: int
):
    fitted = Split(tuple(weights)).fit(np.zeros((4, 3)))
    allowed = np.array(mask)
    others = allowed.copy()
    others[index] = False
    if not others.any() and share == 0.0:
        with pytest.raises(ValueError, match="no arm is allowed"):
            canary.mixed(fitted, index, share)(None, allowed)
        return
    p = canary.mixed(fitted, index, share)(None, allowed)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert (p[~allowed] == 0.0).all()
    if not allowed[index]:
        np.testing.assert_array_equal(p, fitted(None, allowed))
    elif others.any():
        assert p[index] == share
        np.testing.assert_allclose(p[others], (1.0 - share) * fitted(None, others)[others])
    else:
        assert p[index] == 1.0


@given(shares, shares, st.integers(0, 2))
def test_a_ramp_moves_units_to_the_canary_only(low: float, high: float, index: int):
    low, high = sorted((low, high))
    fitted = Split((5.0, 3.0, 2.0)).fit(np.zeros((3, 3)))
    draw, everybody = sampler("salt", ["a", "b", "c"]), np.ones(3, dtype=np.bool_)
    before, after = (canary.mixed(fitted, index, share)(None, everybody) for share in (low, high))
    for unit in map(str, range(200)):
        was, now = draw(before, unit), draw(after, unit)
        assert now in {was, index}, "nobody moves between the others, and nobody loses the canary"


def test_a_ramp_moves_as_many_units_as_the_share_grows():
    fitted = Split((5.0, 3.0, 2.0)).fit(np.zeros((3, 3)))
    draw, everybody = sampler("salt", ["a", "b", "c"]), np.ones(3, dtype=np.bool_)
    before, after = (canary.mixed(fitted, 2, share)(None, everybody) for share in (0.1, 0.2))
    moved = sum(draw(before, unit) != draw(after, unit) for unit in map(str, range(20_000)))
    assert moved / 20_000 == pytest.approx(0.1, abs=0.01)


def test_without_a_context_the_probabilities_are_worked_out_once_a_mask_and_shared_read_only():
    asked = []

    def fitted(context: Vector | None, allowed: Mask) -> Vector:
        asked.append(context)
        return np.asarray(allowed / allowed.sum(), float)

    mixed = canary.mixed(fitted, 0, 0.25)
    everybody = np.ones(3, dtype=np.bool_)
    first = mixed(None, everybody)
    assert mixed(None, everybody) is first
    assert not first.flags.writeable
    assert len(asked) == 1
    for context in np.eye(2):
        np.testing.assert_allclose(mixed(context, everybody), [0.25, 0.375, 0.375])
    assert len(asked) == 3


def test_any_policy_can_be_mixed():
    for name in "thompson", "ucb1", "epsilon_greedy", "exp3_ix":
        policy = POLICIES[name]()
        sums = np.zeros((3, policy.width))
        p = canary.mixed(policy.fit(sums), 1, 0.3)(None, np.ones(3, dtype=np.bool_))
        assert p[1] == 0.3
        assert p.sum() == pytest.approx(1.0)
