"""Models that are classes of their users: plain ones on NumPy arrays, and those written for MLServer.

The class is found in a module beside the settings file, or in an installed one. A module beside it may import others
there by their names; all are this model's own, so two models can each have a `models.py`, and a reload takes new code.
A module of the same name that was imported before by somebody else wins, as everywhere in Python.
"""

from __future__ import annotations

import importlib
import sys
import threading
import traceback
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

from protos.errors import CallError, FailedPrecondition
from runtime.failure import said_by
from runtime.formats.python import PythonModel
from runtime.housed import Housed
from runtime.model import Model
from runtime.naming import naming
from runtime.options import TORCHSCRIPT
from runtime.served import Servable
from runtime.settings import FILE, ModelSettings
from runtime.worker import Thread

# The names of modules belong to the process, so one model's code is imported at a time.
_alone = threading.Lock()
_number = count(1)

THEIRS = "mlserver.model.MLModel"
OURS_IN_STOCK = "runtime.mlserver.FormatModel"


def load(settings: ModelSettings, folder: Path) -> Model | Servable:
    """The model that a user's class makes, at home in a thread: all of its code runs there, from the import on.

    Raises FailedPrecondition with the line of their code that went wrong.
    """
    thread = Thread(f"model {settings.name}")
    try:
        model = thread.call(lambda: _made(settings, folder))
    except BaseException:
        thread.stop()
        raise
    if isinstance(model, Servable):  # it has made itself at home elsewhere
        thread.stop()
        return model
    return Housed(model, thread)


def _made(settings: ModelSettings, folder: Path) -> Model | Servable:
    with naming(folder / FILE), UserCode(folder) as code:
        try:
            found = code.find(settings.implementation)
            bases = {f"{base.__module__}.{base.__name__}" for base in found.__mro__}
            if OURS_IN_STOCK in bases:  # its load would come here again, and wait for us
                raise FailedPrecondition(
                    f"implementation: {found.__name__} extends a class that is there for a stock MLServer; name that "
                    f'itself, as "{TORCHSCRIPT}", or extend mlserver.MLModel'
                )
            if THEIRS in bases:
                from runtime.formats.hosted import host

                return host(found, settings, folder, forget=code.forget)
            return PythonModel(found, settings, folder, forget=code.forget)
        except BaseException as error:
            code.forget()
            says = error.message if isinstance(error, CallError) else code.where(error)
            raise FailedPrecondition(says) from error


class UserCode:
    """The modules in a folder. Inside of `with` they can be imported and unpickled by their names."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._name = f"croupier_model_{next(_number)}_"  # under which its module stays; no other's begins so
        self._dont_write_bytecode = sys.dont_write_bytecode

    def __enter__(self) -> Self:
        _alone.acquire()
        # A new list: an import in another thread, which goes along the old one, would miss an entry.
        sys.path = [str(self._folder), *sys.path]
        importlib.invalidate_caches()
        # Bytecode is told from newer source by the second, a reload by the nanosecond; and the folder is not ours.
        self._dont_write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            sys.dont_write_bytecode = self._dont_write_bytecode
            path = sys.path.copy()
            with suppress(ValueError):  # their code may have put it in order already
                path.remove(str(self._folder))
            sys.path = path
            beside = [name for name, module in sys.modules.copy().items() if self._has(module)]
            for name in beside:
                if not name.startswith(self._name):
                    del sys.modules[name]
        finally:
            _alone.release()

    def find(self, implementation: str) -> type:
        """The class that `module.Class` names. Raises FailedPrecondition if there is none, or what its code raises."""
        name, _, class_name = implementation.rpartition(".")
        if not name:
            raise FailedPrecondition(f'implementation: {implementation!r} names no module; write "module.Class"')
        found = getattr(self._module(name), class_name, None)
        if not isinstance(found, type):
            raise FailedPrecondition(f"implementation: {name} has no class {class_name!r}")
        return found

    def forget(self) -> None:
        """Lets go of the modules when the model is closed."""
        for name in [name for name in sys.modules.copy() if name.startswith(self._name)]:
            del sys.modules[name]

    def where(self, error: BaseException) -> str:
        """What went wrong, and on which line of the user's code."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{Path(error.filename).name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [frame for frame in frames if Path(frame.filename).is_relative_to(self._folder)]
        says = said_by(error)
        return f"{Path(theirs[-1].filename).name}, line {theirs[-1].lineno}: {says}" if theirs else says

    def _module(self, name: str) -> ModuleType:
        top, _, rest = name.partition(".")
        package, module = self._folder / top / "__init__.py", self._folder / f"{top}.py"
        if not package.is_file() and not module.is_file():
            return _installed(name)
        spec = spec_from_file_location(self._name, package if package.is_file() else module)
        if spec is None or spec.loader is None:
            raise ImportError(f"{module.name} cannot be read as a module")
        sys.modules[self._name] = made = module_from_spec(spec)
        sys.modules.setdefault(top, made)
        spec.loader.exec_module(made)
        return importlib.import_module(f"{self._name}.{rest}") if rest else made

    def _has(self, module: ModuleType) -> bool:
        told = getattr(module, "__dict__", {})  # not by getattr, at which some modules import others
        places = [told.get("__file__"), *told.get("__path__", [])]
        return any(place and Path(place).is_relative_to(self._folder) for place in places)


def _installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name not in (top, "mlserver"):
            raise
        hint = "; MLServer and its runtimes come with pip install 'croupier[mlserver]'" if "mlserver" in top else ""
        raise FailedPrecondition(
            f"implementation: there is no {top}.py beside the file, and no module {error.name!r} is installed{hint}"
        ) from error
