"""How a kernel is compiled: at import, for one signature, from Numba's cache where there is one.

A kernel stands in one file with the kernels that it calls: Numba looks at that file alone to tell whether its cached
machine code is stale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])

VECTOR = numba.types.Array(numba.float64, 1, "C", readonly=True)
"""Type of a float64 vector that the kernel only reads: the caller's may be read-only or not."""

WORDS = numba.types.Array(numba.uint64, 1, "C", readonly=True)
"""The same of uint64."""


def kernel(signature: object) -> Callable[[Function], Function]:
    """Compile a function for `signature` and no other. The kernel runs without the GIL.

    Where no folder can be written, as in a container with a read-only disk, it is compiled at each import: seconds
    instead of milliseconds. The environment's NUMBA_CACHE_DIR names a folder that can.
    """

    def compiled(function: Function) -> Function:
        try:
            dispatcher = numba.njit(signature, nogil=True, cache=True)(function)
        except (RuntimeError, OSError):  # no folder, or a full disk; whatever else was wrong raises again below
            dispatcher = numba.njit(signature, nogil=True)(function)
        return cast("Function", dispatcher)  # called in its place

    return compiled
