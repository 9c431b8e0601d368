"""The one sampler: weighted rendezvous. A key always meets the same arm, and the arms share the keys as p says."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from bandits.kernels import BYTES, VECTOR, WORDS, direct, is_vector, kernel
from bandits.policy import Vector

U = np.uint64


@numba.njit(inline="always")
def sip_round(v0: U, v1: U, v2: U, v3: U) -> tuple[U, U, U, U]:
    """One round of SipHash."""
    v0 += v1
    v2 += v3
    v1 = ((v1 << U(13)) | (v1 >> U(51))) ^ v0
    v3 = ((v3 << U(16)) | (v3 >> U(48))) ^ v2
    v0 = (v0 << U(32)) | (v0 >> U(32))
    v2 += v1
    v0 += v3
    v1 = ((v1 << U(17)) | (v1 >> U(47))) ^ v2
    v3 = ((v3 << U(21)) | (v3 >> U(43))) ^ v0
    v2 = (v2 << U(32)) | (v2 >> U(32))
    return v0, v1, v2, v3


@kernel(numba.uint64(WORDS, BYTES))
def siphash(secret: NDArray[np.uint64], text: bytes) -> U:
    """SipHash-2-4 of `text` under a secret of two words.

    J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF", INDOCRYPT 2012.
    """
    v0 = secret[0] ^ U(0x736F6D6570736575)
    v1 = secret[1] ^ U(0x646F72616E646F6D)
    v2 = secret[0] ^ U(0x6C7967656E657261)
    v3 = secret[1] ^ U(0x7465646279746573)
    word, shift = U(0), U(0)
    for i in range(len(text)):
        word |= U(text[i]) << shift
        shift += U(8)
        if shift == U(64):
            v3 ^= word
            for _ in range(2):
                v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
            v0 ^= word
            word, shift = U(0), U(0)
    word |= U(len(text)) << U(56)
    v3 ^= word
    for _ in range(2):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    v0 ^= word
    v2 ^= U(0xFF)
    for _ in range(4):
        v0, v1, v2, v3 = sip_round(v0, v1, v2, v3)
    folded: U = v0 ^ v1 ^ v2 ^ v3
    return folded


@kernel(numba.int64(VECTOR, WORDS, BYTES), nogil=False)
def rendezvous(p: Vector, words: NDArray[np.uint64], key: bytes) -> int:
    """Return the index of the least -ln(u(key, arm)) / p[arm]; -1 unless p is a distribution over the arms.

    `words` are the salt's two and one for each arm.
    """
    if len(p) != len(words) - 2:
        return -1
    hashed = siphash(words, key)
    chosen = -1
    least = np.inf
    total = 0.0
    for k in range(len(p)):
        if not p[k] >= 0.0:  # true for NaN too
            return -1
        total += p[k]
        if p[k] > 0.0:
            z = hashed ^ words[k + 2]
            z = (z ^ (z >> U(30))) * U(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> U(27))) * U(0x94D049BB133111EB)
            z = z ^ (z >> U(31))
            u = (np.float64(z >> U(12)) + 0.5) * 2.0**-52
            if 1.0 - u < least * p[k]:  # no less is -ln(u), so most arms need no logarithm
                score = -math.log(u) / p[k]
                if score < least:
                    least = score
                    chosen = k
    return chosen if abs(total - 1.0) <= 1e-9 else -1


_meet = direct(rendezvous)


Draw: TypeAlias = Callable[[Vector, str], int]
"""`(p[K], key) -> arm`: the index of the arm that a key meets under p. Pure, and safe to share between threads.

An arm with p = 0 is never met. Raises ValueError when p is not a distribution over the arms, or the key is empty or
not Unicode.
"""


def sampler(salt: str, arms: Sequence[str]) -> Draw:
    """Make the one that draws an arm from p for a key, by the arms' names and the route's salt.

    The arms race: each arrives at -ln(u) / p, exponential with rate p, and the first one is chosen. So each is chosen
    with probability p, exactly, and a change of p moves a key from one arm to another only where p of the other grew
    against p of the one: ejecting an arm moves nobody between the rest, and a ramp moves only whom it must.

    The hash, to replay a choice elsewhere, in arithmetic modulo 2^64:

        S = BLAKE2b-128(utf8(salt))                         16 bytes
        K = SipHash-2-4(utf8(key)) under S                  8 bytes, read as a little-endian integer
        A = BLAKE2b-64(utf8(arm))                           and so here
        z = K xor A
        z = (z xor (z >> 30)) * 0xBF58476D1CE4E5B9          the finaliser of SplitMix64
        z = (z xor (z >> 27)) * 0x94D049BB133111EB
        z = z xor (z >> 31)
        u = ((z >> 12) + 1/2) / 2^52                        in (0, 1), exact in float64

    The arm with the least -ln(u) / p among those of p > 0 is chosen. Salts of two routes make their choices
    independent; equal salts make them alike.
    C. Schindelhauer, G. Schomaker, "Weighted distributed hash tables", SPAA 2005.

    Raises ValueError for no arms, for two of one name, and for what is not Unicode.
    """
    if not arms:
        raise ValueError("arms: name at least one")
    if len(set(arms)) < len(arms):
        raise ValueError(f"arms: each name may stand once, got {list(arms)}")
    hashes = blake2b(salt.encode(), digest_size=16).digest()
    hashes += b"".join(blake2b(arm.encode(), digest_size=8).digest() for arm in arms)
    words = np.frombuffer(hashes, dtype="<u8").astype(np.uint64)
    no_distribution = f"p: must be float64[{len(arms)}], not below 0, with the sum 1"
    checked: Vector | None = None  # without a context, p is the same object call after call

    def draw(p: Vector, key: str) -> int:  # a function: Python calls an object's __call__ in 65 ns more
        nonlocal checked
        if p is not checked:
            if not is_vector(p):
                raise ValueError(no_distribution)
            checked = p
        if not key:  # what a client sends who forgot it: all would meet one arm
            raise ValueError("key: must not be empty")
        try:
            chosen: int = _meet(p, words, key.encode())
        except UnicodeEncodeError:
            raise ValueError("key: holds half of a surrogate pair, which is no character") from None
        if chosen < 0:
            raise ValueError(no_distribution)
        return chosen

    return draw
