"""Exported programs: what `torch.export.save` writes. PyTorch runs them operation by operation, on any machine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
import torch
from torch import SymInt, Tensor
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.export.pt2_archive._package import load_pt2
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.nn import Module

from protos.errors import FailedPrecondition
from protos.tensors import datatype_of
from runtime.formats.program import Program, names_of
from runtime.formats.pytorch import array_of, bytes_of, load_error, reason
from runtime.model import TensorSpec

FOLDER = "models/"  # of an archive
PLATFORM = "pytorch_exported"
UNLIMITED = 2**62  # rows; PyTorch's infinity is beyond
FEWEST = 2  # the least that a range which nobody narrowed begins with; one row and none are taken all the same

_reading = threading.Lock()  # PyTorch keeps its reader of an archive in a global, and refuses to have a second


def load_exported(path: Path, specs: Sequence[TensorSpec], device: torch.device) -> Program:
    """The program of an archive. Raises FailedPrecondition where it does not load, or takes other inputs than `specs`.

    What is declared is held against the program here, as its calls are not checked one by one where they need not be.
    """
    try:
        # Not by `torch.export.load`, which logs what is wrong, and raises that something is.
        with _reading:
            (exported,) = load_pt2(str(path)).exported_programs.values()
        exported = move_to_device_pass(exported, device)
    except Exception as error:
        raise load_error(f"{path.name} {_unread(path)}: {reason(error)}", error) from error
    inputs = _inputs(exported)
    module = _flat(exported, list(inputs.values()))
    returned = exported.call_spec.out_spec
    program = Program(
        run=_spread(module.forward),
        inputs=list(inputs),
        outputs=names_of(returned, "returns") if returned is not None else [],
        writes=_writes(module),
        platform=PLATFORM,
        memory=bytes_of([*module.parameters(), *module.buffers(), *_constants(exported)]),
        gradients=module.forward,
        free=partial(_empty, list(module.modules())),
    )
    declared = {spec.name: spec for spec in specs}
    for name, value in zip(program.input_order(list(declared)), inputs.values(), strict=True):
        _check(declared[name], value)
    return program


def _inputs(exported: ExportedProgram) -> dict[str, Tensor]:
    """What the program takes, by name: tensors without data, their free sizes symbols."""
    values: Mapping[str, Any] = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    inputs = {}
    for name in exported.graph_signature.user_inputs:
        value = values[name] if isinstance(name, str) else name
        if not isinstance(value, Tensor):
            raise FailedPrecondition(
                f"forward was exported with an argument that is {value!r}; only tensors are served"
            )
        inputs[str(name)] = value
    return inputs


def _flat(exported: ExportedProgram, inputs: Sequence[Tensor]) -> GraphModule:
    """The program as a module whose `forward` takes and returns its tensors side by side."""
    module = exported.module(check_guards=not _anything_goes(exported, inputs))
    module.requires_grad_(False)  # nobody asks for the gradients of its weights
    # PyTorch's own forward folds and unfolds trees at each call, which takes longer than a small network.
    module.graph.set_codegen(CodeGen())
    module.recompile()
    return module


def _empty(modules: Sequence[Module]) -> None:
    """Drops their weights at once: such modules hold themselves, and would be there until Python looks for circles."""
    for each in modules:
        vars(each).clear()


def _constants(exported: ExportedProgram) -> list[Tensor]:
    return [each for each in exported.constants.values() if isinstance(each, Tensor)]


def _anything_goes(exported: ExportedProgram, inputs: Sequence[Tensor]) -> bool:
    """Whether the number of rows is all that may vary, and may do so without a limit; then calls need no check."""
    ranges = {str(symbol): limits for symbol, limits in exported.range_constraints.items()}
    free = {(axis, str(size)) for each in inputs for axis, size in enumerate(_sizes(each)) if isinstance(size, SymInt)}
    if len(free) > 1:
        return False
    for axis, symbol in free:
        limits = ranges.get(symbol)
        if axis or limits is None or limits.lower > FEWEST or limits.upper < UNLIMITED:
            return False
    return True


def _sizes(value: Tensor) -> tuple[int | SymInt, ...]:
    return value.shape


def _spread(forward: Callable[..., Sequence[Any]]) -> Callable[[list[Tensor]], Sequence[Any]]:
    inference = torch.inference_mode()

    def run(tensors: list[Tensor]) -> Sequence[Any]:
        with inference:
            return forward(*tensors)

    return run


def _writes(module: GraphModule) -> bool:
    """Whether an operation changes a tensor in place; it might be an input."""
    graphs = (each.graph for each in module.modules() if isinstance(each, GraphModule))
    schemas = (getattr(node.target, "_schema", None) for graph in graphs for node in graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _check(spec: TensorSpec, value: Tensor) -> None:
    sizes = [-1 if isinstance(size, SymInt) else size for size in _sizes(value)]
    found = TensorSpec(spec.name, _datatype(value.dtype), tuple(sizes))
    if (
        found.datatype == spec.datatype
        and len(sizes) == len(spec.shape)
        and all(size in (-1, declared) for size, declared in zip(sizes, spec.shape, strict=True))
    ):
        return
    raise FailedPrecondition(
        f"input {spec.name!r} is declared {spec}; the program takes {found}: declare that, or export it anew"
    )


def _datatype(dtype: torch.dtype) -> str:
    try:
        return datatype_of(array_of("", torch.empty(0, dtype=dtype)).dtype)
    except TypeError:
        return str(dtype)


def _unread(path: Path) -> str:
    version = _version(path)
    if version == torch.__version__:
        return f"does not load under PyTorch {version}, which exported it"
    return f"was exported by PyTorch {version}, and {torch.__version__} does not load it"


def _version(path: Path) -> str:
    """The PyTorch that an archive says it was exported by."""

    class Header(msgspec.Struct):
        torch_version: str

    with ZipFile(path) as archive:
        for name in archive.namelist():
            if f"/{FOLDER}" in name and name.endswith(".json"):
                return msgspec.json.decode(archive.read(name), type=Header).torch_version
    return "an earlier version"
