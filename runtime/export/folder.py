"""A module as a model folder: its files, what they take and return, and what they answered before they left."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from protos.errors import FailedPrecondition
from protos.tensors import datatype_of
from runtime import formats as loaders
from runtime import sample as samples
from runtime.export.archives import FORMATS, Call, Format
from runtime.formats.pytorch import array_of, reason
from runtime.sample import Sample, check_sample
from runtime.settings import FILE, read_settings

SUMS = "SHA256SUMS"  # of all files but the settings, which others rewrite; `sha256sum -c` reads it

Tensors = Mapping[str, Tensor]


def export(
    module: nn.Module,
    example: Tensors | Sequence[Tensor],
    folder: Path,
    *,
    name: str = "",
    outputs: Sequence[str] = (),
    formats: Sequence[str] = ("pt", "pt2"),
    dynamic_batch: bool = True,
) -> Path:
    """Writes a module, in evaluation mode from now on, into a folder that serves it in the first of the formats.

    `example` is a call's tensors, by the names of forward's arguments or in their order. `outputs` names what forward
    returns, in its order, or says which keys of its dict are wanted. With `dynamic_batch` the first dimension of all
    tensors counts rows, of which there may be any number.

    Each file is loaded as the server would load it, and must answer as the module does, for one row too and for more
    than the example has. Then it replaces what the folder had. Raises FailedPrecondition where anything of that fails.
    """
    for each in formats:
        if each not in FORMATS:
            raise FailedPrecondition(f"there is no format {each!r}; there are {', '.join(FORMATS)}")
    if not formats:
        raise FailedPrecondition(f"name at least one format of {', '.join(FORMATS)}")
    module.eval()
    call = _call(module, example, dynamic_batch=dynamic_batch)
    tried = [_sample(module, tensors, outputs) for tensors in _batches(call)]
    if dynamic_batch:
        _check_rows(tried)
    settings = _settings(name or folder.name, tried[0], dynamic_batch=dynamic_batch)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent, prefix=".export-") as staging:
        made = Path(staging)
        for each in formats:
            try:
                FORMATS[each].write(module, call, made / FORMATS[each].file)
                _check(made, _served(settings, FORMATS[each]), tried)
            except FailedPrecondition as error:
                raise FailedPrecondition(f"{each}: {error.message}") from error
        tried[0].write(made / samples.FILE)
        files = [*(FORMATS[each].file for each in formats), samples.FILE]
        (made / SUMS).write_text("".join(f"{_digest(made / file)}  {file}\n" for file in files), encoding="utf-8")
        _write_json(made / FILE, _served(settings, FORMATS[formats[0]]))
        folder.mkdir(exist_ok=True)
        # The settings last, so that they never name what is not there.
        for file in (*files, SUMS, FILE):
            (made / file).replace(folder / file)
    for other in FORMATS.values():
        if other.file not in files:
            (folder / other.file).unlink(missing_ok=True)
    return folder


def _call(module: nn.Module, example: Tensors | Sequence[Tensor], *, dynamic_batch: bool) -> Call:
    if isinstance(example, Mapping):
        tensors = dict(example)
    else:
        names = list(inspect.signature(module.forward).parameters)
        if len(names) < len(example):
            raise FailedPrecondition(f"the example has {len(example)} tensors; forward takes {', '.join(names)}")
        tensors = dict(zip(names, example, strict=False))
    # One tensor given twice would be one input to torch.export.
    tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    if not dynamic_batch:
        return Call(tensors, dynamic_batch)
    rows = {name: len(tensor) if tensor.ndim else 0 for name, tensor in tensors.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        raise FailedPrecondition(f"with a dynamic batch all tensors of the example have the same rows, and not {rows}")
    if set(rows.values()) == {1}:  # of which torch.export would make a constant
        tensors = {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()}
    return Call(tensors, dynamic_batch)


def _batches(call: Call) -> list[Tensors]:
    """The example, and where any number of rows may come, one row of it, and more rows than it has."""
    if not call.dynamic_batch:
        return [call.arguments]
    one = {name: tensor[:1] for name, tensor in call.arguments.items()}
    more = {name: torch.cat([tensor, tensor, tensor[:1]]) for name, tensor in call.arguments.items()}
    return [call.arguments, one, more]


def _sample(module: nn.Module, tensors: Tensors, names: Sequence[str]) -> Sample:
    try:
        with torch.inference_mode():
            result = module(**{name: tensor.clone() for name, tensor in tensors.items()})  # it may write to them
    except Exception as error:
        raise FailedPrecondition(f"the module does not take the example: {reason(error)}") from error
    arrays = {name: array_of(name, tensor) for name, tensor in tensors.items()}
    return Sample(arrays, {name: array_of(name, value) for name, value in _named(result, names).items()})


def _named(result: Any, names: Sequence[str]) -> Mapping[str, Any]:
    """What forward returned, by name."""
    if hasattr(result, "_asdict"):
        result = result._asdict()
    if isinstance(result, Mapping):
        missing = [name for name in names if name not in result]
        if missing:
            raise FailedPrecondition(f"forward returns no {missing[0]!r}, only {', '.join(map(repr, result))}")
        return {name: result[name] for name in names or result}
    values = result if isinstance(result, tuple | list) else (result,)
    if not names:
        names = ["output"] if len(values) == 1 else [f"output_{number}" for number in range(len(values))]
    if len(values) != len(names):
        raise FailedPrecondition(f"forward returns {len(values)} values; {len(names)} outputs are named")
    return dict(zip(names, values, strict=True))


def _check_rows(tried: Sequence[Sample]) -> None:
    """Raises FailedPrecondition unless the first dimension of every output, and no other, depends on the rows."""
    rest = {name: array.shape[1:] for name, array in tried[0].outputs.items()}
    for sample in tried:
        rows = len(next(iter(sample.inputs.values())))
        for name, array in sample.outputs.items():
            if array.shape != (rows, *rest[name]):
                raise FailedPrecondition(
                    f"output {name!r} has shape {list(array.shape)} for {rows} rows: its first dimension does not "
                    f"count rows, which dynamic_batch=False allows"
                )


def _settings(name: str, sample: Sample, *, dynamic_batch: bool) -> dict[str, Any]:
    def declared(arrays: Mapping[str, Any]) -> list[dict[str, Any]]:
        tensors = []
        for key, array in arrays.items():
            shape = [-1, *array.shape[1:]] if dynamic_batch else list(array.shape)
            tensors.append({"name": key, "datatype": datatype_of(array.dtype), "shape": shape})
        return tensors

    return {"name": name, "inputs": declared(sample.inputs), "outputs": declared(sample.outputs)}


def _served(settings: Mapping[str, Any], how: Format) -> dict[str, Any]:
    """The settings of the model in one of its formats."""
    return {
        "name": settings["name"],
        "implementation": how.implementation,
        "platform": how.platform,
        "parameters": {"uri": f"./{how.file}", "version": "1"},
        "inputs": settings["inputs"],
        "outputs": settings["outputs"],
    }


def _check(folder: Path, settings: Mapping[str, Any], tried: Sequence[Sample]) -> None:
    """Raises FailedPrecondition unless the file that was written answers as the module did."""
    _write_json(folder / FILE, settings)
    model = loaders.load(read_settings(folder / FILE, name="", version=""), folder)
    try:
        for sample in tried:
            check_sample(model, sample)
    finally:
        model.close()


def _write_json(path: Path, told: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
