"""Writes the reference of the configuration from its structs: `python -m router.config.reference [--check]`.

What a key means stands behind it in the source, once; this only puts it in order.
"""

from __future__ import annotations

import ast
import inspect
import math
import sys
import textwrap
import tokenize
import types
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from router.config.service import Config
from router.config.struct import Name

HERE = Path(__file__).parent
PAGE = HERE / "reference.md"
EXAMPLES = HERE / "examples"

_WORDS = {
    Name: "name",
    str: "text",
    float: "number",
    int: "whole number",
    bool: "true or false",
    datetime: "time",
    Any: "anything",
}
_OURS = "files_digest"
"""A field that nobody writes: whoever reads the file fills it in."""

_HEAD = """# The configuration

One YAML file. `croupier check FILE` says whether it is right, and where it is not; a key that is not on this page is
refused. Names have up to 100 letters, digits, `_`, `-` and `.`. This page is made by
`python -m router.config.reference`, the keys from the source and the examples from `examples/`, where a test reads
each."""


def page() -> str:
    """The whole reference, in Markdown."""
    examples = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]
    sections = [_section(struct, places) for struct, places in structs(Config).items()]
    return "\n\n".join([_HEAD, "## Examples", *map(_example, examples), "## Keys", *sections]) + "\n"


def structs(first: type[msgspec.Struct]) -> dict[type[msgspec.Struct], list[str]]:
    """A struct and all that its fields may hold, in the order in which they are met, and where each of them stands."""
    found: dict[type[msgspec.Struct], list[str]] = {}

    def meet(struct: type[msgspec.Struct], place: str) -> None:
        if struct in found:
            found[struct].append(place)
            return
        found[struct] = [place]
        for key, hint in get_type_hints(struct, include_extras=True).items():
            for each, inside in _structs_in(hint, f"{place}.{key}" if place else key):
                meet(each, inside)

    meet(first, "")
    return found


def _structs_in(hint: Any, place: str) -> Iterator[tuple[type[msgspec.Struct], str]]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint, place
    origin, inner = get_origin(hint), get_args(hint)
    if origin is dict:
        inner, place = inner[1:], f"{place}.NAME"
    elif origin in {list, tuple}:
        place += "[]"
    for each in inner:
        yield from _structs_in(each, place)


def _section(struct: type[msgspec.Struct], places: Sequence[str]) -> str:
    hints, notes = get_type_hints(struct, include_extras=True), _notes(struct)
    fields = [field for field in msgspec.structs.fields(struct) if field.name != _OURS]
    rows = [(f"`{each.name}`", _type(hints[each.name]), _default(each), notes[each.name]) for each in fields]
    if tag := struct.__struct_config__.tag:
        rows.insert(0, (f"`{struct.__struct_config__.tag_field}`", f"`{tag}`", "required", ""))
    lines = ["| key | is | default | |", "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]
    table = "\n".join(lines)
    where = "The whole file." if places == [""] else f"At {_either(f'`{place}`' for place in places)}."
    return f"### {struct.__name__}\n\n{where} {_prose(struct)}\n\n{table}"


def _prose(struct: type[msgspec.Struct]) -> str:
    """What the source says about it: its paragraphs in a line each, its lists as they are."""
    paragraphs = inspect.cleandoc(struct.__doc__ or "").split("\n\n")
    return "\n\n".join(each if each.startswith("- ") else " ".join(each.split("\n")) for each in paragraphs)


def _example(text: str) -> str:
    title, _, rest = text.partition("\n")
    return f"### {title.removeprefix('# ')}\n\n```yaml\n{rest.strip()}\n```"


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        return f"`{{{value.__struct_config__.tag_field}: {tag}}}`" if tag else "its defaults"
    if isinstance(value, float) and math.isinf(value):
        return "`.inf`" if value > 0 else "`-.inf`"
    if value is None:
        return "none"
    return f"`{msgspec.json.encode(sorted(value) if isinstance(value, frozenset) else value).decode()}`"


def _type(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is Annotated:
        return _type(inner[0])
    if origin in {Union, types.UnionType, Literal}:
        return _either(f"`{each}`" if origin is Literal else _type(each) for each in inner if each is not type(None))
    if origin is dict:
        several = " or " in _type(inner[1])
        return f"{_type(inner[1])}{',' * several} by {_type(inner[0])}"
    if origin in {list, tuple, frozenset}:
        return f"list of {_type(inner[0])}"
    return f"[{hint.__struct_config__.tag or hint.__name__}](#{hint.__name__.lower()})"


def _either(words: Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _notes(struct: type[msgspec.Struct]) -> dict[str, str]:
    """The comment behind each field in the source, those of base classes included."""
    notes: dict[str, str] = {}
    for each in reversed(struct.__mro__):
        if issubclass(each, msgspec.Struct) and each.__module__.startswith("router."):
            source = textwrap.dedent(inspect.getsource(each))
            comments = {
                token.start[0]: token.string.removeprefix("# ")
                for token in tokenize.generate_tokens(StringIO(source).readline)
                if token.type == tokenize.COMMENT
            }
            body = ast.parse(source).body[0]
            for line in body.body if isinstance(body, ast.ClassDef) else ():
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    notes[line.target.id] = comments.get(line.end_lineno or 0, "").replace("|", "\\|")
    return notes


def main(argv: list[str]) -> int:
    """Writes the page, or with --check says whether it is as the source has it."""
    made = page()
    if "--check" in argv:
        if PAGE.read_text("utf-8") == made:
            return 0
        print(f"{PAGE.name} is stale: python -m router.config.reference", file=sys.stderr)
        return 1
    PAGE.write_text(made, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
