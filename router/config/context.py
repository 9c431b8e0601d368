"""The context of a route: what is known about a request, where it comes from, and how it becomes numbers."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, TypeAlias

from bandits.linear import FARTHEST
from router.config.struct import GREATEST, Name, Struct
from router.errors import listed

REFUSE, ZEROS = "refuse", "zeros"

RESERVED = ("unit", "metadata", "hour", "weekday", "abs", "min", "max", "true", "false")
"""What stands for something else in a rule."""

MOST_LEVELS = 1000

_LONGEST_LEVEL = 100
_FEATURE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SOURCES = ("tensor", "parameter", "metadata", "lookup")
_NUMERIC = {"mean": 0.0, "scale": 1.0, "low": None, "high": None, "outside": REFUSE}
"""What only a number has, and what it is where nothing is said."""


class Feature(Struct, frozen=True):
    """A number that is known about a request or, with `levels`, one word of several. It comes from one source.

    A number is finite. NaN counts as missing, for a tensor has no other way to say so; an infinite one is refused. An
    empty text counts as missing too. A number may come as a text that spells it, since metadata can say it in no other
    way; a word may come as a whole number or as true or false.
    """

    tensor: str = ""  # an input of the request: [rows, columns], [rows, ..., columns] or, one row, [columns]
    parameter: str = ""  # of the request
    metadata: str = ""  # of the call: an HTTP header
    lookup: str = ""  # a feature table, read by the unit of the request
    column: int | Name | None = None  # of the tensor, counted from 0 through all of a row; of the table, its name
    rows: Literal["one", "first", "mean"] = "one"  # of a tensor: more than one are refused, or how they become one
    levels: tuple[str, ...] = ()  # the words; each is a column of 0 and 1
    unknown: str = REFUSE  # another word: "refuse", "zeros" in all columns, or a level, which may be a new one
    missing: float | str = REFUSE  # "refuse", or what is taken instead: a number; a level, or "zeros"
    mean: float = 0.0  # a policy that learns from contexts reads (number - mean) / scale
    scale: float = 1.0  # such as the standard deviation
    low: float | None = None  # the least number
    high: float | None = None  # and the greatest
    outside: Literal["refuse", "clip"] = "refuse"  # what is done to a number beyond these

    def __post_init__(self) -> None:
        if len([source for source in _SOURCES if getattr(self, source)]) != 1:
            raise ValueError(f"a feature comes from one source; give one of {', '.join(_SOURCES)}")
        self._check_column()
        if self.levels:
            self._check_levels()
        else:
            self._check_numbers()

    @property
    def all_levels(self) -> tuple[str, ...]:
        """The words that it can be: the declared ones, and the one that unknown ones are taken for."""
        if self.unknown in {REFUSE, ZEROS, *self.levels}:
            return self.levels
        return (*self.levels, self.unknown)

    @property
    def least(self) -> float:
        """The least number that is taken. Without `low`, as far out as policies read."""
        return self.mean - FARTHEST * self.scale if self.low is None else self.low

    @property
    def greatest(self) -> float:
        """The greatest number that is taken."""
        return self.mean + FARTHEST * self.scale if self.high is None else self.high

    def _check_column(self) -> None:
        if self.tensor:
            if not (isinstance(self.column, int) and self.column >= 0):
                raise ValueError("column: say which column of the tensor, counted from 0")
        elif self.lookup:
            if not isinstance(self.column, str):
                raise ValueError("column: say which column of the feature table, by its name")
        elif self.column is not None:
            raise ValueError("column: only a tensor and a feature table have columns")
        if self.rows != "one" and not self.tensor:
            raise ValueError("rows: only a tensor has rows")
        if self.rows == "mean" and self.levels:
            raise ValueError("rows: words have no mean")

    def _check_levels(self) -> None:
        if len(self.levels) > MOST_LEVELS:
            raise ValueError(f"levels: at most {MOST_LEVELS}, got {len(self.levels)}")
        if len(set(self.levels)) < len(self.levels):
            raise ValueError("levels: one is given twice")
        for level in self.all_levels:
            if not 0 < len(level) <= _LONGEST_LEVEL or level in {REFUSE, ZEROS}:
                raise ValueError(
                    f"levels: {level[:_LONGEST_LEVEL]!r} is none: up to {_LONGEST_LEVEL} characters, "
                    f'and neither "{REFUSE}" nor "{ZEROS}", which say what is done about others'
                )
        if self.missing not in {REFUSE, ZEROS, *self.all_levels}:
            raise ValueError(f'missing: must be "{REFUSE}", "{ZEROS}" or one of the levels {listed(self.all_levels)}')
        for key, default in _NUMERIC.items():
            if getattr(self, key) != default:
                raise ValueError(f"{key}: a feature with levels has no numbers")

    def _check_numbers(self) -> None:
        if self.unknown != REFUSE:
            raise ValueError("unknown: only a feature with levels has unknown ones")
        if not abs(self.mean) < GREATEST:  # true for NaN too
            raise ValueError(f"mean: must be a number below {GREATEST}")
        if not 1 / GREATEST < self.scale < GREATEST:
            raise ValueError(f"scale: must be a number above {1 / GREATEST} and below {GREATEST}")
        if not (self.mean - FARTHEST * self.scale <= self.least < self.greatest <= self.mean + FARTHEST * self.scale):
            raise ValueError(f"low: must be below high, and neither farther than {FARTHEST:g} scales from mean")
        if self.outside == "clip" and self.low is None and self.high is None:
            raise ValueError("outside: nothing is outside; give low, high or both")
        if isinstance(self.missing, str):
            if self.missing != REFUSE:
                raise ValueError(f'missing: must be "{REFUSE}" or a number')
        elif not self.least <= self.missing <= self.greatest:
            raise ValueError("missing: must be a number from low to high")


Features: TypeAlias = Mapping[str, Feature]
"""The context of a route, by name."""


class FeatureTable(Struct, frozen=True):
    """What is known about units beforehand: a row each, kept in the store and filled by PutFeatures."""

    columns: dict[Name, Literal["number", "text"]]  # what each holds

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("columns: at least one is needed")
        for name in self.columns:
            if not name.isidentifier() or keyword.iskeyword(name):
                raise ValueError(f"columns: {name!r} must be made of letters, digits and '_', not a digit first")


@dataclass(frozen=True, slots=True)
class Schema:
    """What the numbers of a context mean, one by one."""

    features: tuple[str, ...] = ()  # by name, in the order of the configuration
    columns: tuple[str, ...] = ()  # such as "volatility" and "region=eu"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    digest: str = ""  # changes when a number comes to mean something else; empty: there is no context


def schema_of(context: Features) -> Schema:
    """The numbers that a context becomes. Raises ValueError for a name that no rule could say.

    What is done about missing, unknown and outlying values is not in the digest: it changes some numbers, but none's
    meaning, and what was learnt stays.
    """
    for name in context:
        if not _FEATURE.fullmatch(name) or keyword.iskeyword(name) or name in RESERVED:
            raise ValueError(
                f"{name!r} is no name for a feature: up to 100 letters, digits and '_', not a digit first, and no word "
                f"of the rules' language ({', '.join(RESERVED)}, and, or, not, in, ...)"
            )
    if not context:
        return Schema()
    columns: list[tuple[str, float, float]] = []
    meaning: list[object] = []
    for name, feature in context.items():
        levels = feature.all_levels
        columns += [(f"{name}={level}", 0.0, 1.0) for level in levels] or [(name, feature.mean, feature.scale)]
        source = [getattr(feature, key) for key in (*_SOURCES, "column", "rows")]
        meaning.append((name, source, levels, feature.mean, feature.scale))
    names, mean, scale = zip(*columns, strict=True)
    return Schema(tuple(context), names, mean, scale, blake2b(repr(meaning).encode(), digest_size=6).hexdigest())


def check_lookups(context: Features, tables: Mapping[str, FeatureTable]) -> None:
    """Raises ValueError naming the first feature whose table or column is not declared, or holds something else."""
    for name, feature in context.items():
        if not feature.lookup:
            continue
        table = tables.get(feature.lookup)
        if table is None:
            raise ValueError(
                f"{name}.lookup: there is no feature table {feature.lookup!r}; there are {listed(tables) or 'none'}"
            )
        holds, needed = table.columns.get(str(feature.column)), "text" if feature.levels else "number"
        if holds is None:
            raise ValueError(f"{name}.column: table {feature.lookup!r} has {listed(table.columns)}")
        if holds != needed:
            raise ValueError(
                f"{name}.column: {feature.column} of table {feature.lookup!r} is a {holds}, "
                f"and a feature {'with' if feature.levels else 'without'} levels needs a {needed}"
            )
