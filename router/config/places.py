"""What may stand at a place of a document, such as the configuration: the words of a choice, the keys of a part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec


def words_at(kind: Any, keys: Sequence[Any], raw: Any) -> list[str]:
    """The words of which one has to stand at a place of a document of this kind; none: it is no choice."""
    return [str(word) for hint in _hints_at(kind, keys, raw) if get_origin(hint) is Literal for word in get_args(hint)]


def keys_at(kind: Any, keys: Sequence[Any], raw: Any) -> list[str]:
    """The keys that the mapping at a place of a document may have; none: it is free to have any."""
    structs = [hint for hint in _hints_at(kind, keys, raw) if _is_struct(hint)]
    tags = {str(field) for struct in structs if (field := struct.__struct_config__.tag_field)}
    return [*tags, *(name for struct in structs for name in struct.__struct_fields__)]


def example_at(kind: Any, keys: Sequence[Any], raw: Any) -> str:
    """The mapping that was meant where a single value stands at a place; empty where none comes to mind."""
    value = raw
    for key in keys:
        value = value[key]
    structs = [hint for hint in _hints_at(kind, keys, raw) if _is_struct(hint)]
    if not structs or not isinstance(value, str | int | float):
        return ""
    if field := structs[0].__struct_config__.tag_field:
        tags = [str(struct.__struct_config__.tag) for struct in structs]
        return f"{{{field}: {(get_close_matches(str(value), tags, 1) or tags)[0]}}}"
    field = structs[0].__struct_fields__[0]
    try:
        msgspec.convert({field: value}, structs[0])
    except msgspec.ValidationError:
        return ""
    return f"{{{field}: {value}}}"


def _hints_at(kind: Any, keys: Sequence[Any], raw: Any) -> list[Any]:
    """The types that a place may hold, as far as what stands around it tells them apart."""
    hints, value = _alternatives(kind), raw
    for key in keys:
        hints = [each for hint in hints for inside in _inside(hint, key, value) for each in _alternatives(inside)]
        value = value[key]
    tagged = [hint for hint in hints if _is_struct(hint) and _has_tag(hint, value)]
    return tagged or hints


def _inside(hint: Any, key: Any, value: Any) -> Iterator[Any]:
    if _is_struct(hint):
        settings = hint.__struct_config__
        if key == settings.tag_field:
            yield Literal[settings.tag]
        elif _has_tag(hint, value) and key in hint.__struct_fields__:
            yield get_type_hints(hint)[key]
    elif inner := get_args(hint):
        yield inner[1] if get_origin(hint) is dict else inner[0]


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union, or the one type that it is."""
    is_plain = get_origin(hint) in {None, dict, list, tuple, frozenset, Literal}
    return [hint] if is_plain else [each for inner in get_args(hint) for each in _alternatives(inner)]


def _has_tag(struct: Any, value: Any) -> bool:
    settings = struct.__struct_config__
    return settings.tag_field is None or (isinstance(value, dict) and value.get(settings.tag_field) == settings.tag)


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)
