"""TorchScript archives: what `torch.jit.save` writes.

Arrays go in and out without a copy. Names of inputs are those of `forward`'s arguments; where none is, the order of
the settings counts. Outputs go by name where `forward` returns a dict or a named tuple, else by order.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from protos.errors import FailedPrecondition, Internal
from runtime.formats import pytorch
from runtime.formats.gpu import on_gpu, wants_graphs
from runtime.formats.pytorch import (
    array_of,
    bytes_of,
    check_declared,
    device_of,
    load_error,
    silence,
    tensor_of,
    use_threads,
)
from runtime.model import NOTHING, Arrays, Parameters
from runtime.naming import naming
from runtime.options import EXPORTED
from runtime.repository import locate
from runtime.settings import FILE, ModelSettings
from runtime.words import quoted

PLATFORM = "pytorch_torchscript"
WELL_KNOWN = ("model.pt", "model.pth")

_log = logging.getLogger(__name__)

# One specialisation, for any size, then no more: the default compiles anew for the first batch sizes that it meets.
torch.jit.set_fusion_strategy([("DYNAMIC", 1)])


def load(settings: ModelSettings, folder: Path) -> TorchScriptModel:
    """Loads the archive of a model folder. Raises FailedPrecondition saying what is wrong with it or its settings."""
    silence(r"`torch\.jit\.\w+` is deprecated")  # nothing that an operator could act on
    path = locate(folder, settings.uri, WELL_KNOWN)
    with naming(folder / FILE):
        graphs = wants_graphs(settings)
        device = device_of(settings)
        try:
            module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
        except Exception as error:
            says = _other(path) or _reason(error)
            raise load_error(f"{path.name} is not a TorchScript archive: {says}", error) from error
        thawed = module if settings.options.explained else None
        return TorchScriptModel(_frozen(module), settings, device, graphs=graphs, thawed=thawed)


class TorchScriptModel:
    """A scripted or traced module on one device.

    With `graphs` its launches on a GPU are replayed. `thawed` is the module before it was frozen, for gradients: their
    runs are then no part of what the executor learns from the others. The two share their weights.
    """

    reads_parameters = False

    def __init__(
        self,
        module: torch.jit.ScriptModule,
        settings: ModelSettings,
        device: torch.device,
        *,
        graphs: bool,
        thawed: torch.jit.ScriptModule | None,
    ) -> None:
        check_declared(settings)
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
        self.memory = bytes_of(_tensors(module))
        self._thawed = thawed
        self._writes = _writes_inputs(module)
        self._inference = torch.inference_mode()
        self._threads = settings.options.threads
        specs = {spec.name: spec for spec in settings.inputs}
        self._gpu = on_gpu(self.name, self._on_tensors, [specs[name] for name in self._order], device, _reason)
        if self._gpu is not None and graphs:
            use_threads(self._threads)
            self._gpu.capture(settings.max_batch_size)

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Runs `forward`. Raises Internal with what PyTorch says."""
        if self._forward is None:
            raise Internal("the model is closed")
        use_threads(self._threads)
        if self._gpu is not None:
            return self._gpu.run(arrays)
        try:
            with self._inference:
                result = self._forward(*[tensor_of(arrays[name], None, writes=self._writes) for name in self._order])
        except Exception as error:
            raise Internal(_reason(error)) from error
        return {name: array_of(name, value) for name, value in self._named(result).items()}

    def differentiable(self) -> Callable[[Mapping[str, torch.Tensor]], Mapping[str, Any]]:
        """The module as it was before it was frozen, as a function of tensors by name."""
        module: Any = self._thawed
        if module is None:
            raise Internal("the model was loaded without explanations")
        for weight in module.parameters():
            weight.requires_grad_(False)  # whose gradients nobody asks for
        return lambda tensors: self._named(module(*[tensors[name] for name in self._order]))

    def close(self) -> None:
        """Drops the module, and with it its memory."""
        self._forward = self._thawed = None
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def _on_tensors(self, tensors: list[torch.Tensor]) -> Mapping[str, Any]:
        if self._forward is None:
            raise Internal("the model is closed")
        return self._named(self._forward(*tensors))

    def _named(self, result: Any) -> Mapping[str, Any]:
        names = self._names
        if isinstance(result, torch.Tensor):
            result = (result,)
        elif hasattr(result, "_asdict") and not set(names).isdisjoint(result._fields):
            result = result._asdict()
        if isinstance(result, dict):
            missing = [name for name in names if name not in result]
            if missing:
                raise Internal(f"forward returns no {missing[0]!r}, only {quoted(result)}")
            return {name: result[name] for name in names}
        if not isinstance(result, tuple | list) or len(result) != len(names):
            found = f"{len(result)} values" if isinstance(result, tuple | list) else type(result).__name__
            raise Internal(f"forward returns {found}; {len(names)} outputs are declared")
        return dict(zip(names, result, strict=True))


def _other(path: Path) -> str:
    """What else PyTorch wrote there, and what to do about it; empty where nobody knows."""
    try:
        with ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (BadZipFile, OSError):
        return ""
    if "archive_format" in names:
        return f'it is torch.export\'s; call it model.pt2, and its implementation "{EXPORTED}"'
    if "data.pkl" in names and "constants.pkl" not in names:
        return "it is torch.save's, which has no code to run; write it with torch.jit.save, or croupier export"
    return ""


def _frozen(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    """The module with its weights as constants, if it can be: one that changes itself in some ways cannot."""
    module.eval()
    try:
        frozen: torch.jit.ScriptModule = torch.jit.freeze(module)
    except RuntimeError as error:
        _log.info("served unfrozen, which is slower: %s", _reason(error))
        return module
    return frozen


def _order(declared: list[str], arguments: list[Any]) -> list[str]:
    """The declared inputs in the order in which `forward` takes them."""
    takes = [argument.name for argument in arguments]
    required = sum(not argument.has_default_value() for argument in arguments)
    order = declared if set(declared).isdisjoint(takes) else takes[: len(declared)]
    if set(order) != set(declared) or not required <= len(order) <= len(takes):
        raise FailedPrecondition(f"inputs: {quoted(declared)} declared; forward takes {quoted(takes)}")
    for argument in arguments[: len(order)]:
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            raise FailedPrecondition(f"forward's {argument.name!r} is {argument.type}; only tensors are served")
    return order


def _tensors(module: torch.jit.ScriptModule) -> Iterator[torch.Tensor]:
    """Parameters, buffers, and what was made a constant of the code, as freezing does with both."""
    yield from module.parameters()
    yield from module.buffers()
    graph: Any = module.inlined_graph
    for node in graph.findAllNodes("prim::Constant"):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.t("value")


def _writes_inputs(module: torch.jit.ScriptModule) -> bool:
    """Whether `forward` may change its arguments in place, by PyTorch's alias analysis. It errs on the safe side."""
    graph: Any = module.inlined_graph
    aliases = graph.alias_db()
    return any(aliases.has_writers(value) for value in list(graph.inputs())[1:])


_TRACEBACK = "The following operation failed in the TorchScript interpreter"
_RAISED = re.compile(r"[\w.]*(Error|Exception)\b.*: ")


def _reason(error: Exception) -> str:
    """What PyTorch says in one sentence: without the script's traceback before it, or the advice after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith(_TRACEBACK):
        return next((line for line in reversed(lines) if _RAISED.match(line)), lines[-1])
    return pytorch.reason(error)
