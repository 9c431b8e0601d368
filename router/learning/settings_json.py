"""What is in force of a route as JSON: written down with each fit, so that its decisions can be taken again."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from router.config import Route as Settings

_SHARE = "canary_share"  # no setting has this name


def settings_json(settings: Settings, canary_share: float | None = None) -> str:
    """What is in force of a route as JSON: its settings, and what its canary gets where there is one.

    Without what its arms are asked with. JSON has no infinity: it says "inf".
    """
    told = msgspec.to_builtins(settings)
    _without_headers(told["arms"])
    if canary_share is not None:
        told[_SHARE] = canary_share
    return msgspec.json.encode(_finite(told)).decode()


def in_force(text: str) -> tuple[Settings, float | None]:
    """The settings of a route from their JSON, and what its canary got: None without one, and in older JSON.

    Raises ValueError for the settings of another Croupier.
    """
    told = msgspec.json.decode(text, type=dict[str, Any])
    share = told.pop(_SHARE, None)
    return msgspec.convert(told, Settings, strict=False), share


def settings_of(text: str) -> Settings:
    """The settings of a route from their JSON. Raises ValueError for those of another Croupier."""
    return in_force(text)[0]


def _without_headers(arms: dict[str, Any]) -> None:
    for arm in arms.values():
        arm.pop("headers")  # which may be secret; these settings are kept, and shown to whoever explains a decision
        if arm["ensemble"]:
            _without_headers(arm["ensemble"]["arms"])


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
