"""Counting what is reported, once: from feedback to one commit, and to what became of each. Blocks on the store."""

from __future__ import annotations

import logging
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from protos.errors import CallError
from router.call import HELD, REWARD, Batch, Credit, Decision, Feedback, Outcome
from router.errors import AlreadyRewarded, Contended, Damaged, NotLearnt, NotServed, UnknownDecision
from router.ids import time_of
from router.learning.credit import Crediting
from router.route import Route
from router.stores import Malformed, Store, StoreError

ATTEMPTS = 5
"""At a correction that other replicas are always faster than."""

RECENT_SECONDS = 3600.0
"""After which nobody hopes that the replica which made an unknown decision will still commit it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Counted:
    """That something of a feedback was counted."""

    decision: Decision
    names: tuple[str, ...]  # of the outcomes that were counted now, or held; others of it were known already
    rewarded: bool  # whether the decision's first reward is among them


Verdict: TypeAlias = Counted | CallError
"""What became of a feedback: what of it was counted, or why nothing was."""


class Crediter:
    """How every route credits, at one moment."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = routes
        self._creditings: dict[str, Crediting] = {}

    def __call__(self, route: str) -> Crediting:
        """How a route credits. Raises NotServed."""
        crediting = self._creditings.get(route)
        if crediting is None:
            if route not in self._routes:
                raise NotServed(route)
            crediting = self._creditings[route] = Crediting(self._routes[route])
        return crediting


def count(store: Store, routes: Mapping[str, Route], batch: Batch, feedbacks: Sequence[Feedback]) -> list[Verdict]:
    """Writes a batch and the feedback with it, and returns what became of each feedback, in order.

    What the feedback says comes before the batch's own credits. Those are of decisions that are due, so that no reward
    of theirs has to wait.
    Raises StoreError, and then nothing was written. A correction holds only while the value that it replaces is there;
    where another replica was faster, it is made anew from what is there now.
    """
    known = {decision.id: decision for decision in batch.decisions}
    verdicts: dict[int, Verdict] = {}
    if unknown := {feedback.decision for feedback in feedbacks} - known.keys():
        found, damaged = _found(store, unknown)
        known |= found
        told = ((index, damaged.get(feedback.decision)) for index, feedback in enumerate(feedbacks))
        verdicts = {index: error for index, error in told if error is not None}
    crediter = Crediter(routes)
    due = {credit.outcome.decision for credit in batch.credits}
    left = list(range(len(feedbacks)))
    for attempt in range(ATTEMPTS):
        try:
            made = _credits(store, crediter, known, {index: feedbacks[index] for index in left}, due, verdicts)
            credits = [credit for each in made.values() for credit in each]
            claims = iter(store.commit(replace(batch, credits=[*credits, *batch.credits])))
        except StoreError:
            if not attempt:
                raise
            break  # what came before is written
        batch, left = Batch(), []
        for index, credits in made.items():
            decision = known[feedbacks[index].decision]
            claimed = [credit for credit in credits if next(claims)]
            verdicts[index] = _verdict(decision, claimed, verdicts.get(index))
            if len(claimed) < len(credits) and crediter(decision.route).rules.corrections == "replace":
                left.append(index)
        if not left:
            break
    for index in left:
        if not isinstance(verdicts[index], Counted):
            verdicts[index] = Contended(feedbacks[index].decision)
    return [verdicts[index] for index in range(len(feedbacks))]


def _credits(
    store: Store,
    crediter: Crediter,
    known: Mapping[str, Decision],
    feedbacks: Mapping[int, Feedback],
    due: Container[str],
    verdicts: dict[int, Verdict],
) -> dict[int, list[Credit]]:
    """What each feedback adds, by its index; those that add nothing get their verdict, unless they have a better one.

    One that nobody can learn from fails alone: it must not keep the others from being counted.
    """
    looking: dict[int, Crediting] = {}
    for index, feedback in feedbacks.items():
        try:
            looking[index] = crediter(_decision(known, feedback).route)
        except CallError as error:
            verdicts.setdefault(index, error)
    back = {
        feedbacks[index].decision
        for index, crediting in looking.items()
        if crediting.looks_back(known[feedbacks[index].decision], feedbacks[index])
    }
    outcomes: dict[str, dict[str, Outcome]] = {id: dict(of) for id, of in store.outcomes(back).items()} if back else {}
    made: dict[int, list[Credit]] = {}
    for index, crediting in looking.items():
        feedback = feedbacks[index]
        decision = known[feedback.decision]
        try:
            there = outcomes.get(decision.id, {})
            credits = made[index] = crediting.credits(decision, feedback, there, due=decision.id in due)
        except CallError as error:
            verdicts.setdefault(index, error)
            continue
        except Exception:  # noqa: BLE001 - a policy may raise anything
            _log.exception("route %s: feedback for %s cannot be counted", decision.route, decision.id)
            verdicts.setdefault(index, NotLearnt(decision.id))
            continue
        if decision.id in back:
            outcomes.setdefault(decision.id, {}).update({credit.outcome.name: credit.outcome for credit in credits})
    if not is_finite(made.values()):
        for index in [index for index, credits in made.items() if not is_finite([credits])]:
            _log.error("feedback for %s would add what is not finite", feedbacks[index].decision)
            verdicts.setdefault(index, NotLearnt(feedbacks[index].decision))
            del made[index]
    return made


def _found(store: Store, ids: Iterable[str]) -> tuple[dict[str, Decision], dict[str, Damaged]]:
    """Those of these decisions that are there, and those that cannot be read, which must not keep others back."""
    try:
        return store.find(ids), {}
    except Malformed:
        pass
    found: dict[str, Decision] = {}
    damaged: dict[str, Damaged] = {}
    for id in ids:
        try:
            found |= store.find([id])
        except Malformed as error:
            damaged[id] = Damaged(str(error))
    return found, damaged


def _decision(known: Mapping[str, Decision], feedback: Feedback) -> Decision:
    if feedback.decision not in known:
        born = time_of(feedback.decision)
        recent = born is not None and abs(feedback.time - born) < RECENT_SECONDS
        raise UnknownDecision(feedback.decision, recent=recent)
    return known[feedback.decision]


def is_finite(made: Iterable[Sequence[Credit]]) -> bool:
    """Whether sums stay numbers when these are added."""
    rows = [add.row for credits in made for credit in credits for add in credit.adds]
    return not rows or bool(np.isfinite(np.concatenate(rows)).all())


def _verdict(decision: Decision, claimed: Sequence[Credit], before: Verdict | None) -> Verdict:
    """What was counted now and, for a correction that is tried again, before."""
    names = tuple([REWARD if credit.outcome.name == HELD else credit.outcome.name for credit in claimed])
    rewarded = REWARD in names and claimed[names.index(REWARD)].replaces is None
    if isinstance(before, Counted):
        return Counted(decision, tuple(dict.fromkeys(before.names + names)), before.rewarded or rewarded)
    return Counted(decision, names, rewarded) if names else AlreadyRewarded(decision.id)
