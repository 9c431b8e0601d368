"""A model's warm-up sample: inputs, and what the model answered to them before it left its maker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from protos.errors import CallError, FailedPrecondition
from protos.tensors import DATATYPES
from runtime.model import Arrays, Model, TensorSpec, misfit, told
from runtime.rounding import alike
from runtime.settings import ModelSettings
from runtime.words import quoted

# Beside model-settings.json; arrays named inputs/NAME and outputs/NAME, those of BYTES as NumPy's texts or bytes.
FILE = "warm-up.npz"

PART = 0.01  # of the largest value: by so much may another machine or device be off, as it rounds otherwise


@dataclass(frozen=True, slots=True)
class Sample:
    """Arrays by name."""

    inputs: Arrays
    outputs: Arrays

    def write(self, path: Path) -> None:
        """Writes the file."""
        named = {f"inputs/{name}": array for name, array in self.inputs.items()}
        named |= {f"outputs/{name}": array for name, array in self.outputs.items()}
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **named)


def read_sample(folder: Path, model: Model | ModelSettings) -> Sample | None:
    """The sample of a model's folder, if there is one. Raises FailedPrecondition when it is of another model."""
    path = folder / FILE
    if not path.exists():
        return None
    arrays: Arrays = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        inputs, outputs = (
            {spec.name: _fitting(f"{kind}/{spec.name}", spec, arrays) for spec in specs}
            for kind, specs in (("inputs", model.inputs), ("outputs", model.outputs))
        )
    except KeyError as error:
        says = f"it has no {error}, only {quoted(arrays)}"
        raise FailedPrecondition(f"{path} is not a sample of this model: {says}") from error
    except (OSError, EOFError, TypeError, ValueError, BadZipFile) as error:  # TypeError: of what is no archive
        raise FailedPrecondition(f"{path} is not a sample of this model: {error}") from error
    return Sample(inputs, outputs)


def _fitting(name: str, spec: TensorSpec, arrays: Arrays) -> NDArray[Any]:
    array = arrays[name]
    if array.dtype.kind == "V":  # as a datatype that NumPy does not have comes back
        array = array.view(DATATYPES[spec.datatype])
    elif spec.datatype == "BYTES" and array.dtype.kind in "SU":
        array = (np.strings.encode(array, "utf-8") if array.dtype.kind == "U" else array).astype(np.object_)
    if misfit((spec,), {spec.name: array}):
        raise ValueError(f"its {name!r} is {told(array)}, and {spec.name!r} is declared {spec}")
    return array


def check_sample(model: Model, sample: Sample) -> None:
    """Raises FailedPrecondition unless the model answers as the sample says, but for rounding."""
    try:
        found = model.run(sample.inputs)
    except CallError as error:
        raise FailedPrecondition(f"the model does not take its warm-up sample: {error.message}") from error
    for spec in model.outputs:
        theirs, ours = sample.outputs[spec.name], found[spec.name]
        if not alike(theirs, ours, PART):
            raise FailedPrecondition(
                f"output {spec.name!r} is not what the warm-up sample says that the model answers; it was made from "
                f"another version of the model, or this machine computes otherwise"
            )
