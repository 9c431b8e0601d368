"""The language of rules: conditions over declared names, checked when they are loaded and compiled to closures.

    volatility > 0.30 and not (8 <= hour < 16.5) or region in ["eu", "us"] and metadata["desk"] == "fx"

It reads as Python does: and, or, not; comparisons, also chained; in and not in lists; + - * /, abs, min and max of
numbers; numbers, texts, true and false. A number is a float64, so x / 0 is infinite. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from itertools import pairwise
from typing import Any, NoReturn, TypeAlias

from router.errors import listed

LONGEST, DEEPEST = 1000, 20
"""Characters of an expression, and levels of it inside one another."""

Facts: TypeAlias = Sequence[Any]
"""What is known, by slot."""

Evaluate: TypeAlias = Callable[[Facts], Any]


class Kind(Enum):
    """What a part of an expression is."""

    NUMBER = "a number"
    TEXT = "a text"
    CONDITION = "true or false"
    TEXTS = "a mapping of texts"  # by name; empty where there is none


@dataclass(frozen=True, slots=True)
class Variable:
    """A name that an expression may use."""

    slot: int  # of the facts
    kind: Kind
    levels: tuple[str, ...] = ()  # all that a text can be; none: it can be anything


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition. Pure, and safe to share."""

    holds: Callable[[Facts], bool]
    reads: frozenset[str]  # the variables in it


class ExpressionError(ValueError):
    """What is wrong with an expression, and at which column, counted from 1."""

    def __init__(self, column: int, why: str) -> None:
        super().__init__(f"column {column}: {why}")
        self.column = column


def expression(text: str, variables: Mapping[str, Variable]) -> Expression:
    """The condition that a text spells. Raises ExpressionError."""
    text = text.strip()
    if len(text) > LONGEST:
        raise ExpressionError(LONGEST, f"at most {LONGEST} characters are taken, there are {len(text)}")
    reader = _Reader(text, variables)
    part = reader.read(_parsed(text))
    if part.kind is not Kind.CONDITION:
        raise ExpressionError(1, f"a rule needs a condition, and this is {part.kind.value}")
    return Expression(part.evaluate, frozenset(reader.reads))


def _parsed(text: str) -> ast.expr:
    if "\\" in text:
        raise ExpressionError(text.index("\\") + 1, "a backslash means nothing here")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as for "1and 2"
            # Lines mean nothing here, and columns are counted through.
            return ast.parse(" ".join(text.split("\n")), mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(min(error.offset or 1, len(text) + 1), f"this cannot be read: {error.msg}") from None
    except (ValueError, MemoryError, RecursionError):  # a NUL, or too much inside one another
        raise ExpressionError(1, "this cannot be read") from None


@dataclass(frozen=True, slots=True)
class _Part:
    """A part that was read."""

    node: ast.expr
    kind: Kind
    evaluate: Evaluate
    constant: bool = False
    levels: tuple[str, ...] = ()
    slot: int | None = None  # of a variable that stands alone


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _divide(a: float, b: float) -> float:
    """As IEEE 754 has it."""
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)


_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: _divide,
}
_FUNCTIONS: dict[str, tuple[Callable[..., float], int, int]] = {  # with the fewest and the most arguments
    "abs": (abs, 1, 1),
    "min": (min, 2, 10),
    "max": (max, 2, 10),
}


