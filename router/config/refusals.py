"""From parsed YAML to a struct, or to a sentence in the words of who writes YAML."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from router.config.places import example_at, keys_at, words_at
from router.config.struct import NAME

T = TypeVar("T", bound=msgspec.Struct)

_PLACE = re.compile(r"(.*) - at (`key` in )?`\$(.*)`", re.DOTALL)  # how msgspec ends a sentence: "... - at `$.guard`"
_STEP = re.compile(r"\.(\w+)|\[(?:(\d+)|\.\.\.)\]")  # of a place: a field, an index, or some value of a mapping
_KEY = re.compile(r"([a-z][\w.-]*): ")  # how our own sentences begin
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_TYPES = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`(?: with a timezone component)?")
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "null": "nothing",
    "str": "a text",
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "date": "a day",
    "datetime": 'a time with a zone, such as "2026-03-02T08:00:00+01:00"',
}
_BOOLEANS = {True: "yes, on and true", False: "no, off and false"}


def converted(raw: object, kind: type[T]) -> T:
    """The struct of a kind that parsed YAML says. Raises ValueError("KEY: SENTENCE"); KEY is where it is wrong."""
    try:
        return msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        keys, why = _located(str(error), raw, kind)
        raise ValueError(f"{keys}: {why}" if keys else why) from None


def _located(message: str, raw: Any, kind: type[msgspec.Struct]) -> tuple[str, str]:
    """The key that a refusal is about, and the refusal."""
    placed = _PLACE.fullmatch(message)
    why, is_key, place = placed.groups() if placed else (message, None, "")
    keys, value = _keys(message, place, raw, kind)
    if is_key:
        why = _no_name(next((key for key in value if not (isinstance(key, str) and NAME.match(key))), ""))
    elif why.startswith("Invalid ") and (words := words_at(kind, keys, raw)):
        why += f"; there are {', '.join(words)}"
    elif (unknown := _UNKNOWN.fullmatch(why)) and (meant := get_close_matches(unknown[1], keys_at(kind, keys, raw), 1)):
        why += f"; did you mean `{meant[0]}`?"
    if own := _KEY.match(why):
        keys, why = [*keys, own[1]], why[own.end() :]
    elif why.startswith("Expected "):
        why = _TYPES.sub(_in_words, why)
        if example := example_at(kind, keys, raw):
            why += f"; write {example}"
    return ".".join(map(str, keys)), why


def _in_words(types: re.Match[str]) -> str:
    return " or ".join(_WORDS.get(each, each) for each in types[1].split(" | "))


def _no_name(key: object) -> str:
    if isinstance(key, bool):
        return f"{key} is not a name: YAML reads a plain {_BOOLEANS[key]} so; put it in quotes"
    return f"{key!r} is not a name: up to 100 letters, digits, '_', '-' and '.', quoted if numeric"


def _keys(message: str, place: str, raw: Any, kind: type[msgspec.Struct]) -> tuple[list[Any], Any]:
    """The keys of a place in a document, and what stands there.

    msgspec does not say which value of a mapping it refuses, so each is tried alone: the one that it refuses in the
    same words is it.
    """
    keys: list[Any] = []
    value: Any = raw
    for field, index in _STEP.findall(place):
        if field:
            key: Any = field
        elif index:
            key = int(index)
        else:
            tried = ((key, _replaced(raw, keys, {key: value[key]})) for key in value)
            key = next((key for key, each in tried if _refusal(each, kind) == message), "?")
        keys.append(key)
        value = value.get(key) if isinstance(value, dict) else value[key]
    return keys, value


def _replaced(document: Any, keys: list[Any], value: object) -> Any:
    """A copy of a document in which `value` stands at a place."""
    if not keys:
        return value
    copy = document.copy()
    copy[keys[0]] = _replaced(document[keys[0]], keys[1:], value)
    return copy


def _refusal(raw: object, kind: type[msgspec.Struct]) -> str:
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
