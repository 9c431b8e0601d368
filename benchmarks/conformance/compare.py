"""Says how two answers differ, a line for each difference: "where: theirs -> ours"."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from benchmarks.conformance.answers import SENTENCE, Answer
from benchmarks.conformance.language import Case, Known

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
    if not theirs.good or not ours.good:
        # Of an answer and a refusal nothing else can be compared.
        seen = SENTENCE if theirs.good else theirs.body
        if seen != ours.body and not ours.good:
            yield f"refusal: {seen} -> {ours.body}"
        return
    yield from _unlike("header ", theirs.headers, ours.headers)
    yield from _unlike("", theirs.body, ours.body)


def _unlike(where: str, theirs: Any, ours: Any) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted(theirs.keys() | ours.keys()):
            inside = f"{where}{key}" if not where or where.endswith(" ") else f"{where}.{key}"
            yield from _unlike(inside, theirs.get(key, _ABSENT), ours.get(key, _ABSENT))
    elif _parts(theirs) and _parts(ours):
        if len(theirs) != len(ours):
            yield f"{where or 'body'}: {len(theirs)} -> {len(ours)} of them"
        for place, pair in enumerate(zip(theirs, ours, strict=False)):
            yield from _unlike(f"{where}[{place}]", *pair)
    elif repr(theirs) != repr(ours):  # to Python 1, 1.0 and True are equal
        yield f"{where or 'body'}: {_short(theirs)} -> {_short(ours)}"


def _parts(value: Any) -> bool:
    """Whether a value is a list of parts, and not one of numbers."""
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _short(value: Any) -> str:
    said = str(value)
    return said if len(said) <= _SHOWN else said[:_SHOWN] + "..."


@dataclass(frozen=True)
class Verdict:
    """What became of a case: the differences seen, each with what is known of it, and the known ones not seen."""

    case: Case
    seen: list[tuple[str, Known | None]]
    gone: list[Known]

    @property
    def unlisted(self) -> list[str]:
        """The differences that nobody knew of."""
        return [line for line, known in self.seen if known is None]


def judged(case: Case, lines: list[str], everywhere: Sequence[Known]) -> Verdict:
    """The differences of a case, held against those that are known of it and of all."""
    known = (*case.differs, *everywhere)
    seen = [(line, next((each for each in known if _is(each, line)), None)) for line in lines]
    met = [each for _, each in seen]
    return Verdict(case, seen, [each for each in case.differs if each not in met])


def _is(known: Known, line: str) -> bool:
    # Brackets are no pattern here.
    return any(fnmatchcase(line, pattern.replace("[", "[[]")) for pattern in known.seen)
