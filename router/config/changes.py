"""What a reload changes, in the words of the file."""

from __future__ import annotations

from typing import Any

import msgspec

from router.config.service import Config

_SECRETS = {"key_sha256", "certificate", "headers"}
_NOTHING = object()


def changes(before: Config, after: Config) -> list[str]:
    """Each key that differs, as "KEY: OLD -> NEW"; what identifies clients, or us to others, is not shown."""
    old, new = (msgspec.to_builtins(each, order="deterministic") for each in (before, after))  # a set has no order
    return list(_differences("", old, new))


def _differences(key: str, before: Any, after: Any) -> list[str]:
    if before == after:
        return []
    if key.rpartition(".")[2] in _SECRETS:
        return [f"{key}: changed"]
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for name in dict.fromkeys([*before, *after])
            for line in _differences(
                f"{key}.{name}" if key else name, before.get(name, _NOTHING), after.get(name, _NOTHING)
            )
        ]
    return [f"{key}: {_shown(before)} -> {_shown(after)}"]


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else msgspec.json.encode(_open(value)).decode()


def _open(value: Any) -> Any:
    """A value without the secrets in it."""
    if isinstance(value, dict):
        return {key: _open(each) for key, each in value.items() if key not in _SECRETS}
    return [_open(each) for each in value] if isinstance(value, list) else value
