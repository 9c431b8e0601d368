"""YAML in which a key that is given twice is an error, not a silent choice."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


def load(text: str) -> object:
    """The document in a text. Raises ValueError with a sentence that says where it goes wrong."""
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506  # derives from SafeLoader
    except yaml.MarkedYAMLError as error:
        said = f"{error.context}: {error.problem}" if error.context else str(error.problem)
        mark = error.problem_mark
        raise ValueError(f"{said} (line {mark.line + 1}, column {mark.column + 1})" if mark else said) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ValueError(f"{error.reason}: {text[error.position]!r} (line {line})") from None


class _StrictLoader(yaml.SafeLoader):
    pass


def _unique_keys(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # "<<", which the loader below replaces
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)
