"""Why a request went where it went: all that was known about it, and the choice made again."""

from __future__ import annotations

from protos.messages import Explanation
from router.answers.replay import Again, Refitted, allowed_of, answered, key_of, made_again, refitted, scores
from router.answers.terms import terms
from router.call import HELD, REWARD, Decision, Fit
from router.errors import UnknownDecision
from router.stores import Store


def explain(store: Store, decision_id: str, *, show_unit: bool = False) -> Explanation:
    """The explanation of a decision. Raises UnknownDecision, and StoreError."""
    decision = store.find([decision_id]).get(decision_id)
    if decision is None:
        raise UnknownDecision(decision_id)
    fit = store.fit(decision.route, decision.policy_version)
    explained = explanation(decision, fit, show_unit=show_unit)
    known = store.outcomes([decision_id]).get(decision_id, {})
    for outcome in known.values():
        if outcome.name != HELD:
            explained.outcomes.add(name=outcome.name, value=outcome.value, time=outcome.time)
        elif REWARD not in known:
            explained.outcomes.add(name=REWARD, value=outcome.value, time=outcome.time)
    return explained


def explanation(decision: Decision, fit: Fit | None, *, show_unit: bool = False) -> Explanation:
    """What a decision and the fit of its policy's version say, without what became of it."""
    told = Explanation(
        decision_id=decision.id,
        route=decision.route,
        time=decision.time,
        unit=decision.unit if show_unit else "",
        rule=decision.rule,
        arm=decision.arm,
        propensity=decision.propensity,
        answered=answered(decision),
        policy_version=decision.policy_version,
        prediction=decision.prediction,
    )
    if fit is None:
        told.differences.append(
            f"Version {decision.policy_version} of the policy is not in the store, so the choice cannot be made again."
        )
        _only_numbers(told, decision)
        return told
    told.settings, told.fitted = fit.settings, fit.time
    try:
        known = refitted(fit)
    except Exception as error:  # noqa: BLE001 - a policy may raise anything
        told.differences.append(f"The policy cannot be fitted as it was: {error}.")
        _only_numbers(told, decision)
        return told
    told.policy = terms(known.settings)
    told.sticky = key_of(decision, known.settings) != decision.id
    again = None
    try:
        again = made_again(known, decision)
    except Exception as error:  # noqa: BLE001 - the same
        told.differences.append(f"The choice cannot be made again: {error}.")
    _tell_context(told, decision, known.settings.schema.columns)
    _tell_arms(told, decision, known, again)
    if again is not None:
        told.reproduced = again.reproduced
        told.differences.extend(again.differences)
        if again.canary_share is not None:
            told.canary_share = again.canary_share
    return told


def _tell_context(told: Explanation, decision: Decision, columns: tuple[str, ...]) -> None:
    context = decision.context or ()
    names = columns if len(columns) == len(context) else tuple(f"[{k}]" for k in range(len(context)))
    for name, value in zip(names, context, strict=True):
        told.context.add(column=name, value=value)


def _tell_arms(told: Explanation, decision: Decision, known: Refitted, again: Again | None) -> None:
    written = decision.probabilities or ()
    if len(written) != len(known.arms):
        return
    mask = allowed_of(decision, len(known.arms))
    race = scores(known.salt, known.arms, written, key_of(decision, known.settings))
    for k, name in enumerate(known.arms):
        about = known.settings.arms[name]
        told.arms.add(
            name=name,
            model=about.model,
            target=about.where,
            allowed=bool(mask[k]),
            probability=written[k],
            again=None if again is None else float(again.probabilities[k]),
            proposed=None if decision.proposed is None else decision.proposed[k],
            score=race[k],
            failed=name in decision.failed,
        )


def _only_numbers(told: Explanation, decision: Decision) -> None:
    """What can be said without the settings: numbers by their place."""
    _tell_context(told, decision, ())
    for k, p in enumerate(decision.probabilities or ()):
        told.arms.add(name=f"[{k}]", allowed=bool(decision.allowed >> k & 1), probability=p)
