"""From a file to a configuration, or to a sentence that names file and key."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import msgspec

from router.config import strict_yaml
from router.config.refusals import converted
from router.config.service import Config
from router.errors import ConfigError


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
    except ValueError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_config(raw, path)


def parse_config(raw: object, path: Path) -> Config:
    """The configuration in parsed YAML; `path` is the file it is from. Raises ConfigError naming file and key."""
    if not isinstance(raw, dict):
        _refuse(path, "", "expected a mapping with the key routes")
    try:
        config = converted(raw, Config)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    folder = path.resolve().parent
    kind, _, rest = config.store.partition(":")
    if kind == "sqlite" and rest not in {"", ":memory:"}:  # these are no paths, and refused when it is opened
        config = msgspec.structs.replace(config, store=f"sqlite:{folder / rest}")
    for key in ("tls", "admin_tls"):
        if tls := getattr(config, key):
            files = {each: str(folder / value) for each, value in msgspec.structs.asdict(tls).items() if value}
            for each, file in files.items():
                _check_there(path, f"{key}.{each}", file)
            config = msgspec.structs.replace(config, **{key: msgspec.structs.replace(tls, **files)})
    config = _with_arms_at(folder, config, path)
    if config.models:
        config = msgspec.structs.replace(config, models=str(folder / config.models))
        _check_there(path, "models", config.models, folder=True)
    return config


def _with_arms_at(folder: Path, config: Config, path: Path) -> Config:
    """The configuration with the files that its arms name, which must be there, found from `folder`."""
    routes = {}
    for name, route in config.routes.items():
        arms = {arm: settings.at(folder) for arm, settings in route.arms.items()}
        for arm, settings in arms.items():
            for key, file in settings.files():
                _check_there(path, f"routes.{name}.arms.{arm}.{key}", file)
        routes[name] = route if arms == route.arms else msgspec.structs.replace(route, arms=arms)
    return msgspec.structs.replace(config, routes=routes)


def _check_there(path: Path, key: str, named: str, *, folder: bool = False) -> None:
    """Raises ConfigError unless a file or folder that the configuration names is there."""
    try:
        there = Path(named).is_dir() if folder else Path(named).is_file()
    except OSError as error:  # a folder above it that may not be entered, say
        _refuse(path, key, f"{named} cannot be read: {error.strerror}")
    if not there:
        _refuse(path, key, f"{named} is not a {'folder' if folder else 'file'}")


def _refuse(path: Path, key: str, why: str) -> NoReturn:
    raise ConfigError(f"{path}: {key}: {why}" if key else f"{path}: {why}")
