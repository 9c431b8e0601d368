"""Tries a model out before it serves: it must take and return what its settings declare, alone and in batches.

The runs also let PyTorch specialise, so that no caller waits for it, and tell how long a run takes. What it compiles is
compiled at the first run; but recurrent and convolutional layers are also prepared for each number of rows that they
meet, which takes several times as long as to run them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.errors import FailedPrecondition
from protos.tensors import DATATYPES, FLOATS
from runtime.failure import said_by
from runtime.model import Arrays, Model, TensorSpec, misfit, shares_runs, told
from runtime.rounding import alike
from runtime.words import described

RUNS = 5
BUDGET = 0.5  # seconds for the numbers of rows between the fewest and the most
PAIR = 2  # the fewest rows that show what is shared
SLOW = 0.1  # seconds; a model that takes longer for two rows is not also tried with the largest batch
ENDS = slice(0, 1), slice(-1, None)  # the rows of a batch that are compared with what they get alone
NO_SAMPLE: Arrays = MappingProxyType({})

Times = Mapping[int, float]
"""Seconds of a run by its number of rows, the fewest first: each the least of a few runs, as others disturb some."""

# By which part of the largest value a row may be off when it is computed in other company, a matrix product not being a
# vector's.
TOLERANCE = 0.02


def warm_up(
    model: Model, *, max_rows: int, free_size: int = 1, sample: Arrays = NO_SAMPLE, negative: bool = True
) -> Times:
    """Runs a model until it takes no longer than it has to, and times it with the fewest and the most rows.

    A first dimension that is free is tried with 1, 2 and `max_rows`, then with what lies between, the fewest first, as
    far as there is time. What is given are rows of `sample`, the inputs of one, or what `examples` makes up. Whether
    rows depend on each other is also tried with floats below zero, unless not `negative`, if the model takes such.
    Raises FailedPrecondition naming the tensor, what is declared and what was found.
    """
    run = partial(_run, model, sampled=bool(sample))
    made = partial(examples, model.inputs, rng=np.random.default_rng(0), free_size=free_size, sample=sample)
    shared = shares_runs(model, max_rows)
    least: dict[int, float] = {}
    for rows in sorted({1, PAIR, max_rows}) if shared else [1]:
        if any(seconds > SLOW for seconds in least.values()):
            break
        arrays = made(rows if shared else None)
        times = []
        for _ in range(RUNS):
            started = perf_counter()
            outputs = run(arrays)
            times.append(perf_counter() - started)
            _check(model.outputs, outputs, rows if shared else None)
            if shared and rows > 1 and len(times) == 1:
                _check_rows(model.outputs, outputs, _alone(run, arrays, model.outputs))
        least[rows] = min(times)
    if shared and max(least.values()) <= SLOW:
        end = perf_counter() + BUDGET
        _try_floats(model, made(max_rows, half=-1 if negative else 1))
        for rows in range(PAIR + 1, max_rows):
            if perf_counter() > end:
                break
            _check(model.outputs, run(made(rows)), rows)
    return least


def examples(
    specs: Iterable[TensorSpec],
    rows: int | None,
    *,
    rng: np.random.Generator,
    free_size: int = 1,
    sample: Arrays = NO_SAMPLE,
    half: int | None = None,
) -> Arrays:
    """Inputs to try out a model with: rows of `sample`, over and over, where it has the input.

    Else floats are random in [0, 1), all else is zero, and free dimensions but the first are of `free_size`. Without
    `rows`, the sample is given as it is, or one row. With `half`, floats are random anyway, the first half of them
    times that.
    """
    arrays = {}
    for spec in specs:
        dtype, given = DATATYPES[spec.datatype], sample.get(spec.name)
        if given is None:
            shape = tuple(
                size if size >= 0 else free_size if axis else rows or 1 for axis, size in enumerate(spec.shape)
            )
        else:
            shape = given.shape if rows is None else (rows, *given.shape[1:])
        if spec.datatype in FLOATS and (given is None or half is not None):
            floats = rng.random(shape)
            floats.ravel()[: (floats.size + 1) // 2] *= half or 1
            array: NDArray[Any] = floats.astype(dtype)
        elif given is not None:
            array = np.resize(given, shape)
        else:
            array = np.full(shape, b"" if spec.datatype == "BYTES" else 0, dtype)
        array.setflags(write=False)  # as those of a request are
        arrays[spec.name] = array
    return arrays


def _run(model: Model, arrays: Arrays, *, sampled: bool) -> Arrays:
    try:
        return model.run(arrays)
    except FailedPrecondition:  # a plain Python model says itself what is wrong with its answer
        raise
    except Exception as error:
        tried = described({name: told(array) for name, array in arrays.items()})
        what, hint = "rows of its warm-up sample" if sampled else "its declared inputs", ""
        if not sampled and any(-1 in spec.shape[1:] for spec in model.inputs):
            hint = "; parameters.extra.warm_up_size sets what free dimensions are tried with"
        raise FailedPrecondition(f"the model does not take {what}, {tried}: {said_by(error)}{hint}") from error


def _check(specs: tuple[TensorSpec, ...], outputs: Arrays, rows: int | None) -> None:
    if says := misfit(specs, outputs):
        raise FailedPrecondition(says)
    if says := misfit(specs, outputs, rows):
        raise FailedPrecondition(f"{says}; if the first dimension does not count rows, set max_batch_size to 1")


def _try_floats(model: Model, arrays: Arrays) -> None:
    """As `_check_rows`, with floats that nobody said the model takes: nothing is wrong with one that does not."""
    try:
        with np.errstate(all="ignore"):
            outputs = model.run(arrays)
            _check(model.outputs, outputs, len(next(iter(arrays.values()))))
            alone = _alone(model.run, arrays, model.outputs)
    except (Exception, SystemExit):  # noqa: BLE001 - whatever a model does about them
        return
    _check_rows(model.outputs, outputs, alone)


def _alone(run: Callable[[Arrays], Arrays], arrays: Arrays, specs: tuple[TensorSpec, ...]) -> list[Arrays]:
    """What the first row and the last are answered, each by itself."""
    alone = [run({name: array[end] for name, array in arrays.items()}) for end in ENDS]
    for outputs in alone:
        _check(specs, outputs, 1)
    return alone


def _check_rows(specs: tuple[TensorSpec, ...], outputs: Arrays, alone: list[Arrays]) -> None:
    """Rows must get the answers that each gets alone: with batch normalisation left in training, they don't."""
    for spec in specs:
        if spec.datatype not in FLOATS:
            continue
        together = np.concatenate([outputs[spec.name][end] for end in ENDS])
        apart = [each[spec.name] for each in alone]
        of_a_shape = len({row.shape for row in apart}) == 1
        if not (of_a_shape and alike(np.concatenate(apart), together, TOLERANCE)):
            raise FailedPrecondition(
                f"output {spec.name!r} of a row depends on the other rows of its batch, or on chance; "
                f"if that is meant, set max_batch_size to 1"
            )