class _Reader:
    """Reads a syntax tree part by part; what is not listed here is refused."""

    def __init__(self, text: str, variables: Mapping[str, Variable]) -> None:
        self.reads: set[str] = set()
        self._lines = text.encode()
        self._variables = variables
        self._depth = 0
        self._known: dict[type[ast.expr], Callable[[Any], _Part]] = {
            ast.BoolOp: self._and_or,
            ast.UnaryOp: self._unary,
            ast.Compare: self._comparison,
            ast.BinOp: self._arithmetic,
            ast.Call: self._function,
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.Subscript: self._entry,
        }

    def read(self, node: ast.expr) -> _Part:
        read = self._known.get(type(node))
        if read is None:
            self._refuse(node, "this is not part of the language of rules")
        self._depth += 1
        if self._depth > DEEPEST:
            self._refuse(node, f"more than {DEEPEST} levels are inside one another")
        part = read(node)
        self._depth -= 1
        return part

    def _refuse(self, node: ast.AST, why: str) -> NoReturn:
        before = self._lines[: getattr(node, "col_offset", 0)]  # bytes
        raise ExpressionError(len(before.decode(errors="ignore")) + 1, why)

    def _of(self, kind: Kind, node: ast.expr, what: str) -> _Part:
        part = self.read(node)
        if part.kind is not kind:
            self._refuse(node, f"{what} takes {_PLURAL[kind]}, and this is {part.kind.value}")
        return part

    def _and_or(self, node: ast.BoolOp) -> _Part:
        is_and = isinstance(node.op, ast.And)
        parts = [self._of(Kind.CONDITION, value, "and" if is_and else "or").evaluate for value in node.values]
        return _Part(node, Kind.CONDITION, reduce(_both if is_and else _either, parts))

    def _unary(self, node: ast.UnaryOp) -> _Part:
        if isinstance(node.op, ast.Not):
            of = self._of(Kind.CONDITION, node.operand, "not").evaluate
            return _Part(node, Kind.CONDITION, lambda facts: not of(facts))
        if not isinstance(node.op, ast.USub):
            self._refuse(node, "this sign is not part of the language of rules")
        return self._computed(node, operator.neg, [self._of(Kind.NUMBER, node.operand, "-")])

    def _arithmetic(self, node: ast.BinOp) -> _Part:
        compute = _ARITHMETIC.get(type(node.op))
        if compute is None:
            self._refuse(node, "of arithmetic there is + - * / only")
        left, right = (self._of(Kind.NUMBER, side, "arithmetic") for side in (node.left, node.right))
        if compute is _divide and right.constant and right.evaluate(()) == 0:
            self._refuse(node.right, "this divides by 0")
        return self._computed(node, compute, [left, right])

    def _function(self, node: ast.Call) -> _Part:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in _FUNCTIONS:
            self._refuse(node, f"of functions there are {', '.join(_FUNCTIONS)} only")
        compute, fewest, most = _FUNCTIONS[name]
        if node.keywords or not fewest <= len(node.args) <= most:
            takes = "one number" if most == 1 else f"{fewest} to {most} numbers"
            self._refuse(node, f"{name} takes {takes}")
        return self._computed(node, compute, [self._of(Kind.NUMBER, argument, name) for argument in node.args])

    def _computed(self, node: ast.expr, compute: Callable[..., float], parts: list[_Part]) -> _Part:
        constant = all(part.constant for part in parts)
        evaluate = _apply(compute, [part.evaluate for part in parts])
        if constant:
            value = evaluate(())
            return _Part(node, Kind.NUMBER, lambda _: value, constant=True)
        return _Part(node, Kind.NUMBER, evaluate)

    def _constant(self, node: ast.Constant) -> _Part:
        value = node.value
        if isinstance(value, bool):
            return _Part(node, Kind.CONDITION, lambda _: value)
        if isinstance(value, str):
            return _Part(node, Kind.TEXT, lambda _: value, constant=True)
        if not isinstance(value, (int, float)):
            self._refuse(node, "this is neither a number nor a text")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number):
            self._refuse(node, "this number is too large")
        return _Part(node, Kind.NUMBER, lambda _: number, constant=True)

    def _name(self, node: ast.Name) -> _Part:
        if node.id in {"true", "false"}:
            told = node.id == "true"
            return _Part(node, Kind.CONDITION, lambda _: told)
        variable = self._variables.get(node.id)
        if variable is None:
            self._refuse(node, f"there is no {node.id!r}; there are {listed(self._variables)}")
        self.reads.add(node.id)
        return _Part(
            node, variable.kind, operator.itemgetter(variable.slot), levels=variable.levels, slot=variable.slot
        )

    def _entry(self, node: ast.Subscript) -> _Part:
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        mapping = self.read(node.value)
        if mapping.kind is not Kind.TEXTS or not isinstance(key, str):
            texts = [name for name, variable in self._variables.items() if variable.kind is Kind.TEXTS]
            self._refuse(node, f"brackets stand behind {', '.join(texts) or 'nothing here'}, around a text")
        of, key = mapping.evaluate, key.lower()
        return _Part(node, Kind.TEXT, lambda facts: of(facts).get(key, ""))

    def _comparison(self, node: ast.Compare) -> _Part:
        sides = [node.left, *node.comparators]
        links = [self._link(*pair, comparison) for pair, comparison in zip(pairwise(sides), node.ops, strict=True)]
        return _Part(node, Kind.CONDITION, reduce(_both, links))

    def _link(self, left: ast.expr, right: ast.expr, comparison: ast.cmpop) -> Evaluate:
        if isinstance(comparison, (ast.In, ast.NotIn)):
            return self._member(left, right, negated=isinstance(comparison, ast.NotIn))
        compare = _COMPARE.get(type(comparison))
        if compare is None:
            self._refuse(right, "of comparisons there are < <= > >= == != in, and not in")
        a, b = self.read(left), self.read(right)
        self._check_alike(a, b)
        if a.kind is Kind.TEXT and compare not in {operator.eq, operator.ne}:
            self._refuse(left, "texts are compared with == != in, and not in")
        return _compared(compare, a, b)

    def _member(self, left: ast.expr, right: ast.expr, *, negated: bool) -> Evaluate:
        if not isinstance(right, (ast.List, ast.Tuple)) or not right.elts:
            self._refuse(right, 'in takes a list, such as ["a", "b"]')
        part = self.read(left)
        members = []
        for element in right.elts:
            member = self.read(element)
            if not member.constant:
                self._refuse(element, "a list holds numbers or texts, and no names")
            self._check_alike(part, member)
            members.append(member.evaluate(()))
        of, among = part.evaluate, frozenset(members)
        if negated:
            return lambda facts: of(facts) not in among
        return lambda facts: of(facts) in among

    def _check_alike(self, a: _Part, b: _Part) -> None:
        for part in a, b:
            if part.kind not in {Kind.NUMBER, Kind.TEXT}:
                self._refuse(part.node, f"this is {part.kind.value}; only numbers and texts are compared")
        if a.kind is not b.kind:
            self._refuse(b.node, f"this is {b.kind.value}, and it is compared with {a.kind.value}")
        for part, other in (a, b), (b, a):
            if part.constant and other.levels and (text := part.evaluate(())) not in other.levels:
                name = ast.unparse(other.node)
                self._refuse(part.node, f"{name} is never {text!r}; its levels are {listed(other.levels)}")


_PLURAL = {Kind.NUMBER: "numbers", Kind.CONDITION: "conditions"}


def _both(a: Evaluate, b: Evaluate) -> Evaluate:
    return lambda facts: a(facts) and b(facts)


def _either(a: Evaluate, b: Evaluate) -> Evaluate:
    return lambda facts: a(facts) or b(facts)


def _apply(compute: Callable[..., float], parts: list[Evaluate]) -> Evaluate:
    if len(parts) == 1:
        (of,) = parts
        return lambda facts: compute(of(facts))
    if len(parts) == 2:  # noqa: PLR2004  # a and b
        a, b = parts
        return lambda facts: compute(a(facts), b(facts))
    return lambda facts: compute(*[part(facts) for part in parts])


def _compared(compare: Callable[[Any, Any], bool], a: _Part, b: _Part) -> Evaluate:
    left, right = a.evaluate, b.evaluate
    if a.slot is not None and b.constant:  # as most rules are, and a third of the time
        slot, value = a.slot, right(())
        return lambda facts: compare(facts[slot], value)
    return lambda facts: compare(left(facts), right(facts))
