"""The one sampler: weighted rendezvous. A key always meets the same arm, and the arms share the keys as p says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numba
import numpy as np
from numpy.typing import NDArray

from bandits.kernels import VECTOR, WORDS, kernel
from bandits.policy import Vector


@kernel(numba.int64(VECTOR, WORDS, numba.uint64))
def rendezvous(p: Vector, arms: NDArray[np.uint64], key: int) -> int:
    """Return the index of the least -ln(u(key, arm)) / p[arm]; -1 unless p is a distribution over `arms`."""
    if len(p) != len(arms):
        return -1
    chosen = -1
    least = np.inf
    total = 0.0
    for k in range(len(arms)):
        if not p[k] >= 0.0:  # true for NaN too
            return -1
        total += p[k]
        if p[k] > 0.0:
            z = key ^ arms[k]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            u = (np.float64(z >> np.uint64(12)) + 0.5) * 2.0**-52
            score = -math.log(u) / p[k]
            if score < least:
                least = score
                chosen = k
    return chosen if abs(total - 1.0) <= 1e-9 else -1  # noqa: PLR2004


class Draw:
    """Draws an arm from p for a key, by the arms' names and the route's salt. Safe to share between threads.

    The arms race: each arrives at -ln(u) / p, exponential with rate p, and the first one is chosen. So each is chosen
    with probability p, exactly, and a change of p moves a key from one arm to another only where p of the other grew
    against p of the one: ejecting an arm moves nobody between the rest, and a ramp moves only whom it must.

    The hash, to replay a choice elsewhere, in arithmetic modulo 2^64:

        K = BLAKE2b-64(utf8(salt) ‖ 0x00 ‖ utf8(key))       8 bytes, read as a little-endian integer
        A = BLAKE2b-64(utf8(arm))
        z = K xor A
        z = (z xor (z >> 30)) * 0xBF58476D1CE4E5B9          the finaliser of SplitMix64
        z = (z xor (z >> 27)) * 0x94D049BB133111EB
        z = z xor (z >> 31)
        u = ((z >> 12) + 1/2) / 2^52                        in (0, 1), exact in float64

    The arm with the least -ln(u) / p among those of p > 0 is chosen. Salts of two routes make their choices
    independent; equal salts make them alike.
    C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables", SPAA 2005.
    """

    __slots__ = ("_arms", "_prefix")

    def __init__(self, salt: str, arms: Sequence[str]) -> None:
        """Raise ValueError for no arms, for two of one name, and for a salt that holds the character NUL."""
        if "\0" in salt:
            raise ValueError("salt: must not hold the character NUL")
        if not arms:
            raise ValueError("arms: name at least one")
        if len(set(arms)) < len(arms):
            raise ValueError(f"arms: each name may stand once, got {list(arms)}")
        self._prefix = blake2b(salt.encode() + b"\0", digest_size=8)
        names = b"".join(blake2b(arm.encode(), digest_size=8).digest() for arm in arms)
        self._arms = np.frombuffer(names, dtype="<u8").astype(np.uint64)

    def __call__(self, p: Vector, key: str) -> int:
        """Return the index of the arm that `key` meets under p, shape [K]. An arm with p = 0 is never met.

        Raises ValueError when p is not a distribution over the arms, or the key is empty or not Unicode.
        """
        if not key:  # what a client sends who forgot it: all would meet one arm
            raise ValueError("key: must not be empty")
        hashed = self._prefix.copy()
        try:
            hashed.update(key.encode())
            chosen = rendezvous(p, self._arms, int.from_bytes(hashed.digest(), "little"))
        except UnicodeEncodeError:
            raise ValueError("key: holds half of a surrogate pair, which is no character") from None
        except TypeError:  # of the kernel, which knows one type
            chosen = -1
        if chosen < 0:
            raise ValueError(f"p: must be float64[{len(self._arms)}], not below 0, with the sum 1")
        return chosen
