"""Which of several independent Student-t variables is the greatest, exactly.

p_k = ∫ f_k Π_{j≠k} F_j. The density of ν degrees of freedom around m with the scale s is proportional to
(1 + (t - m)^2 / (ν s^2))^(-(ν + 1) / 2), with poles at m ± i s sqrt(ν). The line is cut into panels no wider than
1 / sqrt(ν + 1) of the distance to the poles of any hump. That is one scale where the hump is a Gaussian, and a part of
the distance where it is a heavy tail, whose millions of scales so take few panels. On each, Gauss-Legendre nodes carry
every f_k and F_k, as in beta.py. The measured error is below 1e-10 for 100 arms.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from bandits.beta import C, W, X
from bandits.kernels import VECTOR, kernel
from bandits.policy import Vector

DEPTH = 30.0  # beyond its reach, a hump has less than about e^-DEPTH of its mass on either side
PIECES = 24  # of a hump, when it is integrated alone


@kernel(numba.float64[::1](VECTOR, VECTOR, VECTOR, VECTOR, numba.float64, numba.float64))
def cuts(mean: Vector, pole: Vector, nu: Vector, reach: Vector, start: float, stop: float) -> Vector:
    """Where the panels from start to stop meet, these two included."""
    t = start
    met = [t]
    while t < stop:
        end = stop
        for k in range(len(mean)):
            d = t - mean[k]
            if d < reach[k]:
                end = min(end, t + math.hypot(pole[k], d) / math.sqrt(nu[k] + 1.0))
        t = end
        met.append(t)
    return np.array(met)


def areas(nu: Vector, start: Vector, stop: Vector) -> Vector:
    """Integral of each hump, 1 high at the mean and of scale 1, between two w: t = sqrt(ν) sinh(w / sqrt(ν)).

    Over w it is cosh(w / sqrt(ν))^-ν, about as wide as 1 and thin of tail whatever ν is.
    """
    grid = (np.arange(PIECES)[:, None] + X).ravel() / PIECES
    w = start[:, None] + (stop - start)[:, None] * grid
    f = np.exp(-nu[:, None] / 2 * np.log1p(np.sinh(w / np.sqrt(nu)[:, None]) ** 2))
    area: Vector = (stop - start) / PIECES * (f @ np.tile(W, PIECES))
    return area


def probability_best(mean: Vector, scale: Vector, nu: Vector) -> Vector:
    """Return the probability of each of K Student-t variables to be the greatest. They sum to 1 but for the error.

    Each argument has shape [K]. The scales are at least 1e-15 of the distance between any two means, the degrees of
    freedom nu between 1 and 2^53.
    """
    root = np.sqrt(nu)
    pole = scale * root
    far = np.sqrt(np.expm1(2 * DEPTH / nu))
    reach = pole * far
    first = (mean - reach).argmax()  # where its reach begins; below, its F is 0, and so is every product
    mean = mean - mean[first]  # so that nodes near it are not rounded
    start = -reach[first]
    edges = cuts(mean, pole, nu, reach, start, (mean + reach).max())

    end = root * np.arcsinh(far)
    cut = np.clip(root * np.arcsinh((start - mean) / pole), -end, end)
    below = areas(nu, -end, cut)
    total = below + areas(nu, cut, end)

    width = np.diff(edges)[:, None]
    z = (edges[:-1, None] + width * X - mean[:, None, None]) / pole[:, None, None]  # [arms, panels, nodes]
    f = np.exp(-(nu[:, None, None] + 1) / 2 * np.log1p(z * z)) / (scale * total)[:, None, None] * width
    mass = f @ W
    F = f @ C.T + (np.cumsum(mass, axis=1) - mass + (below / total)[:, None])[:, :, None]
    np.clip(F, 0.0, 1.0, out=F)
    before, after = np.ones_like(F), np.ones_like(F)  # products of the F of all arms before and after
    np.cumprod(F[:-1], axis=0, out=before[1:])
    np.cumprod(F[:0:-1], axis=0, out=after[-2::-1])
    p: Vector = (f * before * after @ W).sum(axis=1)
    return p
