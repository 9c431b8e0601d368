"""What MLSERVER_MODEL_* variables tell of a model, where no file does: so KServe starts MLServer.

They tell all of one model, or what its file leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protos.errors import FailedPrecondition
from runtime.settings import VARIABLES, ModelSettings, decoded, parse_settings

_OUTSIDE = ("implementation", "name", "platform", "inputs", "outputs", "max_batch_size", "max_batch_time")
_PARAMETERS = ("uri", "version", "content_type", "extra")
_JSON = {"inputs", "outputs", "extra"}


def told_by(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says of a model, by the names of the settings file; names of variables have no case."""
    variables = {name.upper(): value for name, value in environment.items()}
    names = {key: _variable(key) for key in (*_OUTSIDE, *_PARAMETERS)}
    return {key: variables[name] for key, name in names.items() if name in variables}


def settings_of(told: Mapping[str, str], *, name: str) -> ModelSettings:
    """The settings of that model; `name` holds where none is told. Raises FailedPrecondition with the variable."""
    if "implementation" not in told:
        others = " and ".join(map(_variable, told))
        raise FailedPrecondition(f"{others}: no model is told of without {_variable('implementation')}")
    return parse_settings(as_file(told), f"{VARIABLES}*", name=name, version="")


def as_file(told: Mapping[str, str]) -> dict[str, Any]:
    """What is told, as a settings file would say it. Raises FailedPrecondition with the variable that is no JSON."""
    values = {key: decoded(text, _variable(key)) if key in _JSON else text for key, text in told.items()}
    file = {key: values[key] for key in _OUTSIDE if key in values}
    parameters = {key: values[key] for key in _PARAMETERS if key in values}
    return file | ({"parameters": parameters} if parameters else {})


def _variable(key: str) -> str:
    return f"{VARIABLES}{key.upper()}"
