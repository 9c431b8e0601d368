"""A policy and its terms in the words of a configuration file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from router.config import Route as Settings


def terms(settings: Settings) -> str:
    """The kind of a route's policy, what of it is not as it would be anyway, and on what terms it is in charge."""
    policy = settings.policy
    usual = type(policy)()
    own = [
        f"{key} {_said(value)}"
        for key in policy.__struct_fields__
        if (value := getattr(policy, key)) != getattr(usual, key)
    ]
    kind = str(policy.__struct_config__.tag)
    return ", ".join([f"{kind} ({', '.join(own)})" if own else kind, *_beside(settings)])


def _beside(settings: Settings) -> Iterator[str]:
    if settings.floor:
        yield f"floor {settings.floor:g}"
    if settings.budget is not None:
        yield f"budget {settings.budget.share:g}"
    if settings.half_life_seconds is not None:
        yield f"half-life {settings.half_life_seconds:g} s"
    if settings.apprentice:
        yield "apprentice"


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(each)}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
