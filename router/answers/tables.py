"""Tables of plain text: aligned, and with colours only where somebody looks at a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from protos.messages import Estimate, LogPart

NOTHING = "-"

WIDE = 120
"""Columns of a terminal that sentences are wrapped to."""

FEW, MANY = 999.95, 1e9
"""Between these, a number is shown with all its digits before the point, in groups."""

_EASY = math.log(1e6)


class Ink:
    """How headings and alarms stand out; without colours they do not."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def heading(self, text: str) -> str:
        """Bold."""
        return self._in("1", text)

    def alarm(self, text: str) -> str:
        """Red."""
        return self._in("31", text)

    def _in(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colours else text


def table(
    ink: Ink, headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Sequence[int] = (0,)
) -> list[str]:
    """Lines of a table; the columns in `texts` begin at their left, the others, numbers, end at their right."""
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if k in texts else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    return [ink.heading(line(headings)), *map(line, rows)]


def number(value: float, *, signed: bool = False) -> str:
    """Four digits that say something, or all those before the point while people can read them."""
    sign = "+" if signed else ""
    grouped = FEW <= abs(value) < MANY
    return f"{value:{sign},.0f}" if grouped else f"{value:{sign}.4g}"


def count(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def how_many(n: float, what: str) -> str:
    """So many of something, in words that fit."""
    return f"{count(n) if n else 'no'} {what}{'' if n == 1 else 's'}"


def share(value: float) -> str:
    """A part of a whole."""
    return f"{value:.1%}"


def chance(value: float) -> str:
    """A probability that is told from evidence: never so sure that none is left."""
    return ">99.9%" if value > 0.999 else "<0.1%" if value < 0.001 else share(value)  # noqa: PLR2004  # what is shown


def interval(known: Estimate, *, signed: bool = False) -> str:
    """Both ends."""
    if not (known.HasField("low") and known.HasField("high")):
        return NOTHING
    return f"{number(known.low, signed=signed)} to {number(known.high, signed=signed)}"


def middle(known: Estimate, *, signed: bool = False) -> str:
    """What was measured."""
    return number(known.value, signed=signed) if known.HasField("value") else NOTHING


def e_value(log_evidence: float) -> str:
    """A number while people can read it, then a power of ten."""
    if log_evidence < _EASY:
        return f"{math.exp(log_evidence):.3g}"
    return "infinite" if log_evidence == math.inf else f"10^{log_evidence / math.log(10.0):.0f}"


def seconds(value: float) -> str:
    """A time in the unit that suits it."""
    return f"{value * 1e3:.3g} ms" if value < 1.0 else f"{value:.3g} s"


def moment(time: float) -> str:
    """Seconds since the epoch as a date and a time of day, in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S")


def log_part(part: LogPart) -> str:
    """The part of the log that an answer was worked out from."""
    left_out = []
    if part.other_arms:
        left_out.append(f"{count(part.other_arms)} left out, taken when the route had other arms")
    if part.gone:
        left_out.append(f"{count(part.gone)} kept no more")
    if not part.decisions:
        return "; ".join(["The log holds no decision that could be read", *left_out]) + "."
    which = "the newest" if not part.whole else "all that are kept" if left_out else "all that there are"
    when = f"{moment(part.first)} to {moment(part.last)} UTC"
    return "; ".join([f"Of the log were read {how_many(part.decisions, 'decision')}, {which}, {when}", *left_out]) + "."


def next_steps(*commands: str, where: str = "") -> list[str]:
    """Lines for what one may want next: commands, each with `where` behind it, which says whom to ask."""
    said = [f"croupier {command}{where}" for command in commands]
    line = "next: " + "   ".join(said)
    return [line] if len(line) <= WIDE else ["next:", *(f"  {each}" for each in said)]


def level(alpha: float) -> str:
    """The heading of a column of intervals."""
    return f"{100 * (1 - alpha):.4g} % interval"


def alarms(warnings: Iterable[str], ink: Ink) -> Iterator[str]:
    """Lines for sentences that somebody should see."""
    for warning in warnings:
        yield from map(ink.alarm, wrapped(warning))


def wrapped(sentence: str) -> list[str]:
    """Lines for a sentence."""
    return textwrap.wrap(sentence, WIDE, break_long_words=False, break_on_hyphens=False)
