"""The one interface of every policy: sums in, a probability for each allowed arm out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vector: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

Fitted: TypeAlias = Callable[[Vector | None, Mask], Vector]
"""`(context[d] or None, allowed[K]) -> p[K]`, pure and safe to share between threads.

p is 0 where not allowed and sums to 1. It is read-only where it is shared; whoever gets a writeable one may write into
it. Raises ValueError when no arm is allowed or the context has the wrong width.
"""


class Policy(Protocol):
    """How a route chooses. A frozen value: what it learnt lives in the sums, K rows of `width` float64.

    Learning is addition: the rows of two replicas are added to merge them, and a row of zeros means nothing learnt;
    priors are added by `fit`. Arms are indices, rewards are in [0, 1], and neither clock nor generator is read.
    Every row begins with the arm's counts (n, Σr, Σr²), whatever else the layout adds.
    """

    @property
    def layout(self) -> str:
        """Names what a row holds, such as "counts"; policies of one layout can take over each other's sums."""

    @property
    def width(self) -> int:
        """Number of float64 in a row."""

    @property
    def features(self) -> int:
        """How many numbers a context holds; 0: none is read."""

    def delta(self, reward: float, context: Vector | None, propensity: float) -> Vector:
        """What one reward in [0, 1] adds to the row of the arm that earned it: shape [width]."""

    def fit(self, sums: Vector) -> Fitted:
        """The probabilities that follow from `sums`, shape [K, width]."""
