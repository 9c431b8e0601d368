"""A canary: a new arm that gets more of the calls step by step, until it is promoted, rolled back, or left alone.

Everything here is a function of settings, sums and the time that it is told. The state is a document of the store, so
that replicas agree: whoever writes the next one first, by compare-and-set, has moved the canary, and says so.

What a canary runs by names its document. So in the middle of a rolling reload, replicas with other settings move a
canary of their own, and neither begins the other's anew; and a configuration that comes back finds its canary as it
was left: one that was rolled back stays so, until its `run` is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np

from bandits import Fitted, Mask
from bandits.anytime import Rules
from router.call import Event, Vector
from router.config.reward import Range
from router.config.safety import AnyGuardrail, Canary
from router.safety.events import event
from router.safety.guardrails import ERRORS, Bad, Finding, Sums, Watch, bounds_of, compared, earned, judge

_MASKS = 1024  # whose p is remembered


class State(msgspec.Struct, frozen=True):
    """How far a canary has come."""

    since: float  # when it began, in seconds since the epoch
    step: int = 0
    entered: float = 0.0  # when this step began
    calls: float = 0.0  # of the canary, when this step began
    rewards: float = 0.0
    outcome: Literal["running", "left_alone", "promoted", "rolled_back"] = "running"

    @property
    def ended(self) -> bool:
        """Whether it stays so, whatever comes."""
        return self.outcome in {"promoted", "rolled_back"}


def kind(route: str) -> str:
    """Kind of the documents that hold the states of a route's canaries, by the digest of what each runs by."""
    return f"canary:{route}"


def encode(state: State) -> bytes:
    """A state as the body of its document."""
    return msgspec.json.encode(state)


def decode(body: bytes) -> State:
    """A state from the body of its document. Raises ValueError for a body that is none."""
    return msgspec.json.decode(body, type=State)


def digest(canary: Canary, guardrails: Mapping[str, AnyGuardrail], *served: object) -> str:
    """What a canary runs by: its settings, those of its guardrails, and what is `served` under the names of the two."""
    own = {name: each for name, each in guardrails.items() if each.action == "roll_back"}
    return blake2b(repr((canary, sorted(own.items()), served)).encode(), digest_size=8).hexdigest()


def begin(now: float) -> State:
    """The state of a canary that begins now."""
    return State(now, entered=now)


def share(canary: Canary, state: State) -> float:
    """The part of the calls that the canary gets."""
    ends = {"promoted": 1.0, "rolled_back": 0.0}
    return ends.get(state.outcome, canary.steps[min(state.step, len(canary.steps) - 1)].share)


def watch(canary: Canary, guardrails: Mapping[str, AnyGuardrail], champion: str, reward: Range, since: float) -> Watch:
    """What a canary is judged by since it began. Its alpha is split evenly between all that is asked about it."""
    bounds = [bounds_of(name, each, reward) for name, each in guardrails.items() if each.action == "roll_back"]
    asked = sum(each.count for each in bounds) + (canary.objective == "reward")
    return Watch(
        canary.arm,
        canary.champion or champion,
        since,
        tuple(replace(each, alpha=canary.alpha / asked) for each in bounds),
        (earned(reward),) if canary.objective == "reward" else (),
    )


