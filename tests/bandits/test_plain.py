"""What is compiled and what was written say the same: every policy once more as plain Python and NumPy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

import bandits
from bandits import sampler
from tests.bandits.contract import Case, learn, some_context, some_history
from tests.bandits.test_policies import CASES

Answers: TypeAlias = tuple[list[list[float]], list[int]]

UNITS = [f"unit-{i}" for i in range(20)]


def answers(case: Case) -> Answers:
    """p for a few states and masks, and whom it draws for some units."""
    some = np.arange(case.arms) > 0
    history = learn(case, some_history(case))
    fits = [case.policy.fit(sums) for sums in (case.nothing, history, 1000.0 * history)]
    ps = [fitted(some_context(case), allowed) for fitted in fits for allowed in (case.everyone, some)]
    draw = sampler("plain", [f"arm-{k}" for k in range(case.arms)])
    return [p.tolist() for p in ps], [draw(p, unit) for p in ps for unit in UNITS]


@pytest.fixture(scope="module")
def plain() -> list[Answers]:
    """The answers of a Python in which nothing is compiled."""
    root = Path(bandits.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bandits.test_plain"],
        cwd=root,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[Answers] = json.loads(done.stdout)  # its floats are told to the last bit
    return told


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: str(CASES[number].policy))
def test_compiled_and_plain_python_agree(number: int, plain: list[Answers]) -> None:
    p, drawn = answers(CASES[number])
    plain_p, plainly_drawn = plain[number]
    np.testing.assert_allclose(p, plain_p, rtol=0, atol=1e-12)
    assert drawn == plainly_drawn


if __name__ == "__main__":
    from bandits import draw as kernels

    assert not hasattr(kernels.rendezvous, "overloads"), "it is compiled after all"
    with np.errstate(over="ignore"):  # the hash is arithmetic modulo 2^64
        json.dump([answers(case) for case in CASES], sys.stdout)
