"""The settings of one model that MLSERVER_MODEL_* variables tell of, where no file does: so KServe starts MLServer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from protos.errors import FailedPrecondition
from runtime.settings import ModelSettings, parse_settings

PREFIX = "MLSERVER_MODEL_"
_OUTSIDE = ("implementation", "name", "platform", "inputs", "outputs", "max_batch_size", "max_batch_time")
_PARAMETERS = ("uri", "version", "content_type", "extra")
_JSON = {"inputs", "outputs", "max_batch_size", "max_batch_time", "extra"}


def told_by(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says of a model, by the names of the settings file; names of variables have no case."""
    variables = {name.upper(): value for name, value in environment.items()}
    names = {key: f"{PREFIX}{key.upper()}" for key in (*_OUTSIDE, *_PARAMETERS)}
    return {key: variables[name] for key, name in names.items() if name in variables}


def settings_of(told: Mapping[str, str], *, name: str) -> ModelSettings:
    """The settings of that model; `name` holds where none is told. Raises FailedPrecondition with the variable."""
    if "implementation" not in told:
        others = " and ".join(f"{PREFIX}{key.upper()}" for key in told)
        raise FailedPrecondition(f"{others}: no model is told of without {PREFIX}IMPLEMENTATION")
    values = {key: _value(key, text) for key, text in told.items()}
    file = {key: values[key] for key in _OUTSIDE if key in values}
    file["parameters"] = {key: values[key] for key in _PARAMETERS if key in values}
    return parse_settings(msgspec.json.encode(file), f"{PREFIX}*", name=name, version="")


def _value(key: str, text: str) -> Any:
    if key not in _JSON:
        return text
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise FailedPrecondition(f"{PREFIX}{key.upper()}: it is not JSON: {error}") from None
