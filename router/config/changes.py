"""What a reload changes, in the words of the file."""

from __future__ import annotations

from typing import Any

import msgspec

from router.config.service import Config

_SECRETS = {"key_sha256", "certificate"}
_NOTHING = object()


def changes(before: Config, after: Config) -> list[str]:
    """Each key that differs, as "KEY: OLD -> NEW"; what identifies clients is not shown."""
    return list(_differences("", msgspec.to_builtins(before), msgspec.to_builtins(after)))


def _differences(key: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            line
            for name in dict.fromkeys([*before, *after])
            for line in _differences(
                f"{key}.{name}" if key else name, before.get(name, _NOTHING), after.get(name, _NOTHING)
            )
        ]
    if before == after:
        return []
    if key.rpartition(".")[2] in _SECRETS:
        return [f"{key}: changed"]
    return [f"{key}: {_shown(before)} -> {_shown(after)}"]


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else msgspec.json.encode(value).decode()
