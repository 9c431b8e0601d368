"""Whether numbers are the same but for rounding, which differs between machines and devices, and with the company."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protos.tensors import datatype_of

_NOISE = {"FP64": 1e-9, "FP32": 1e-5, "FP16": 0.05, "BF16": 0.2}  # what rounding leaves where terms of order 1 cancel


def alike(expected: NDArray[np.generic], found: NDArray[np.generic], part: float) -> bool:
    """Whether an array is as expected. Floats may be off by this part of the largest finite one, and some noise."""
    if expected.shape != found.shape:
        return False
    noise = _NOISE.get(datatype_of(expected.dtype))
    if noise is None:
        return np.array_equal(expected, found)
    theirs, ours = expected.astype(np.float64), found.astype(np.float64)
    largest = np.abs(theirs).max(initial=0, where=np.isfinite(theirs))
    return np.allclose(ours, theirs, rtol=0, atol=part * largest + noise, equal_nan=True)
