"""A decision made again, from what is written down of it and of the policy: the proof that the log is what happened."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from bandits import Draw, Fitted, Mask, Policy, sampler
from bandits.draw import siphash
from router.call import Decision, Fit, Vector
from router.config import Route as Settings
from router.ids import first_id, time_of
from router.learning.settings_json import in_force
from router.safety.canary import mixed

SAME = 1e-12
"""Probabilities nearer than this are the same: another processor may round the last digit otherwise."""

_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Refitted:
    """A route's policy as it was at a version."""

    settings: Settings
    arms: tuple[str, ...]
    policy: Policy
    fitted: Fitted
    draw: Draw
    salt: str
    canary_share: float | None  # that `fitted` gives the canary; None: there was none, or it was not written down


@dataclass(frozen=True, slots=True)
class Again:
    """A decision that was made again."""

    probabilities: Vector  # of all arms
    proposed: Vector | None  # what the policy would have drawn from, where it only looked on
    drawn: tuple[str, ...]  # the arms in the order in which they were drawn: all but the last one failed
    propensity: float  # of the last
    canary_share: float | None  # with which the canary was mixed in
    differences: tuple[str, ...]  # a sentence for each thing that is not as it is written down

    @property
    def reproduced(self) -> bool:
        """Whether all of it is."""
        return not self.differences


def refitted(fit: Fit) -> Refitted:
    """The policy that a fit tells of. Raises ValueError for settings and sums that this version cannot read."""
    settings, share = in_force(fit.settings)
    arms = tuple(settings.arms)
    policy = settings.build_policy()
    fitted = policy.fit(np.array(fit.sums))
    if share is not None and settings.canary is not None:
        fitted = mixed(fitted, arms.index(settings.canary.arm), share)
    salt = settings.salt or fit.route
    return Refitted(settings, arms, policy, fitted, sampler(salt, arms), salt, share)


def key_of(decision: Decision, settings: Settings) -> str:
    """What an arm was drawn for: the unit where a route is sticky and there is one, else the decision's id."""
    return decision.unit if decision.unit and settings.sticky else decision.id


def allowed_of(decision: Decision, arms: int) -> Mask:
    """The arms that rules, guard and switches left, one flag an arm."""
    return np.array([bool(decision.allowed >> k & 1) for k in range(arms)])


def answered(decision: Decision) -> bool:
    """Whether the arm of a decision answered, or all that were asked failed."""
    return decision.arm not in decision.failed


def made_again(known: Refitted, decision: Decision) -> Again:
    """The decision as it comes out of what was known. Raises ValueError where the policy refuses what is written."""
    written = decision.probabilities or ()
    if len(written) != len(known.arms):
        raise ValueError(f"{len(written)} probabilities are written down, and the route had {len(known.arms)} arms")
    p, proposed, share = _probabilities(known, decision, np.array(written))
    drawn, propensity = _drawn(known, decision, p)
    again = Again(p, proposed, drawn, propensity, share, ())
    return Again(p, proposed, drawn, propensity, share, tuple(_differences(known, decision, again)))


def scores(salt: str, arms: Sequence[str], p: Sequence[float], key: str) -> list[float | None]:
    """The race behind a draw: -ln(u) / p of each arm, of which the least was drawn; None where p is 0.

    u is the hash of key and arm that `bandits.sampler` describes, in the arithmetic of its description.
    """
    words = np.frombuffer(blake2b(salt.encode(), digest_size=16).digest(), dtype="<u8").astype(np.uint64)
    hashed = int(siphash(words, key.encode()))
    return [-math.log(_uniform(hashed, arm)) / each if each > 0.0 else None for arm, each in zip(arms, p, strict=True)]


def _uniform(hashed: int, arm: str) -> float:
    z = hashed ^ int.from_bytes(blake2b(arm.encode(), digest_size=8).digest(), "little")
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _WORD
    z ^= z >> 31
    return ((z >> 12) + 0.5) / 2.0**52


