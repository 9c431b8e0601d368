"""TorchScript archives: what `torch.jit.save` writes.

Arrays go in and out without a copy. Names of inputs are those of `forward`'s arguments; where none is, the order of
the settings counts. Outputs go by name where `forward` returns a dict or a named tuple, else by order.
"""

from __future__ import annotations

import gc
import logging
import re
import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal
from runtime.model import NOTHING, Arrays, Parameters
from runtime.repository import locate
from runtime.settings import FILE, ModelSettings

PLATFORM = "pytorch_torchscript"
WELL_KNOWN = ("model.pt", "model.pth")

_log = logging.getLogger(__name__)
_here = threading.local()  # PyTorch's number of threads, as it was set in this thread

# One specialisation, for any size, then no more: the default compiles anew for the first batch sizes that it meets.
torch.jit.set_fusion_strategy([("DYNAMIC", 1)])

# PyTorch's modules are 100,000 objects that live as long as the process. Walking them made each full collection a pause
# of 100 ms; frozen, they are walked no more. Before any model is loaded, as a frozen cycle is never freed.
gc.freeze()


def load(settings: ModelSettings, folder: Path) -> TorchScriptModel:
    """Loads the archive of a model folder. Raises FailedPrecondition saying what is wrong with it or its settings."""
    _silence()
    path = locate(folder, settings.uri, WELL_KNOWN)
    try:
        device = _device(settings.options.device)
        try:
            module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
        except Exception as error:
            raise FailedPrecondition(f"{path.name} is not a TorchScript archive: {_reason(error)}") from error
        model = TorchScriptModel(_frozen(module), settings, device)
    except FailedPrecondition as error:
        raise FailedPrecondition(f"{folder / FILE}: {error.message}") from error.__cause__
    return model


class TorchScriptModel:
    """A scripted or traced module on one device."""

    reads_parameters = False

    def __init__(self, module: torch.jit.ScriptModule, settings: ModelSettings, device: torch.device) -> None:
        for key, specs in (("inputs", settings.inputs), ("outputs", settings.outputs)):
            if not specs:
                raise FailedPrecondition(f"{key}: none declared, and an archive does not say its shapes")
            for spec in specs:
                if spec.datatype == "BYTES":
                    raise FailedPrecondition(f"{key}: {spec.name!r} is BYTES; PyTorch has no such tensors")
        if not hasattr(module, "forward"):
            raise FailedPrecondition("the archive has no forward method")
        self.name = settings.name
        self.version = settings.version
        self.platform = settings.platform or PLATFORM
        self.inputs = settings.inputs
        self.outputs = settings.outputs
        forward: Any = module.forward
        self._order = _order([spec.name for spec in settings.inputs], forward.schema.arguments[1:])
        self._names = [spec.name for spec in settings.outputs]
        self._forward: Callable[..., Any] | None = forward
        self._device = None if device.type == "cpu" else device
        self._writes = _writes_inputs(module)
        self._inference = torch.inference_mode()
        self._threads = settings.options.threads

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Runs `forward`. Raises Internal with what PyTorch says."""
        if self._forward is None:
            raise Internal("the model is closed")
        # OpenMP keeps its number by thread: set elsewhere, it would leave two cores spinning for a small product here.
        if getattr(_here, "threads", None) != self._threads:
            torch.get_num_threads()  # its first use in a thread takes over the number last set anywhere: now, not later
            torch.set_num_threads(self._threads)
            _here.threads = self._threads
        try:
            with self._inference:
                result = self._forward(*[self._tensor(arrays[name]) for name in self._order])
        except Exception as error:
            raise Internal(_reason(error)) from error
        return {name: _array(name, value) for name, value in self._named(result).items()}

    def close(self) -> None:
        """Drops the module, and with it its memory."""
        self._forward = None
        if self._device is not None:
            torch.cuda.empty_cache()

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        flags = array.flags
        if not flags.aligned or (self._writes and not flags.writeable):
            array = array.copy()  # the bytes of a request are not the model's to change
        if array.dtype == ml_dtypes.bfloat16:
            tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            tensor = torch.from_numpy(array)
        return tensor if self._device is None else tensor.to(self._device)

    def _named(self, result: Any) -> Mapping[str, Any]:
        names = self._names
        if isinstance(result, torch.Tensor):
            result = (result,)
        elif hasattr(result, "_asdict") and not set(names).isdisjoint(result._fields):
            result = result._asdict()
        if isinstance(result, dict):
            missing = [name for name in names if name not in result]
            if missing:
                raise Internal(f"forward returns no {missing[0]!r}, only {', '.join(map(repr, result))}")
            return {name: result[name] for name in names}
        if not isinstance(result, tuple | list) or len(result) != len(names):
            found = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
            raise Internal(f"forward returns {found}; {len(names)} outputs are declared")
        return dict(zip(names, result, strict=True))


def _array(name: str, value: Any) -> NDArray[Any]:
    if not isinstance(value, torch.Tensor):
        raise Internal(f"output {name!r} is {type(value).__name__}, not a tensor")
    value = value.cpu()
    if value.dtype == torch.bfloat16:
        bits: NDArray[Any] = value.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: NDArray[Any] = value.numpy()
    return array


def _frozen(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with its weights as constants, if it can be: one that changes itself in some ways cannot."""
    module.eval()
    try:
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    except RuntimeError as error:
        _log.info("served unfrozen, which is slower: %s", _reason(error))
        return module
    return frozen


def _device(name: str) -> torch.device:
    where = "parameters.extra.device"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FailedPrecondition(f"{where}: {name!r} is no device; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FailedPrecondition(f"{where}: {name!r} is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise FailedPrecondition(f"{where}: {name!r} is not there; PyTorch sees {found} CUDA devices")
    return device


def _order(declared: list[str], arguments: list[Any]) -> list[str]:
    """The declared inputs in the order in which `forward` takes them."""
    takes = [argument.name for argument in arguments]
    required = sum(not argument.has_default_value() for argument in arguments)
    order = declared if set(declared).isdisjoint(takes) else takes[: len(declared)]
    if set(order) != set(declared) or not required <= len(order) <= len(takes):
        raise FailedPrecondition(f"inputs: {_quoted(declared)} declared; forward takes {_quoted(takes)}")
    for argument in arguments[: len(order)]:
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            raise FailedPrecondition(f"forward's {argument.name!r} is {argument.type}; only tensors are served")
    return order


def _writes_inputs(module: torch.jit.ScriptModule) -> bool:
    """Whether `forward` may change its arguments in place, by PyTorch's alias analysis. It errs on the safe side."""
    graph: Any = module.inlined_graph
    aliases = graph.alias_db()
    return any(aliases.has_writers(value) for value in list(graph.inputs())[1:])


_TRACEBACK = "The following operation failed in the TorchScript interpreter"
_RAISED = re.compile(r"[\w.]*(Error|Exception)\b.*: ")


def _reason(error: Exception) -> str:
    """What PyTorch says in one sentence: without the script's traceback before it, or the advice after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if lines[0].startswith(_TRACEBACK):
        return next((line for line in reversed(lines) if _RAISED.match(line)), lines[-1])
    return lines[0].partition(". ")[0]


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _silence() -> None:
    # At each load, not once at import: whoever runs us, pytest for one, may have put other filters back meanwhile.
    # That the format is deprecated is no news to whoever serves it, and nothing that an operator could act on.
    warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
    # A request's bytes are read-only, which `_tensor` sees to.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
