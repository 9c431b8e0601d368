"""What `croupier evaluate` judges: a policy in the place of a route's own, and the terms on which it would deal."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from protos.errors import InvalidArgument
from router.config import AnyPolicy, strict_yaml
from router.config import Route as Settings
from router.config.learning import Budget, WarmStart
from router.config.refusals import converted
from router.config.struct import Struct
from router.errors import listed

EVALUATED = (
    "The value of what would have been served with this policy in charge of every logged draw: floor or budget "
    "included, among the arms that rules, guard and switches allowed then; without canary, schedule or apprentice"
)
"""In one sentence, what an evaluation is of."""


class Candidate(Struct, frozen=True):
    """A policy, and what is to replace the route's: terms that are not given stay as they are."""

    policy: AnyPolicy
    floor: float | UnsetType = UNSET
    budget: Budget | UnsetType | None = UNSET
    half_life_seconds: float | UnsetType | None = UNSET
    warm_start: WarmStart | UnsetType | None = UNSET


KEYS = Candidate.__struct_fields__


def with_policy(settings: Settings, text: str) -> Settings:
    """The settings of a route with a policy in charge that is given in YAML or JSON, and else on the same terms.

    The text is what stands under the key `policy` of a route; or, to judge it on other terms, `policy` itself and
    beside it `floor`, `budget`, `half_life_seconds` or `warm_start`. It is in charge: no canary, schedule or apprentice
    comes before it. Rules, guard and switches cannot be given, for what they allowed at each decision is in the log,
    and that holds. Raises InvalidArgument.
    """
    try:
        candidate = converted(_terms(strict_yaml.load(text)), Candidate)
        given = {key: value for key in KEYS if (value := getattr(candidate, key)) is not UNSET}
        return msgspec.structs.replace(settings, **given, apprentice=False, schedule=None, canary=None, guardrails={})
    except (ValueError, RecursionError) as error:
        said = str(error)
        raise InvalidArgument(said if said.startswith("policy") else f"policy: {said}") from None


def _terms(raw: Any) -> Any:
    """What was given under the keys of a candidate. Raises ValueError for keys in the wrong place."""
    if not isinstance(raw, dict) or "policy" not in raw:
        raw = {"policy": raw}
    if strange := raw.keys() - set(KEYS):
        logged = "what rules, guard and switches allowed is as logged, and there is no canary, schedule or apprentice"
        raise ValueError(f"{listed(map(str, strange))}: judged are {listed(KEYS)}; {logged}")
    if isinstance(raw["policy"], dict) and (inside := raw["policy"].keys() & set(KEYS)):
        raise ValueError(
            f"{listed(inside)}: belongs beside the policy, as in {{policy: {{kind: thompson}}, floor: 0.1}}"
        )
    return raw
