"""A module as a file, in each of the formats that the server loads."""

from __future__ import annotations

import io
import logging
import platform
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.jit._trace import TracerWarning

from protos.errors import FailedPrecondition
from runtime.formats import compiled, exported_program, torchscript
from runtime.formats.pytorch import reason
from runtime.options import EXPORTED, TORCHSCRIPT


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a module: the arguments of its forward, and which of their axes may have any size."""

    arguments: Mapping[str, Tensor]
    dynamic_batch: bool  # the first, of all of them
    free: Mapping[str, Collection[int]]  # any other, by argument; those of one size change together


@dataclass(frozen=True, slots=True)
class Format:
    """How a file is called, what loads it, and what writes it; that raises FailedPrecondition where it cannot."""

    file: str
    implementation: str
    platform: str
    write: Callable[[nn.Module, Call, Path], None]


def write_torchscript(module: nn.Module, call: Call, path: Path) -> None:
    """Scripts the module, or traces it, where that fails and its course depends on no value."""
    with warnings.catch_warnings():
        # The server reads it, and so do MLServer, Triton and libtorch; that PyTorch deprecates it is known here.
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is deprecated", DeprecationWarning)
        warnings.filterwarnings("error", category=TracerWarning)
        _scripted(module, call).save(path)


def _scripted(module: nn.Module, call: Call) -> Any:
    try:
        return torch.jit.script(module)
    except Exception as unscriptable:  # noqa: BLE001 - whatever it is, tracing may do
        try:
            return torch.jit.trace(module, example_kwarg_inputs=dict(call.arguments))  # type: ignore[no-untyped-call]
        except Exception as error:
            warned = error.__cause__ if isinstance(error.__cause__, Warning) else error
            said = f"it can be neither scripted ({reason(unscriptable)}) nor traced ({reason(warned)})"
            raise FailedPrecondition(said) from error


def write_exported(module: nn.Module, call: Call, path: Path) -> None:
    """Exports the module as a program that runs anywhere."""
    program = _program(module, call)
    try:
        torch.export.save(program, path)
    except Exception as error:
        raise FailedPrecondition(f"torch.export cannot save it: {reason(error)}") from error


def write_compiled(module: nn.Module, call: Call, path: Path) -> None:
    """Compiles the module, for which there must be a C++ compiler. On x86 it runs on any processor with AVX2."""
    from torch._inductor import aoti_compile_and_package

    options: dict[str, Any] = {
        "aot_inductor.metadata": {compiled.TORCH_VERSION: str(torch.__version__)},
        "aot_inductor.check_lowerbound": False,  # else it would take no single row
        "aot_inductor.enable_line_tables": False,
        "cpp.dynamic_threads": True,  # as many as the server says, and not as this machine has
    }
    if platform.machine() == "x86_64":
        # Else it could use whatever this very machine has, and the package would not say all of it.
        options |= {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}
    program = _program(module, call)
    try:
        with _quietly():
            aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:
        raise FailedPrecondition(f"it cannot be compiled: {reason(error)}") from error


def _program(module: nn.Module, call: Call) -> ExportedProgram:
    try:
        with _quietly():
            # By keyword, so that a compiled package too knows the names of its inputs.
            return torch.export.export(module, (), dict(call.arguments), dynamic_shapes=_sizes(call))
    except Exception as error:
        # What breaks a constraint stands in a list below the first line.
        listed = (line.strip(" -") for line in str(error).splitlines() if line.startswith("  - "))
        says = next(listed, reason(error)).partition(". ")[0]
        raise FailedPrecondition(f"torch.export does not take it: {says}") from error


def _sizes(call: Call) -> dict[str, Any]:
    """The axes that are free, as torch.export wants them."""
    batch = {0: Dim("batch", min=1)} if call.dynamic_batch else {}
    free = {name: {axis: tensor.shape[axis] for axis in call.free[name]} for name, tensor in call.arguments.items()}
    dims = {size: Dim(f"size_{size}", min=1) for sizes in free.values() for size in sizes.values()}
    return {name: batch | {axis: dims[size] for axis, size in sizes.items()} for name, sizes in free.items()}


@contextmanager
def _quietly() -> Iterator[None]:
    """Hides what PyTorch tells about its own code, and the graphs that it prints where it fails."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMATS: Mapping[str, Format] = {
    "pt": Format("model.pt", TORCHSCRIPT, torchscript.PLATFORM, write_torchscript),
    "pt2": Format("model.pt2", EXPORTED, exported_program.PLATFORM, write_exported),
    "aoti": Format("model.aoti.pt2", EXPORTED, compiled.PLATFORM, write_compiled),
}
