"""From a file to a configuration, or to a sentence that names file and key."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import yaml

from router.config import strict_yaml
from router.config.places import keys_at, words_at
from router.config.service import Config
from router.config.struct import NAME
from router.errors import ConfigError

_PLACE = re.compile(r"(.*) - at (`key` in )?`\$(.*)`", re.DOTALL)  # how msgspec ends a sentence: "... - at `$.guard`"
_STEP = re.compile(r"\.(\w+)|\[(?:(\d+)|\.\.\.)\]")  # of a place: a field, an index, or some value of a mapping
_KEY = re.compile(r"([a-z][\w.-]*): ")  # how our own sentences begin
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_YAML = {
    "`object`": "a mapping",
    "`array`": "a list",
    "`null`": "nothing",
    "`str`": "a text",
    "`float`": "a number",
    "`int`": "a whole number",
    "`bool`": "true or false",
    "`datetime` with a timezone component": 'a time with a zone, such as "2026-03-02T08:00:00+01:00"',
}


def read_config(path: Path) -> Config:
    """The configuration in a file. Raises ConfigError naming file and key."""
    return read_text(file_text(path), path)


def file_text(path: Path) -> str:
    """What stands in a file. Raises ConfigError naming it."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def read_text(text: str, path: Path) -> Config:
    """The configuration in YAML text; `path` is the file it is from. Raises ConfigError naming file and key."""
    try:
        raw = strict_yaml.load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_config(raw, path)


def parse_config(raw: object, path: Path) -> Config:
    """The configuration in parsed YAML; `path` is the file it is from. Raises ConfigError naming file and key."""
    if not isinstance(raw, dict):
        _refuse(path, "", "expected a mapping with the key routes")
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        _refuse(path, *_located(str(error), raw))
    folder = path.resolve().parent
    kind, _, rest = config.store.partition(":")
    if kind == "sqlite" and rest not in {"", ":memory:"}:  # these are no paths, and refused when it is opened
        config = msgspec.structs.replace(config, store=f"sqlite:{folder / rest}")
    for key in ("tls", "admin_tls"):
        if tls := getattr(config, key):
            files = {each: str(folder / value) for each, value in msgspec.structs.asdict(tls).items() if value}
            for each, file in files.items():
                if not Path(file).is_file():
                    _refuse(path, f"{key}.{each}", f"{file} is not a file")
            config = msgspec.structs.replace(config, **{key: msgspec.structs.replace(tls, **files)})
    config = _with_arms_at(folder, config, path)
    if config.models:
        config = msgspec.structs.replace(config, models=str(folder / config.models))
        if not Path(config.models).is_dir():
            _refuse(path, "models", f"{config.models} is not a folder")
    return config


def _with_arms_at(folder: Path, config: Config, path: Path) -> Config:
    """The configuration with the files that its arms name, which must be there, found from `folder`."""
    routes = {}
    for name, route in config.routes.items():
        arms = {arm: settings.at(folder) for arm, settings in route.arms.items()}
        for arm, settings in arms.items():
            for key, file in settings.files():
                if not Path(file).is_file():
                    _refuse(path, f"routes.{name}.arms.{arm}.{key}", f"{file} is not a file")
        routes[name] = route if arms == route.arms else msgspec.structs.replace(route, arms=arms)
    return msgspec.structs.replace(config, routes=routes)


def _refuse(path: Path, key: str, why: str) -> NoReturn:
    raise ConfigError(f"{path}: {key}: {why}" if key else f"{path}: {why}")


def _located(message: str, raw: dict[Any, Any]) -> tuple[str, str]:
    """The key that a refusal is about, and the refusal in the words of who writes YAML."""
    placed = _PLACE.fullmatch(message)
    why, is_key, place = placed.groups() if placed else (message, None, "")
    keys, value = _keys(message, place, raw)
    if is_key:
        wrong = next((key for key in value if not (isinstance(key, str) and NAME.match(key))), "")
        why = f"{wrong!r} is not a name: up to 100 letters, digits, '_', '-' and '.', quoted if numeric"
    elif why.startswith("Invalid ") and (words := words_at(keys, raw)):
        why += f"; there are {', '.join(words)}"
    elif (unknown := _UNKNOWN.fullmatch(why)) and (meant := get_close_matches(unknown[1], keys_at(keys, raw), 1)):
        why += f"; did you mean `{meant[0]}`?"
    if own := _KEY.match(why):
        keys, why = [*keys, own[1]], why[own.end() :]
    for theirs, ours in _YAML.items():
        why = why.replace(theirs, ours)
    return ".".join(map(str, keys)), why


def _keys(message: str, place: str, raw: dict[Any, Any]) -> tuple[list[Any], Any]:
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
            key = next((key for key in value if _refusal(_replaced(raw, keys, {key: value[key]})) == message), "?")
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


def _refusal(raw: object) -> str:
    try:
        msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        return str(error)
    return ""
