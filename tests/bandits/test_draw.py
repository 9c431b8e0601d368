"""The sampler, against a plain twin written from its docstring, and against what rendezvous promises."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest

from bandits import sampler
from bandits.draw import siphash

ARMS = ["control", "challenger", "shadow", "naïve", "模型"]
KEYS = [f"customer-{i}" for i in range(30_000)]
P = np.array([0.5, 0.3, 0.15, 0.04, 0.01])

weights = st.lists(st.integers(0, 1000), min_size=5, max_size=5).filter(any).map(lambda w: np.array(w) / sum(w))
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
salts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def siphash_2_4(secret: bytes, text: bytes) -> int:
    """In Python's whole numbers, from the paper."""
    k0, k1 = int.from_bytes(secret[:8], "little"), int.from_bytes(secret[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turned(word: int, bits: int) -> int:
        return (word << bits | word >> 64 - bits) % 2**64

    def rounds(n: int) -> None:
        for _ in range(n):
            v[0] = (v[0] + v[1]) % 2**64
            v[1] = turned(v[1], 13) ^ v[0]
            v[0] = turned(v[0], 32)
            v[2] = (v[2] + v[3]) % 2**64
            v[3] = turned(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) % 2**64
            v[3] = turned(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) % 2**64
            v[1] = turned(v[1], 17) ^ v[2]
            v[2] = turned(v[2], 32)

    padded = text + bytes(7 - len(text) % 8) + bytes([len(text) % 256])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def uniform(salt: str, key: str, arm: str) -> float:
    """As Draw's docstring has it."""
    hashed = siphash_2_4(blake2b(salt.encode(), digest_size=16).digest(), key.encode())
    z = hashed ^ int.from_bytes(blake2b(arm.encode(), digest_size=8).digest(), "little")
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    z = z ^ (z >> 31)
    return ((z >> 12) + 0.5) / 2**52


def twin(salt: str, arms: Sequence[str], p: np.ndarray, key: str) -> int:
    scores = [-math.log(uniform(salt, key, arm)) / p[k] if p[k] > 0 else math.inf for k, arm in enumerate(arms)]
    return scores.index(min(scores))


@pytest.mark.parametrize(("length", "expected"), [(0, 0x726FDB47DD0E0E31), (15, 0xA129CA6149BE45E5)])
def test_siphash_gives_the_vectors_of_its_authors(length: int, expected: int) -> None:
    secret, text = bytes(range(16)), bytes(range(length))
    assert siphash(np.frombuffer(secret, dtype="<u8").astype(np.uint64), text) == expected
    assert siphash_2_4(secret, text) == expected


@settings(max_examples=300, deadline=None)
@given(salt=salts, key=texts, p=weights)
def test_the_docstring_replays_every_choice(salt: str, key: str, p: np.ndarray) -> None:
    assert sampler(salt, ARMS)(p, key) == twin(salt, ARMS, p, key)


@pytest.mark.parametrize(
    ("salt", "key", "arm", "expected"),
    [
        ("route", "customer-1", "control", 0.7372065183744384),
        ("route", "customer-1", "challenger", 0.1804385498289277),
        ("", "ключ", "模型", 0.8417447668957913),
    ],
)
def test_the_hash_stays_what_it_was(salt: str, key: str, arm: str, expected: float) -> None:
    """Changing it would move every sticky unit and spoil every replay."""
    assert uniform(salt, key, arm) == expected


def test_choices_stay_what_they_were() -> None:
    draw = sampler("route", ARMS)
    assert [draw(P, key) for key in KEYS[:20]] == [0, 0, 1, 1, 1, 1, 1, 0, 0, 3, 1, 3, 0, 3, 0, 0, 0, 0, 4, 1]


def test_arms_are_chosen_as_p_says() -> None:
    chosen = np.bincount([sampler("salt", ARMS)(P, key) for key in KEYS], minlength=5)
    assert chisquare(chosen, P * len(KEYS)).pvalue > 1e-3


def test_the_uniforms_are_uniform_and_the_arms_independent() -> None:
    u = np.array([[uniform("salt", key, arm) for arm in ARMS[:3]] for key in KEYS[:10_000]])
    for k in range(3):
        assert kstest(u[:, k], "uniform").pvalue > 1e-3
    eighths = np.floor(u * 8).astype(int)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        table = np.histogram2d(eighths[:, one], eighths[:, other], bins=8)[0]
        assert chi2_contingency(table).pvalue > 1e-3


def test_salts_make_routes_independent() -> None:
    one, other = sampler("one", ARMS[:3]), sampler("other", ARMS[:3])
    p = np.array([0.5, 0.3, 0.2])
    table = np.zeros((3, 3))
    for key in KEYS[:20_000]:
        table[one(p, key), other(p, key)] += 1
    assert chi2_contingency(table).pvalue > 1e-3


def test_an_arm_of_probability_zero_is_never_chosen_and_of_one_always() -> None:
    draw = sampler("salt", ARMS)
    for k in range(5):
        assert {draw(np.eye(5)[k], key) for key in KEYS[:200]} == {k}
    assert 2 not in {draw(np.array([0.25, 0.25, 0.0, 0.25, 0.25]), key) for key in KEYS[:2000]}


@pytest.mark.parametrize("tiny", [5e-324, 1e-310, 1e-200])
def test_a_vanishing_probability_does_no_harm(tiny: float) -> None:
    draw = sampler("salt", ["a", "b"])
    assert {draw(np.array([tiny, 1.0]), key) for key in KEYS[:200]} == {1}


@settings(max_examples=100, deadline=None)
@given(p=weights, order=st.permutations(range(5)), key=texts)
def test_the_order_of_the_arms_does_not_matter(p: np.ndarray, order: list[int], key: str) -> None:
    shuffled = sampler("salt", [ARMS[k] for k in order])
    assert order[shuffled(p[order], key)] == sampler("salt", ARMS)(p, key)


@settings(max_examples=100, deadline=None)
@given(p=weights, ejected=st.integers(0, 4), keys=st.lists(texts, min_size=1, max_size=30))
def test_ejecting_an_arm_moves_nobody_between_the_others(p: np.ndarray, ejected: int, keys: list[str]) -> None:
    rest = np.where(np.arange(5) == ejected, 0.0, p)
    if not rest.any():
        return
    draw = sampler("salt", ARMS)
    for key in keys:
        before = draw(p, key)
        assert before == ejected or draw(rest / rest.sum(), key) == before


def test_adding_an_arm_moves_units_to_it_alone() -> None:
    few, more = sampler("salt", ARMS[:4]), sampler("salt", ARMS)
    p = P[:4] / P[:4].sum()
    for key in KEYS[:5000]:
        assert more(P, key) in (few(p, key), 4)


@settings(max_examples=100, deadline=None)
@given(before=weights, after=weights, keys=st.lists(texts, min_size=1, max_size=30))
def test_a_unit_moves_only_to_an_arm_that_grew_against_its_own(
    before: np.ndarray, after: np.ndarray, keys: list[str]
) -> None:
    draw = sampler("salt", ARMS)
    for key in keys:
        was, now = draw(before, key), draw(after, key)
        assert was == now or after[now] * before[was] > before[now] * after[was]


def test_p_may_be_read_only_or_not() -> None:
    frozen = P.copy()
    frozen.flags.writeable = False
    assert sampler("salt", ARMS)(frozen, "key") == sampler("salt", ARMS)(P, "key")


@pytest.mark.parametrize(
    "p",
    [
        [0.5, 0.5],
        [0.2] * 6,
        [0.0] * 5,
        [0.5, 0.5, 0.5, -0.5, 0.0],
        [math.nan, 0.5, 0.5, 0.0, 0.0],
        [math.inf, 0.0, 0.0, 0.0, 0.0],
        [0.3, 0.3, 0.3, 0.0, 0.0],
    ],
)
def test_what_is_no_distribution_over_the_arms_is_refused(p: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^p: must be float64\[5\]"):
        sampler("salt", ARMS)(np.array(p), "key")


@pytest.mark.parametrize("p", [np.eye(5)[0].astype(np.float32), np.eye(5), np.repeat(P, 2)[::2]])
def test_an_array_of_another_kind_is_refused(p: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"^p: must be float64\[5\]"):
        sampler("salt", ARMS)(p, "key")


@pytest.mark.parametrize("key", ["", "\ud800"])
def test_a_key_that_tells_nobody_apart_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"^key: "):
        sampler("salt", ARMS)(P, key)


def test_arms_and_salts_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^arms: "):
        sampler("salt", [])
    with pytest.raises(ValueError, match=r"^arms: "):
        sampler("salt", ["a", "a"])
