"""Tries a model out before it serves: it must take and return what its settings declare, alone and in batches.

The runs also let PyTorch specialise, so that no caller waits for it, and tell how long a run takes. What it compiles is
compiled at the first run; but recurrent and convolutional layers are also prepared for each number of rows that they
meet, which takes several times as long as to run them.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.errors import CallError, FailedPrecondition
from protos.tensors import DATATYPES, datatype_of
from runtime.model import Arrays, Model, TensorSpec, batched

RUNS = 5
BUDGET = 0.5  # seconds for the numbers of rows between the fewest and the most
PAIR = 2  # the fewest rows that show what is shared
SLOW = 0.1  # seconds; a model that takes longer for two rows is not also tried with the largest batch

Times = Mapping[int, float]
"""Seconds of a run by its number of rows, the fewest first: each the least of a few runs, as others disturb some."""

# What rounding may change when a row is computed in other company, a matrix product not being a vector's: this part of
# the largest value, or, where terms of order 1 cancel, this much.
TOLERANCE = 0.02
NOISE = {"FP64": 1e-9, "FP32": 1e-5, "FP16": 0.05, "BF16": 0.2}


def warm_up(model: Model, *, max_rows: int, free_size: int = 1) -> Times:
    """Runs a model until it takes no longer than it has to, and times it with the fewest and the most rows.

    A first dimension that is free is tried with 1, 2 and `max_rows`, then with what lies between, the fewest first, as
    far as there is time; any other with `free_size`. Floats are random in [0, 1), all else is zero. Raises
    FailedPrecondition naming the tensor, what is declared and what was found.
    """
    rng = np.random.default_rng(0)
    shared = batched(model) and max_rows > 1
    least: dict[int, float] = {}
    for rows in sorted({1, PAIR, max_rows}) if shared else [1]:
        if any(seconds > SLOW for seconds in least.values()):
            break
        arrays = {spec.name: example(spec, rows, free_size, rng) for spec in model.inputs}
        times = []
        for _ in range(RUNS):
            started = perf_counter()
            outputs = _run(model, arrays)
            times.append(perf_counter() - started)
            _check(model.outputs, outputs, rows if shared else None)
            if rows == PAIR and len(times) == 1:
                _check_rows(model, arrays, outputs)
        least[rows] = min(times)
    if shared and max(least.values()) <= SLOW:
        end = perf_counter() + BUDGET
        for rows in range(PAIR + 1, max_rows):
            if perf_counter() > end:
                break
            arrays = {spec.name: example(spec, rows, free_size, rng) for spec in model.inputs}
            _check(model.outputs, _run(model, arrays), rows)
    return least


def example(spec: TensorSpec, rows: int, free_size: int, rng: np.random.Generator) -> NDArray[Any]:
    """An input to try out a model with: `rows` rows, any other free dimension of `free_size`."""
    sizes = [rows if axis == 0 else free_size for axis in range(len(spec.shape))]
    shape = [free if size < 0 else size for size, free in zip(spec.shape, sizes, strict=True)]
    dtype = DATATYPES[spec.datatype]
    if spec.datatype == "BYTES":
        array: NDArray[Any] = np.full(shape, b"", dtype)
    else:
        array = (rng.random(shape) if spec.datatype in NOISE else np.zeros(shape)).astype(dtype)
    array.setflags(write=False)  # as those of a request are
    return array


def _run(model: Model, arrays: Arrays) -> Arrays:
    try:
        return model.run(arrays)
    except FailedPrecondition:  # a plain Python model says itself what is wrong with its answer
        raise
    except Exception as error:
        tried = ", ".join(f"{name!r} {_found(array)}" for name, array in arrays.items())
        hint = ""
        if any(-1 in spec.shape[1:] for spec in model.inputs):
            hint = "; parameters.extra.warm_up_size sets what free dimensions are tried with"
        says = error.message if isinstance(error, CallError) else f"{type(error).__name__}: {error}"
        raise FailedPrecondition(f"the model does not take its declared inputs, {tried}: {says}{hint}") from error


def _check(specs: tuple[TensorSpec, ...], outputs: Arrays, rows: int | None) -> None:
    for spec in specs:
        array = outputs[spec.name]
        sizes = zip(spec.shape, array.shape, strict=False)
        if (
            array.dtype != DATATYPES[spec.datatype]
            or array.ndim != len(spec.shape)
            or any(declared not in (-1, size) for declared, size in sizes)
        ):
            raise FailedPrecondition(f"output {spec.name!r} is declared {spec}; the model returns {_found(array)}")
        if rows is not None and len(array) != rows:
            raise FailedPrecondition(
                f"output {spec.name!r} has {len(array)} rows for a batch of {rows}; if the first dimension does not "
                f"count rows, set max_batch_size to 1"
            )


def _check_rows(model: Model, arrays: Arrays, outputs: Arrays) -> None:
    """Two rows must get the answers that each gets alone: with batch normalisation left in training, they don't."""
    alone = [_run(model, {name: array[row : row + 1] for name, array in arrays.items()}) for row in range(PAIR)]
    for spec in model.outputs:
        if spec.datatype not in NOISE:
            continue
        together = outputs[spec.name].astype(np.float64)
        apart = np.concatenate([each[spec.name] for each in alone]).astype(np.float64)
        largest = np.abs(apart).max(initial=0, where=np.isfinite(apart))
        margin = TOLERANCE * largest + NOISE[spec.datatype]
        if apart.shape != together.shape or not np.allclose(apart, together, rtol=0, atol=margin, equal_nan=True):
            raise FailedPrecondition(
                f"output {spec.name!r} of a row depends on the other rows of its batch, or on chance; "
                f"if that is meant, set max_batch_size to 1"
            )


def _found(array: NDArray[Any]) -> str:
    try:
        return f"{datatype_of(array.dtype)} {list(array.shape)}"
    except TypeError:
        return f"{array.dtype} {list(array.shape)}"
