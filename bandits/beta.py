"""Which of several independent Beta variables is the greatest, exactly.

p_k = ∫ f_k Π_{j≠k} F_j. It is taken over the log-odds t = ln(x / (1 - x)), where the density of Beta(a, b) is
proportional to e^(at) / (1 + e^t)^(a+b): one smooth hump whatever a and b are, without the poles at 0 and 1.
The line is cut into panels about as wide as the narrowest hump above them. On each, Gauss-Legendre nodes carry every
f_k, one matrix product turns these into every F_k, and the products are summed. So no special function is needed, and
each density is normalised by its own integral. The measured error is below 1e-11 for 100 arms, 1e-9 for 1000.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from bandits.kernels import VECTOR, kernel
from bandits.policy import Vector

Matrix: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

NODES = 14  # of each panel
SIDE = 8  # panels on each side of a mode, each about one standard deviation wide
PANELS = 2 * SIDE  # of each hump
WIDEST = 2.0  # panel, however wide the hump: the densities have poles at t = ±πi, which slow the rule down


def _gauss_legendre(nodes: int) -> tuple[Vector, Vector, Vector]:
    """Return x, w and C on [0, 1]: the integral of f up to 1 is w·f(x), those up to each x[i] are C·f(x).

    C integrates the polynomial through the nodes, term by term: ∫P_n = (P_{n+1} - P_{n-1}) / (2n + 1).
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    P = np.polynomial.legendre.legvander(x, nodes)
    C = ((1 + x)[:, None] + (P[:, 2:] - P[:, :-2]) @ P[:, 1:-1].T) * w / 2
    return (1 + x) / 2, w / 2, C / 2


X, W, C = _gauss_legendre(NODES)


@kernel(numba.float64(numba.float64, numba.float64, numba.float64))
def log_density(d: float, a: float, b: float) -> float:
    """Logarithm of the density of Beta(a, b) at d log-odds from its mode, less that at the mode.

    Measured from the mode, terms of the size of a and b cancel before they can round.
    """
    if a > b:  # mirrored, so that the argument of log1p stays clear of -1
        a, b, d = b, a, -d
    return a * d - (a + b) * math.log1p(a / (a + b) * math.expm1(d))


@kernel(numba.float64(numba.float64, numba.float64, numba.float64))
def edge(deviations: float, a: float, b: float) -> float:
    """Distance from the mode at which the density has fallen as far as a Gaussian's does at so many deviations.

    By Newton's method: the logarithm of the density is concave, so every step but the first nears the edge from
    outside.
    """
    if deviations == 0.0:
        return 0.0
    d = deviations * math.sqrt((a + b) / a / b)
    for _ in range(64):
        slope = -a * b * math.expm1(d) / (b + a * math.exp(d))
        step = (log_density(d, a, b) + deviations * deviations / 2) / slope
        d -= step
        if abs(step) < 1e-3 * abs(d):
            break
    return d


@kernel(numba.float64(numba.float64, numba.float64, numba.float64, numba.float64))
def mass(start: float, stop: float, a: float, b: float) -> float:
    """Integral of the density between two distances from the mode."""
    pieces = math.ceil((stop - start) / WIDEST)
    total = 0.0
    for piece in range(pieces):
        width = (stop - start) / pieces
        for i in range(NODES):
            total += width * W[i] * math.exp(log_density(start + width * (piece + X[i]), a, b))
    return total


@kernel(numba.float64(numba.float64, numba.float64[:, ::1], numba.int64[::1]))
def panel_end(t: float, edges: Matrix, panel: Indices) -> float:
    """Where the panel that starts at t ends: no wider than the panel of any hump that is there.

    panel[k] counts up to the panel of hump k in which t lies.
    """
    end = t + WIDEST
    for k in range(len(edges)):
        while panel[k] < PANELS and edges[k, panel[k] + 1] <= t:
            panel[k] += 1
        if panel[k] < PANELS:
            end = min(end, t + edges[k, panel[k] + 1] - edges[k, panel[k]])
    return end


@kernel(numba.void(numba.float64[:, ::1], numba.float64[:, ::1], numba.float64[::1]))
def add_products(f: Matrix, F: Matrix, p: Vector) -> None:
    """Add the panel's share of ∫ f_k Π_{j≠k} F_j to each p[k], by running products from both sides."""
    before = np.empty(len(p))
    for i in range(NODES):
        product = W[i]
        for k in range(len(p)):
            before[k] = product
            product *= F[k, i]
        product = 1.0
        for k in range(len(p) - 1, -1, -1):
            p[k] += f[k, i] * before[k] * product
            product *= F[k, i]


@kernel(numba.float64[::1](VECTOR, VECTOR))
def probability_best(a: Vector, b: Vector) -> Vector:
    """Return the probability of each Beta(a[k], b[k]) to be the greatest. They sum to 1 but for the error.

    a and b are of one length K > 0, each number between 0.1 and 2^53.
    """
    K = len(a)
    mode = np.log(a / b)
    edges = np.empty((K, PANELS + 1))
    for k in range(K):
        for i in range(PANELS + 1):
            edges[k, i] = mode[k] + edge(i - SIDE, a[k], b[k])
    t = edges[:, 0].max()  # below the highest of the lower ends some F_j is 0, and so is every product
    stop = edges[:, PANELS].max()

    below = np.zeros(K)  # F_k(t)
    total = np.zeros(K)
    for k in range(K):
        for i in range(PANELS):
            start, end = edges[k, i], edges[k, i + 1]
            cut = min(max(t, start), end)
            left = mass(start - mode[k], cut - mode[k], a[k], b[k])
            below[k] += left
            total[k] += left + mass(cut - mode[k], end - mode[k], a[k], b[k])
        below[k] /= total[k]

    p = np.zeros(K)
    panel = np.zeros(K, np.int64)
    f = np.empty((K, NODES))  # times the panel's width
    F = np.empty((K, NODES))
    while t < stop:
        end = min(panel_end(t, edges, panel), stop)
        for k in range(K):
            for i in range(NODES):
                d = t + (end - t) * X[i] - mode[k]
                f[k, i] = (end - t) / total[k] * math.exp(log_density(d, a[k], b[k]))
            for i in range(NODES):
                F[k, i] = below[k]
                for j in range(NODES):
                    F[k, i] += C[i, j] * f[k, j]
                F[k, i] = min(max(F[k, i], 0.0), 1.0)
            for i in range(NODES):
                below[k] += W[i] * f[k, i]
        add_products(f, F, p)
        t = end
    return p
