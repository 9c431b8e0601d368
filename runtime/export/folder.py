"""A module as a model folder: its files, what they take and return, and what they answered before they left."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protos.errors import CallError, FailedPrecondition
from protos.tensors import datatype_of
from runtime import formats as loaders
from runtime import sample as samples
from runtime.export.archives import FORMATS, Call
from runtime.export.declared import Before, tried_as
from runtime.formats.pytorch import array_of, reason
from runtime.model import Arrays, Model
from runtime.prepare import prepare
from runtime.rounding import alike
from runtime.sample import PART, Sample
from runtime.settings import FILE, ModelSettings
from runtime.words import quoted

SUMS = "SHA256SUMS"  # of all files but the settings, which others rewrite; `sha256sum -c` reads it

Tensors = Mapping[str, Tensor]

NONE_FREE: Mapping[str, Collection[int]] = MappingProxyType({})


def export(
    module: nn.Module,
    example: Tensors | Sequence[Tensor],
    folder: Path,
    *,
    name: str = "",
    outputs: Sequence[str] = (),
    formats: Sequence[str] = ("pt", "pt2"),
    dynamic_batch: bool = True,
    free: Mapping[str, Collection[int]] = NONE_FREE,
) -> Path:
    """Writes a module, in evaluation mode from now on, into a folder that serves it in the first of the formats.

    `example` is a call's tensors, by the names of forward's arguments or in their order. `outputs` names what forward
    returns, in its order, or says which keys of its dict are wanted. With `dynamic_batch` the first dimension of all
    tensors counts rows, of which there may be any number. `free` says, by argument, which of the other dimensions may
    have any size too; those that have one size in the example change together.

    A folder that is called by a number is that version of the model that its parent is called after. What its settings
    say already stays, but for what an export decides: files, datatypes, shapes. A -1 in a shape stays, too.

    Each file is loaded, warmed up and tried out as the server would, and must answer as the module does, for one row
    too and for more than the example has. Then it replaces what the folder had. Raises FailedPrecondition where
    anything of that fails.
    """
    for each in formats:
        if each not in FORMATS:
            raise FailedPrecondition(f"there is no format {each!r}; there are {', '.join(FORMATS)}")
    if not formats:
        raise FailedPrecondition(f"name at least one format of {', '.join(FORMATS)}")
    for kind, names in (("format", formats), ("output", outputs)):
        if twice := next((each for each in names if list(names).count(each) > 1), None):
            raise FailedPrecondition(f"{kind} {twice!r} is named twice")
    module.eval()
    before = Before(folder)
    call = _call(module, example, before, free, dynamic_batch=dynamic_batch)
    tried = [_sample(module, tensors, outputs) for tensors in _batches(call)]
    if changing := _unlike(tried[0].outputs, _sample(module, call.arguments, outputs).outputs):
        raise FailedPrecondition(
            f"output {changing!r} is another one each time that forward runs on the example: it keeps state, or draws "
            f"at random, as F.dropout does without training=self.training"
        )
    if dynamic_batch:
        _check_rows(tried[:3])  # and not with larger ones
    served = FORMATS[formats[0]]
    settings = before.settings(name, served, tried, dynamic_batch=dynamic_batch)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".export-") as staging:
        made = Path(staging)
        tried[0].write(made / samples.FILE)
        files: list[str] = []
        for each in formats:
            how = FORMATS[each]
            try:
                how.write(module, call, made / how.file)
                _check(made, folder, tried_as(settings, folder, how, served=how is served), tried)
            except FailedPrecondition as error:
                says = error.message.replace(f"{made / FILE}: ", "").rstrip(".")
                others = " ".join(f"--format {done}" for done in formats[: len(files)])
                hint = f"; {others} writes what works" if files else ""
                raise FailedPrecondition(f"{each}: {says}{hint}") from error
            files.append(how.file)
        files.append(samples.FILE)
        (made / SUMS).write_text("".join(f"{_digest(made / file)}  {file}\n" for file in files), encoding="utf-8")
        (made / FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        folder.mkdir(exist_ok=True)
        # The settings last, so that they never name what is not there.
        for file in (*files, SUMS, FILE):
            (made / file).replace(folder / file)
    for other in FORMATS.values():
        if other.file not in files:
            (folder / other.file).unlink(missing_ok=True)
    return folder


def _call(
    module: nn.Module,
    example: Tensors | Sequence[Tensor],
    before: Before,
    free: Mapping[str, Collection[int]],
    *,
    dynamic_batch: bool,
) -> Call:
    if isinstance(example, Mapping):
        tensors = dict(example)
    else:
        names = list(inspect.signature(module.forward).parameters)
        if len(names) < len(example):
            raise FailedPrecondition(f"the example has {len(example)} tensors; forward takes {', '.join(names)}")
        tensors = dict(zip(names, example, strict=False))
    # One tensor given twice would be one input to torch.export.
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    for name, wanted in free.items():
        if name not in tensors or not {*wanted} <= {*range(1, tensors[name].ndim)}:
            raise FailedPrecondition(f"free: {name!r} has not each of the dimensions {sorted(wanted)} after its first")
    axes = {name: {*free.get(name, ())} | before.freed(name, tensor.ndim) for name, tensor in tensors.items()}
    if not dynamic_batch:
        return Call(tensors, dynamic_batch, axes)
    rows = {name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise FailedPrecondition(f"with a dynamic batch all tensors of the example have the same rows, and not {rows}")
    if set(rows.values()) == {1}:  # of which torch.export would make a constant
        tensors = {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}
    return Call(tensors, dynamic_batch, axes)


def _batches(call: Call) -> list[Tensors]:
    """The example, and where any size may come, one row of it, more rows than it has, and larger ones."""
    batches = [call.arguments]
    if call.dynamic_batch:
        batches.append({name: tensor[:1] for name, tensor in call.arguments.items()})
        batches.append({name: torch.cat([tensor, tensor, tensor[:1]]) for name, tensor in call.arguments.items()})
    if any(call.free.values()):
        batches.append({name: _larger(tensor, call.free[name]) for name, tensor in call.arguments.items()})
    return batches


def _larger(tensor: Tensor, axes: Collection[int]) -> Tensor:
    for axis in axes:
        tensor = torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
    return tensor


def _sample(module: nn.Module, tensors: Tensors, names: Sequence[str]) -> Sample:
    inputs = {name: _array("input", name, tensor) for name, tensor in tensors.items()}
    try:
        with torch.inference_mode():
            result = module(**{name: tensor.clone() for name, tensor in tensors.items()})  # it may write to them
    except Exception as error:
        raise FailedPrecondition(f"the module does not take the example: {reason(error)}") from error
    named = {name: _array("output", name, value) for name, value in _named(result, names).items()}
    if not named:
        raise FailedPrecondition(f"forward returns {result!r}, and so nothing to serve")
    return Sample(inputs, named)


def _array(kind: str, name: str, value: Any) -> NDArray[Any]:
    try:
        array = array_of(name, value)
        datatype_of(array.dtype)
    except CallError as error:
        raise FailedPrecondition(error.message) from error
    except (TypeError, RuntimeError) as error:
        raise FailedPrecondition(f"{kind} {name!r} cannot be served: {reason(error)}") from error
    return array


def _named(result: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """What forward returned, by name."""
    if hasattr(result, "_asdict"):
        result = result._asdict()
    if isinstance(result, Mapping):
        missing = [name for name in names if name not in result]
        if missing:
            raise FailedPrecondition(f"forward returns no {missing[0]!r}, only {quoted(result)}")
        return {name: result[name] for name in names or result}
    values = result if isinstance(result, tuple | list) else (result,)
    if not names:
        names = ["output"] if len(values) == 1 else [f"output_{number}" for number in range(len(values))]
    if len(values) != len(names):
        raise FailedPrecondition(f"forward returns {len(values)} values; {len(names)} outputs are named")
    return dict(zip(names, values, strict=True))


def _unlike(theirs: Arrays, ours: Arrays) -> str:
    """The first output that is not the same in both, but for rounding; empty where all are."""
    return next((name for name, array in theirs.items() if not alike(array, ours[name], PART)), "")


def _check_rows(tried: Sequence[Sample]) -> None:
    """Raises FailedPrecondition unless the first dimension of every output, and no other, depends on the rows."""
    rest = {name: array.shape[1:] for name, array in tried[0].outputs.items()}
    for sample in tried:
        rows = len(next(iter(sample.inputs.values())))
        for name, array in sample.outputs.items():
            if array.shape != (rows, *rest[name]):
                raise FailedPrecondition(
                    f"output {name!r} has shape {list(array.shape)} for {rows} rows: its first dimension does not "
                    f"count rows, which --fixed-batch (dynamic_batch=False) allows"
                )


def _check(made: Path, folder: Path, settings: ModelSettings, tried: Sequence[Sample]) -> None:
    """Raises FailedPrecondition unless the file answers as the module does, and the server would take it."""
    model = loaders.load(settings, made)
    try:
        for sample in tried:
            _compare(model, sample)
    except FailedPrecondition:
        model.close()
        raise
    try:
        prepare(lambda *_: model, settings, made).model.close()
    except FailedPrecondition as error:
        raise FailedPrecondition(
            f"the server would refuse it: {error.message}; options may stand in {folder / FILE} before the export"
        ) from error


def _compare(model: Model, sample: Sample) -> None:
    try:
        found = model.run(sample.inputs)
    except CallError as error:
        shapes = ", ".join(f"{name!r} {list(array.shape)}" for name, array in sample.inputs.items())
        raise FailedPrecondition(f"the file does not take what the module took, {shapes}: {error.message}") from error
    if name := _unlike(sample.outputs, found):
        raise FailedPrecondition(f"output {name!r} of the file is not what the module answers")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