def _probabilities(known: Refitted, decision: Decision, written: Vector) -> tuple[Vector, Vector | None, float | None]:
    """All p, what the policy proposed, and the canary's share.

    Older fits do not say how far a canary had come. But its share is its own probability, so that the rest is put to
    the proof: whether the others share what is left as the policy says.
    """
    mask = allowed_of(decision, len(known.arms))
    context = None
    if known.policy.features:
        if decision.context is None:
            raise ValueError("the policy reads contexts, and none is written down")
        context = np.array(decision.context)
    p, share = known.fitted(context, mask), known.canary_share
    champion = known.arms.index(known.settings.the_champion)
    looks_on = known.settings.apprentice and bool(mask[champion])
    chosen_by = np.array(decision.proposed or written) if looks_on else written
    canary = known.settings.canary
    if canary is not None and share is None and not _same(p, chosen_by):
        index = known.arms.index(canary.arm)
        share = float(chosen_by[index])
        p = mixed(known.fitted, index, share)(context, mask)
    if not looks_on:
        return p, None, share
    champion_only = np.zeros(len(known.arms))
    champion_only[champion] = 1.0
    return champion_only, p, share


def _drawn(known: Refitted, decision: Decision, p: Vector) -> tuple[tuple[str, ...], float]:
    """The arms that are met one after the other when as many fail as did, and the propensity of the last."""
    key = key_of(decision, known.settings)
    failures = len(decision.failed) - (not answered(decision))
    p = np.array(p)
    index = known.draw(p, key)
    met = [index]
    for _ in range(failures):
        p[met] = 0.0
        left = p.sum()
        if not left > 0.0:
            break
        p /= left
        met.append(known.draw(p, key))
    return tuple(known.arms[each] for each in met), float(p[met[-1]])


def _differences(known: Refitted, decision: Decision, again: Again) -> Iterator[str]:
    if (born := time_of(decision.id)) is not None and not decision.id.startswith(first_id(decision.time)):
        yield f"time: {decision.time!r} is written down, and the id is of {born!r}"
    yield from _against_rules(known, decision)
    told = [("probability", decision.probabilities, again.probabilities)]
    if (decision.proposed is None) is not (again.proposed is None):
        yield "proposed: it is written down or comes out, and not both"
    elif decision.proposed is not None and again.proposed is not None:
        told.append(("proposed", decision.proposed, again.proposed))
    for what, written, made in told:
        for arm, was, comes in zip(known.arms, written or (), made.tolist(), strict=True):
            if abs(was - comes) > SAME:
                yield f"{what} of {arm}: {was!r} is written down, and {comes!r} comes out"
    failed = decision.failed[:-1] if not answered(decision) else decision.failed
    was_drawn = (*failed, decision.arm)
    if was_drawn != again.drawn:
        yield f"arm: {' then '.join(was_drawn)} is written down, and {' then '.join(again.drawn)} comes out"
    elif abs(decision.propensity - again.propensity) > SAME:
        yield f"propensity: {decision.propensity!r} is written down, and {again.propensity!r} comes out"


def _against_rules(known: Refitted, decision: Decision) -> Iterator[str]:
    """Whether the rule that is written down was one, and allows the arms that were allowed."""
    if not decision.rule:
        return
    rule = next((rule for rule in known.settings.rules if rule.name == decision.rule), None)
    if rule is None:
        yield f"rule: {decision.rule} is written down, and the route had none of that name"
        return
    mask = allowed_of(decision, len(known.arms))
    for arm, allowed, permitted in zip(known.arms, mask, rule.permits(known.arms), strict=True):
        if allowed and not permitted:
            yield f"allowed: {arm} is written down, and rule {decision.rule} does not allow it"


def _same(p: Vector, written: Vector) -> bool:
    return bool((abs(p - written) <= SAME).all())
