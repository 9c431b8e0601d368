"""Plain Python models: a class that predicts on NumPy arrays.

With this `my_model.py` beside the settings file, and `"implementation": "my_model.Logistic"` in it, it is served:

    import numpy as np

    class Logistic:
        def load(self, folder, weights="weights.npy"):
            self.weights = np.load(folder / weights)

        def predict(self, inputs):
            return {"probability": 1 / (1 + np.exp(-inputs["features"] @ self.weights))}

`predict` takes and returns a dict of arrays, by the names, in the datatypes and shapes that the settings declare; rows
of several calls come together. If it takes a second argument, that is a dict of the request's parameters, and only
calls that agree in them come together. The inputs are read-only; BYTES are object arrays of bytes. All of a model's
code runs in one thread, which is its own, from the import on.

`load` is optional. It is given the model's folder, and by keyword what stands in `parameters.extra`; an unknown key is
refused. Our own options, such as `max_batch_size`, reach it only where it names them. `close` is optional too.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal
from protos.tensors import DATATYPES
from runtime.failure import said_by
from runtime.model import NOTHING, Arrays, Parameters, TensorSpec
from runtime.options import Options
from runtime.settings import ModelSettings
from runtime.words import quoted

PLATFORM = "python_numpy"
WITH_PARAMETERS = 2  # arguments of predict

_TEXT = np.dtype(np.object_)

_log = logging.getLogger(__name__)


class PythonModel:
    """An object of a user's class. `forget` is called when the model is closed."""

    memory = 0  # only its own code knows

    def __init__(self, made_of: type, settings: ModelSettings, folder: Path, *, forget: Callable[[], None]) -> None:
        for key, specs in (("inputs", settings.inputs), ("outputs", settings.outputs)):
            if not specs:
                raise FailedPrecondition(f"{key}: none declared, and a class does not say its shapes")
        self.name = settings.name
        self.version = settings.version
        self.platform = settings.platform or PLATFORM
        self.inputs = settings.inputs
        self.outputs = settings.outputs
        self._forget = forget
        self._object: Any = made_of()
        self.reads_parameters = _arguments(self._object) == WITH_PARAMETERS
        if hasattr(self._object, "load"):
            self._object.load(folder, **_options(self._object, settings, folder))
        self._predict: Callable[..., Any] | None = self._object.predict

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Calls `predict`. Raises what it raises, and FailedPrecondition when it returns no outputs by name."""
        if self._predict is None:
            raise Internal("the model is closed")
        given = {name: _read_only(array) for name, array in arrays.items()}
        result = self._predict(given, dict(parameters)) if self.reads_parameters else self._predict(given)
        if not isinstance(result, Mapping):
            raise FailedPrecondition(f"predict returns {type(result).__name__}, not a dict of arrays")
        return {spec.name: _output(spec, result) for spec in self.outputs}

    def close(self) -> None:
        """Calls `close` if there is one, and lets go of the object and its module."""
        if self._predict is None:
            return
        self._predict = None
        ending, self._object = self._object, None
        try:
            if hasattr(ending, "close"):
                ending.close()
        except BaseException as error:  # noqa: BLE001 - it is out of service all the same
            _log.warning("model %r was not closed: %s", self.name, said_by(error))
        self._forget()


def _arguments(model: Any) -> int:
    """How many `predict` takes. Raises FailedPrecondition unless that is one or two."""
    what = f"implementation: {type(model).__name__}"
    if not callable(getattr(model, "predict", None)):
        raise FailedPrecondition(f"{what} has no predict(self, inputs)")
    count = len(inspect.signature(model.predict).parameters)
    if count not in (1, WITH_PARAMETERS) or inspect.iscoroutinefunction(model.predict):
        raise FailedPrecondition(
            f"{what}.predict must be predict(self, inputs) or predict(self, inputs, parameters), and not async"
        )
    return count


def _options(model: Any, settings: ModelSettings, folder: Path) -> dict[str, Any]:
    """What of `parameters.extra` is for `load`. Raises FailedPrecondition when it does not take that, or no folder."""
    signature = inspect.signature(model.load)
    takes_folder = any(each.kind < each.KEYWORD_ONLY for each in signature.parameters.values())
    if not takes_folder or inspect.iscoroutinefunction(model.load):
        raise FailedPrecondition(
            f"implementation: {type(model).__name__}.load must be load(self, folder) or load(self, folder, option, "
            "...), and not async"
        )
    ours = {key: getattr(settings.options, key) for key in Options.__struct_fields__}
    options = {key: value for key, value in settings.extra.items() if key not in ours}
    options |= {key: value for key, value in ours.items() if key in signature.parameters and key in settings.extra}
    try:
        signature.bind(folder, **options)
    except TypeError as error:
        raise FailedPrecondition(f"parameters.extra: {error}; load takes {signature}") from None
    return options


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    # What other models of an ensemble are given too.
    if array.flags.writeable:
        array = array.view()
        array.setflags(write=False)
    return array


def _output(spec: TensorSpec, result: Mapping[str, Any]) -> NDArray[Any]:
    try:
        value = result[spec.name]
    except KeyError:
        raise FailedPrecondition(f"predict returns no {spec.name!r}, only {quoted(result)}") from None
    array: NDArray[Any] = np.array(value)  # a copy: their code may write its next answer where it wrote this one
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # V2 knows one order of bytes
    if DATATYPES[spec.datatype] == _TEXT and array.dtype.kind in "SUO":
        array = np.array([_bytes(spec, element) for element in array.ravel()], _TEXT).reshape(array.shape)
    return array


def _bytes(spec: TensorSpec, element: object) -> bytes:
    if isinstance(element, str):
        return element.encode()
    if not isinstance(element, bytes):
        raise FailedPrecondition(f"output {spec.name!r} is BYTES; predict returns a {type(element).__name__} in it")
    return element