def advance(
    canary: Canary,
    watched: Watch,
    state: State,
    sums: Sums,
    *,
    route: str,
    arms: Sequence[str],
    reward: Range,
    now: float,
) -> tuple[State, Event | None]:
    """What becomes of a canary by what is known now, and what is said about it; None: nothing has changed.

    To be asked as often as one likes. `watched` is its watch, `sums` those of the route, whose `arms` these are.
    """
    if state.ended:
        return state, None
    findings = judge(watched, sums, arms)
    kind, why = _verdict(canary, watched, findings, sums, arms, reward)
    step = canary.steps[state.step]
    calls, rewards = _seen(watched, earned(reward), sums)
    done = (
        now - state.entered >= step.seconds
        and calls - state.calls >= step.calls
        and rewards - state.rewards >= step.rewards
    )
    last = state.step == len(canary.steps) - 1

    if kind == "stop":
        new, what = msgspec.structs.replace(state, outcome="rolled_back"), "rolled_back"
    elif not done or (last and kind != "promote" and state.outcome == "left_alone"):
        return state, None
    elif not last:
        entered = {"step": state.step + 1, "entered": now, "calls": calls, "rewards": rewards}
        new, what = msgspec.structs.replace(state, **entered), "stepped"
        why = f"Step {new.step + 1} of {len(canary.steps)}, with a share of {share(canary, new):.4g}. {why}"
    elif kind == "promote":
        new, what = msgspec.structs.replace(state, outcome="promoted"), "promoted"
    else:
        new, what = msgspec.structs.replace(state, outcome="left_alone"), "left_alone"
        why = f"Its last step is over, and it keeps its share of {step.share:.4g}. {why}"
    numbers = {
        "step": float(new.step),
        "share": share(canary, new),
        "seconds": now - state.since,
        "calls": calls,
        "rewards": rewards,
        **{f"{each.name}.{key}": value for each in findings for key, value in each.numbers.items()},
    }
    return new, event(route, what, arm=canary.arm, why=why, now=now, numbers=numbers)


def _verdict(
    canary: Canary, watched: Watch, findings: Sequence[Finding], sums: Sums, arms: Sequence[str], reward: Range
) -> tuple[str, str]:
    """What the evidence says, "stop" or "promote" or neither, and why."""
    known = [each.guardrail for each in findings]
    if canary.objective == "reward":
        asked = sum(bounds.count for bounds in watched.bounds) + 1
        margin = canary.margin / (reward.high - reward.low)
        name = f"The canary {canary.arm}"
        rules = Rules(margin, canary.non_inferior, alpha=canary.alpha / asked, name=name)
        row = compared(watched, earned(reward), sums, arms)
        row[1] = -row[1]  # what is earned is what is not lacked
        verdict = rules.judge(row, guardrails=known)
        return verdict.kind, verdict.because
    if broken := [each for each in known if each.broken]:
        return "stop", f"A guardrail is broken. {'; '.join(map(str, broken))}."
    said = "; ".join(map(str, known))
    if all(each.kept for each in known):
        return "promote", f"Every guardrail is kept: {said}."
    return "continue", f"Not known yet: {said}."


def _seen(watched: Watch, rewards: Bad, sums: Sums) -> tuple[float, float]:
    """How many calls and rewards the canary has had since it began."""
    layouts = watched.calls_layout(Bad(ERRORS)), watched.weighed_layout(rewards)
    calls, earned = (
        float(sums[layout, watched.arm][0]) if (layout, watched.arm) in sums else 0.0 for layout in layouts
    )
    return calls, earned


def mixed(fitted: Fitted, canary: int, share: float) -> Fitted:
    """A fitted policy that gives a canary its share, and what is left to the others: p' = (1 - share) p + share e.

    p is the policy's over the other arms that are allowed. Where there are none, the canary gets all, unless its share
    is 0. Between two shares, only those change their arm who have to: from the others to the canary where it grows.
    Raises ValueError where no arm is allowed, or a canary of share 0 alone.
    """
    known: dict[bytes, Vector] = {}  # without a context, by mask

    def mix(context: Vector | None, allowed: Mask) -> Vector:
        key = allowed.tobytes()
        if context is None and key in known:
            return known[key]
        if allowed[canary]:
            p = np.zeros(len(allowed))
            rest = allowed.copy()
            rest[canary] = False
            if share < 1.0 and (rest.any() or not share):  # where nobody is left, the policy says so
                p += (1.0 - share) * fitted(context, rest)
                p[canary] = share
            else:
                p[canary] = 1.0
        else:
            p = fitted(context, allowed)
        if context is None and len(known) < _MASKS:
            p.setflags(write=False)
            known[key] = p
        return p

    return mix
