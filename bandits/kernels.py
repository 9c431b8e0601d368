"""How a kernel is compiled: at import, for one signature, from Numba's cache where there is one.

A kernel stands in one file with the kernels that it calls: Numba looks at that file alone to tell whether its cached
machine code is stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np

Function = TypeVar("Function", bound=Callable[..., object])

VECTOR = numba.types.Array(numba.float64, 1, "C", readonly=True)
"""Type of a float64 vector that the kernel only reads: the caller's may be read-only or not."""

WORDS = numba.types.Array(numba.uint64, 1, "C", readonly=True)
"""The same of uint64."""

MASK = numba.types.Array(numba.boolean, 1, "C", readonly=True)
"""The same of bool."""

MATRIX = numba.types.Array(numba.float64, 2, "C", readonly=True)
"""And of float64 in two dimensions."""

BYTES = numba.types.Bytes(numba.uint8, 1, "C")

_FLOAT64 = np.dtype(np.float64)


def kernel(signature: object, *, nogil: bool = True, vectorised: bool = False) -> Callable[[Function], Function]:
    """Compile a function for `signature` and no other. It runs without the GIL unless told to keep it.

    To let the GIL go and take it back costs 35 ns, too much for the smallest kernels.
    `vectorised` lets sums over arrays use the processor's vectors: added in another order, with products that are not
    rounded before they are added, and a division by zero is not an error. The same machine still gives the same bits.
    Where no folder can be written, as in a container with a read-only disk, it is compiled at each import: seconds
    instead of milliseconds. The environment's NUMBA_CACHE_DIR names a folder that can.
    """
    options: dict[str, Any] = {"nogil": nogil}
    if vectorised:
        options |= {"fastmath": {"reassoc", "contract", "nsz"}, "error_model": "numpy"}

    def compiled(function: Function) -> Function:
        try:
            dispatcher = numba.njit(signature, cache=True, **options)(function)
        except (RuntimeError, OSError):  # no folder, or a full disk; whatever else was wrong raises again below
            dispatcher = numba.njit(signature, **options)(function)
        return cast("Function", dispatcher)  # called in its place

    return compiled


def direct(function: Function) -> Function:
    """Return the machine code of a kernel, to be called from Python without Numba's choice between signatures.

    That choice takes 170 ns, as long as a short kernel runs. It is also what refuses arguments of another type, so
    these are looked at before, with `is_vector` where a caller gave them.
    With NUMBA_DISABLE_JIT=1 in the environment nothing is compiled, and the Python function is called as it stands.
    """
    compiled = cast("Any", function)
    if not hasattr(compiled, "overloads"):
        return function
    (only,) = compiled.overloads.values()
    return cast("Function", only.entry_point)


def is_vector(array: object) -> bool:
    """Tell whether it is a NumPy array of float64, one-dimensional and contiguous, as VECTOR needs it."""
    return type(array) is np.ndarray and array.dtype is _FLOAT64 and array.strides == (8,)
