"""Says how two answers differ, a line for each difference: "where: theirs -> ours"."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

from benchmarks.conformance.asking import SENTENCE, Answer
from benchmarks.conformance.requests import Case, Listed

_ABSENT = "nothing"
_SHOWN = 60  # characters of a value


def differences(theirs: list[Answer], ours: list[Answer]) -> list[str]:
    """What differs between the answers of two servers to one request, in the order of their fields."""
    if len(theirs) == 1:
        return [*_differences(theirs[0], ours[0])]
    return [
        f"call {place} {line}"
        for place, pair in enumerate(zip(theirs, ours, strict=True))
        for line in _differences(*pair)
    ]


def _differences(theirs: Answer, ours: Answer) -> Iterator[str]:
    if theirs.status != ours.status:
        yield f"status: {theirs.status} -> {ours.status}"
    if not ours.good and ours.body != {"error": SENTENCE}:
        yield f"ours is refused without a sentence: {_short(ours.body)}"
    # Of an answer and a refusal the rest cannot be compared.
    if theirs.good == ours.good:
        yield from _unlike("header ", theirs.headers, ours.headers)
        yield from _unlike("", theirs.body, ours.body)


def _unlike(where: str, theirs: Any, ours: Any) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            inside = f"{where}{key}" if not where or where.endswith(" ") else f"{where}.{key}"
            yield from _unlike(inside, theirs.get(key, _ABSENT), ours.get(key, _ABSENT))
    elif _listed(theirs) and _listed(ours) and len(theirs) == len(ours):
        for place, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _unlike(f"{where}[{place}]", *pair)
    elif theirs != ours or type(theirs) is not type(ours):
        yield f"{where or 'body'}: {_short(theirs)} -> {_short(ours)}"


def _listed(value: Any) -> bool:
    """Whether a list is one of parts, and not one of numbers."""
    return isinstance(value, list) and all(isinstance(each, dict | list) for each in value)


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) <= _SHOWN else said[:_SHOWN] + "..."


def judged(case: Case, seen: list[str], everywhere: tuple[Listed, ...]) -> tuple[list[str], list[Listed], list[Listed]]:
    """Of the differences seen those that nobody listed; those that were listed and seen; those no longer seen."""
    met = [each for each in (*case.differs, *everywhere) if any(matches(each, line) for line in seen)]
    unlisted = [line for line in seen if not any(matches(each, line) for each in met)]
    return unlisted, met, [each for each in case.differs if each not in met]


def matches(listed: Listed, line: str) -> bool:
    """Whether a listed difference is the one of a line. Brackets are no pattern here."""
    return fnmatchcase(line, listed.seen.replace("[", "[[]"))
