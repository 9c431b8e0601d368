"""What a reload changes, in the words of the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from router.config.arm import Arm
from router.config.service import Config

_SECRETS = {"key_sha256", "certificate", "headers"}
_FILES = "files_digest"
_NOTHING = object()


class Change(msgspec.Struct, frozen=True):
    """Something that a reload changes."""

    what: str  # such as "KEY: OLD -> NEW"
    route: str = ""  # that it is about; empty: none in particular


def changes(before: Config, after: Config) -> list[Change]:
    """Each key that differs, and what to know of it; what identifies clients, or us to others, is not shown.

    Of what is new or gone, there is what the file says of it, and not the defaults.
    """
    found = []
    for name in dict.fromkeys([*before.routes, *after.routes]):
        old, new = before.routes.get(name), after.routes.get(name)
        found += [Change(line, name) for line in _differences(f"routes.{name}", old, new)]
        if old is not None and new is not None:
            found += [Change(line, name) for line in _warnings(f"routes.{name}.arms", old.arms, new.arms)]
    for key in Config.__struct_fields__:
        if key != "routes":
            found += [Change(line) for line in _differences(key, getattr(before, key), getattr(after, key))]
    return found


def _warnings(key: str, before: Mapping[str, Arm], after: Mapping[str, Arm]) -> Iterator[str]:
    for name, arm in after.items():
        if name in before and _model(before[name]) != _model(arm):
            yield (
                f"{key}.{name}: what was learnt about it stays, and it is another model now; an arm that is to begin "
                "anew needs another name"
            )


def _model(arm: Arm) -> Any:
    """What answers for an arm, wherever that is."""
    parts = arm.ensemble
    inside = parts and (parts.members, parts.combine, {name: _model(each) for name, each in parts.arms.items()})
    return arm.model, arm.version, inside


def _differences(key: str, before: Any, after: Any, field: str = "") -> Iterator[str]:
    """`field`: where the key ends in a name of ours, and not of the file's."""
    if before == after:
        return
    if field == _FILES:
        yield f"{key.removesuffix(f'.{field}')}: a file that it names has changed"
        return
    if field in _SECRETS:
        yield f"{key}: changed"
        return
    same = type(before) is type(after)
    old, new = _parts(before, whole=same), _parts(after, whole=same)
    is_ours = isinstance(before, msgspec.Struct) or isinstance(after, msgspec.Struct)
    lines: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        values = old.get(name, _NOTHING), new.get(name, _NOTHING)
        lines += _differences(f"{key}.{name}", *values, field=name if is_ours else "")
    yield from lines or [f"{key}: {_shown(before)} -> {_shown(after)}"]


def _parts(value: Any, *, whole: bool) -> dict[Any, Any]:
    """What a value consists of, by key, if of anything; with `whole` also what is as if nobody had said it."""
    if isinstance(value, msgspec.Struct):
        told = type(value).__struct_config__
        kind = {told.tag_field: told.tag} if told.tag_field else {}
        return kind | _fields(value, whole=whole)
    if isinstance(value, dict):
        return value
    if isinstance(value, tuple | list) and any(isinstance(each, msgspec.Struct) for each in value):
        return dict(enumerate(value))
    return {}


def _fields(value: msgspec.Struct, *, whole: bool) -> dict[str, Any]:
    told = {field.name: field for field in msgspec.structs.fields(value)}
    return {name: each for name, each in msgspec.structs.asdict(value).items() if whole or each != _default(told[name])}


def _default(field: msgspec.structs.FieldInfo) -> Any:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _shown(value: Any) -> str:
    if value is _NOTHING or value is None:
        return "nothing"
    if isinstance(value, msgspec.Struct):
        return "the defaults"
    return msgspec.json.encode(value, order="deterministic").decode()
