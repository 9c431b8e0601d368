"""The layout "linear": for each arm, a ridge regression of the reward on the context.

A row of sums is n, Σr, Σr², then Σx [d], Σrx [d] and the lower triangle of Σxxᵀ, row after row, where x is the
standardised context. With z = (1, x) these are A = Σzzᵀ and b = Σrz, and nothing stands there twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias, cast

import numba
import numpy as np
from numpy.typing import NDArray

from bandits.checks import check_propensity, check_reward, own_sums
from bandits.counts import plays_and_rewards
from bandits.kernels import MATRIX, VECTOR, direct, is_vector, kernel
from bandits.policy import Fitted, Mask, Vector

Matrix: TypeAlias = NDArray[np.float64]
Decide: TypeAlias = Callable[[Vector, Mask, Matrix, Matrix, float, Vector], bool]
"""`(context[d], allowed[K], frame[4, d], models[K, m], parameter, p[K])`: fills p; False where an argument is wrong."""

FARTHEST = 1e9
"""Scales from its mean to which a number of a context is read. Far out, one reward drowns all others in rounding."""

MOST = 1e200
"""Of a weight, so that no prediction at a context that is read overflows."""

FORGIVEN, KEPT = 1e-9, 1e-13
"""Parts of a sum of squares: how far rounding may take what is left of it below 0, and the least that is kept."""


@lru_cache
def _frame(features: int, mean: tuple[float, ...], scale: tuple[float, ...]) -> Matrix:
    """`mean` and `scale`, and the least and the greatest number of a context that is read: read-only, shape [4, d]."""
    centre = np.array(mean or (0.0,) * features)
    unit = np.array(scale or (1.0,) * features)
    frame = np.array([centre, unit, centre - FARTHEST * unit, centre + FARTHEST * unit])
    frame.flags.writeable = False
    return frame


@dataclass(frozen=True, slots=True)
class Linear:
    """Half of a policy: everything but `fit`.

    The reward of an arm is taken for θ·z plus noise, z = (1, x), x = (context - mean) / scale. `mean` and `scale` are
    constants, one for each feature. Sums can be added only where x means the same, so the layout names the constants,
    and new ones start clean. Without them x is the context.

    θ minimises Σ(r - θ·z)² + (θ_0 - r̄)² + l2 |θ_x|², where r̄ is the mean reward of all arms. So a new arm is expected
    to do as the others do, as if it had been seen to do so once, and a feature matters once some `l2` rewards say so.
    With `expected`, a reward in [0, 1], that is what an arm is expected to pay instead, whatever the others do, with
    the weight of `l2` rewards: 1 tries each arm eagerly, 0 only where the features speak for it.
    """

    features: int
    mean: tuple[float, ...] = field(default=(), kw_only=True)
    scale: tuple[float, ...] = field(default=(), kw_only=True)
    l2: float = field(default=4.0, kw_only=True)
    expected: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.features < 1:
            raise ValueError(f"features: must be at least 1, got {self.features}")
        for name, values in ("mean", self.mean), ("scale", self.scale):
            if len(values) not in {0, self.features}:
                raise ValueError(f"{name}: must hold {self.features} numbers, one for each feature, not {len(values)}")
            if not all(abs(value) < 1e100 for value in values):  # so that none of the limits is infinite
                raise ValueError(f"{name}: holds a number that is not finite, or not below 1e100")
        if not all(value > 1e-100 for value in self.scale):
            raise ValueError("scale: holds a number that is not above 1e-100")
        if not 1e-6 <= self.l2 <= 1e6:
            raise ValueError(f"l2: must lie between 1e-6 and 1e6, got {self.l2}")
        if self.expected is not None and not 0.0 <= self.expected <= 1.0:
            raise ValueError(f"expected: must lie in [0, 1], as every reward does, got {self.expected}")

    @property
    def frame(self) -> Matrix:
        """The constants of a context as kernels read them."""
        return _frame(self.features, self.mean, self.scale)

    @property
    def layout(self) -> str:
        """Such as "linear:20", or "linear:20:ab12cd34" with a digest of constants other than 0 and 1."""
        constants = self.frame[:2] + 0.0  # -0.0 is 0
        if np.array_equal(constants, _frame(self.features, (), ())[:2]):
            return f"linear:{self.features}"
        return f"linear:{self.features}:{blake2b(constants.astype('<f8').tobytes(), digest_size=4).hexdigest()}"

    @property
    def width(self) -> int:
        d = self.features
        return 3 + 2 * d + d * (d + 1) // 2

    def delta(self, reward: float, context: Vector | None, propensity: float) -> Vector:
        """One more reward at this context, shape [d]: 1, r, r², x, rx, xxᵀ.

        Raises ValueError for a reward outside [0, 1], a propensity outside (0, 1] and a context that is not d finite
        numbers, or goes farther than 1e9 scales from the mean.
        """
        check_reward(reward)
        check_propensity(propensity)
        own = as_vector(context, self.features)
        row = np.empty(self.width)
        if not _write(reward, own, self.frame, row):
            raise ValueError(unreadable(own, self.frame))
        return row

    def models(self, sums: Vector, *, errors: bool) -> Matrix:
        """Regress the rewards of each arm, out of sums of shape [K, width]. Returns shape [K, m].

        A row begins with θ, 1 + d numbers. With `errors`, (1 + d)(2 + d) / 2 more follow, whose product with the lower
        triangle of zzᵀ, row after row, is zᵀA⁻¹z: the variance of θ·z when that of the noise is 1. (A includes the
        prior; off the diagonal, A⁻¹ is doubled.)
        Raises ValueError where the sums cannot have come from rewards in [0, 1] at contexts.
        """
        own = own_sums(sums, self.width)
        plays, rewards = plays_and_rewards(own[:, :3])
        expected, weight = self.expected, self.l2
        if expected is None:
            expected, weight = (rewards.sum() + 0.5) / (plays.sum() + 1.0), 1.0
        n = 1 + self.features
        models = np.empty((len(own), n + n * (n + 1) // 2 if errors else n))
        broken = regress(own, self.features, expected, weight, self.l2, models)
        if broken >= 0:
            raise ValueError(f"sums: the row of arm {broken} is no sum over contexts: some square is below 0")
        wild = np.flatnonzero(~(np.abs(models) < MOST).all(axis=1))
        if wild.size:
            raise ValueError(f"sums: the row of arm {wild[0]} is no sum over contexts: its numbers do not go together")
        return models

    def decided_by(self, decide: Decide, models: Matrix, parameter: float) -> Fitted:
        """The fitted form, for a kernel that is called directly."""
        arms, features, frame = len(models), self.features, self.frame
        empty, float64, boolean = np.empty, np.dtype(np.float64), np.dtype(np.bool_)

        def fitted(context: Vector | None, allowed: Mask) -> Vector:
            try:  # is_vector, written out, as two calls take 0.1 µs
                readable = (
                    context is not None
                    and context.dtype is float64
                    and context.strides == (8,)
                    and allowed.dtype is boolean
                    and allowed.strides == (1,)
                )
            except AttributeError:
                readable = False
            if context is None or not readable:
                context, allowed = as_vector(context, features), as_mask(allowed, arms)
            p: Vector = empty(arms)
            if not decide(context, allowed, frame, models, parameter, p):
                raise ValueError(unreadable(context, frame) or unusable(allowed, arms))
            return p

        return fitted


def as_vector(context: object, features: int) -> Vector:
    """Convert what is no float64, or lies otherwise in memory. Raises ValueError for what is no row of numbers."""
    if is_vector(context):
        return cast("Vector", context)
    if context is None:
        raise ValueError(f"context: this policy reads {features} numbers, and got none")
    try:
        array = np.asarray(context)
    except ValueError:  # lists of different lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"context: must be {features} real numbers")
    if array.ndim != 1:
        raise ValueError(f"context: must be one row of {features} numbers, not of the shape {list(array.shape)}")
    return np.ascontiguousarray(array, dtype=np.float64)


def as_mask(allowed: Mask, arms: int) -> Mask:
    """Copy what lies otherwise in memory. Raises ValueError for what is no mask."""
    if getattr(allowed, "dtype", None) != np.bool_ or allowed.ndim != 1:
        raise ValueError(f"allowed: must be bool[{arms}], one for each arm")
    return np.ascontiguousarray(allowed)


def unreadable(context: Vector, frame: Matrix) -> str:
    """Say what is wrong with a context; nothing if it is right."""
    _, _, least, greatest = frame
    if len(context) != len(least):
        return f"context: must hold {len(least)} numbers, not {len(context)}"
    wrong = ~((least <= context) & (context <= greatest))  # true for NaN too
    if wrong.any():
        return f"context: number {wrong.argmax()} is not finite, or farther than {FARTHEST:g} scales from its mean"
    return ""


def unusable(allowed: Mask, arms: int) -> str:
    """Say what is wrong with a mask; nothing if it is right."""
    if len(allowed) != arms:
        return f"allowed: must be bool[{arms}], one for each arm, not bool[{len(allowed)}]"
    return "" if allowed.any() else "allowed: no arm is allowed"


@kernel(numba.boolean(numba.float64, VECTOR, MATRIX, numba.float64[::1]), nogil=False)
def write(reward: float, context: Vector, frame: Matrix, row: Vector) -> bool:
    """Write 1, r, r², x, rx and xxᵀ into a row. False where the context is of another width or beyond its limits."""
    mean, scale, least, greatest = frame[0], frame[1], frame[2], frame[3]
    d = len(mean)
    if len(context) != d:
        return False
    x, rx = row[3 : 3 + d], row[3 + d : 3 + 2 * d]
    for i in range(d):
        if not least[i] <= context[i] <= greatest[i]:  # true for NaN too
            return False
        x[i] = (context[i] - mean[i]) / scale[i]
        rx[i] = reward * x[i]
    row[0], row[1], row[2] = 1.0, reward, reward * reward
    at = 3 + 2 * d
    for i in range(d):
        products = row[at : at + i + 1]
        for j in range(i + 1):
            products[j] = x[i] * x[j]
        at += i + 1
    return True


_write = direct(write)


@kernel(numba.void(VECTOR, numba.float64, numba.float64, numba.float64[:, ::1]))
def fill(row: Vector, weight: float, l2: float, A: Matrix) -> None:
    """Write Σzzᵀ plus the weights of the prior into the lower triangle of A."""
    d = len(A) - 1
    A[0, 0] = weight + row[0]
    at = 3 + 2 * d
    for i in range(d):
        A[i + 1, 0] = row[3 + i]
        for j in range(i + 1):
            A[i + 1, j + 1] = row[at + j]
        A[i + 1, i + 1] += l2
        at += i + 1


@kernel(numba.boolean(numba.float64[:, ::1]), vectorised=True)
def factorise(A: Matrix) -> bool:
    """Replace A by its Cholesky factor L, A = LLᵀ. Triangles above the diagonal are neither read nor written.

    False unless A is positive definite. What is above -1e-9 of a sum of squares is forgiven as rounding, and all is
    kept above 1e-13 of it: that is as if `l2` were greater for a combination of features that does not vary.
    """
    for i in range(len(A)):
        for j in range(i + 1):
            a, b = A[i, :j], A[j, :j]
            rest = A[i, j]
            for k in range(j):
                rest -= a[k] * b[k]
            if j < i:
                A[i, j] = rest / A[j, j]
            elif rest < -FORGIVEN * abs(A[i, i]):
                return False
            else:
                A[i, i] = math.sqrt(max(rest, KEPT * A[i, i]))
    return True


@kernel(numba.void(numba.float64[:, ::1], numba.float64[::1]), vectorised=True)
def invert(L: Matrix, scratch: Vector) -> None:
    """Replace L by its inverse."""
    for i in range(len(L)):
        row = scratch[:i]
        row[:] = 0.0
        for k in range(i):
            above, factor = L[k, : k + 1], L[i, k]
            for j in range(k + 1):
                row[j] -= factor * above[j]
        L[i, i] = 1.0 / L[i, i]
        for j in range(i):
            L[i, j] = L[i, i] * row[j]


@kernel(
    numba.int64(MATRIX, numba.int64, numba.float64, numba.float64, numba.float64, numba.float64[:, ::1]),
    vectorised=True,
)
def regress(sums: Matrix, d: int, expected: float, weight: float, l2: float, models: Matrix) -> int:
    """Write the model of each arm, with A⁻¹ where there is room. Returns the arm whose sums are impossible, or -1."""
    n = 1 + d
    J = np.empty((n, n))  # L⁻¹, so that A⁻¹ = JᵀJ
    b = np.empty(n)
    scratch = np.empty(n)
    models[:] = 0.0
    for arm in range(len(sums)):
        row, model = sums[arm], models[arm]
        fill(row, weight, l2, J)
        if not factorise(J):
            return arm
        invert(J, scratch)
        b[0] = row[1] - expected * row[0]
        for i in range(d):
            b[1 + i] = row[3 + d + i] - expected * row[3 + i]
        model[0] = expected
        for k in range(n):
            j = J[k, : k + 1]
            y = 0.0
            for i in range(k + 1):
                y += j[i] * b[i]
            for i in range(k + 1):
                model[i] += y * j[i]
            if len(model) > n:
                at = n
                for i in range(k + 1):
                    products = model[at : at + i + 1]
                    for m in range(i):
                        products[m] += 2.0 * j[i] * j[m]
                    products[i] += j[i] * j[i]
                    at += i + 1
    return -1
