from __future__ import annotations

import math

import numpy as np
import pytest

from bandits import Split, sampler

ALL = np.ones(3, dtype=bool)
NOTHING = np.zeros((3, 3))


def test_p_is_in_proportion_to_the_weights() -> None:
    assert Split((90, 9, 1)).fit(NOTHING)(None, ALL) == pytest.approx([0.9, 0.09, 0.01])


def test_allowed_arms_keep_their_proportions() -> None:
    assert Split((6, 3, 1)).fit(NOTHING)(None, np.array([True, False, True])) == pytest.approx([6 / 7, 0, 1 / 7])


def test_rewards_do_not_move_it() -> None:
    sums = np.array([(100, 0, 0), (100, 100, 100), (0, 0, 0)], dtype=float)
    assert Split((1, 1, 2)).fit(sums)(None, ALL) == pytest.approx([0.25, 0.25, 0.5])


def test_an_arm_of_weight_zero_is_not_chosen_even_when_it_alone_is_allowed() -> None:
    fitted = Split((1, 0, 0)).fit(NOTHING)
    assert fitted(None, ALL).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=r"^allowed: every allowed arm has weight 0"):
        fitted(None, np.array([False, True, True]))


@pytest.mark.parametrize("tiny", [1e-320, 5e-324, 1e-300])
def test_weights_of_any_size_are_proportions(tiny: float) -> None:
    assert Split((1e308, 1e308, 1e308)).fit(NOTHING)(None, ALL) == pytest.approx([1 / 3] * 3)
    assert Split((1.0, tiny, tiny)).fit(NOTHING)(None, np.array([False, True, True])).tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize("weights", [(), (0, 0), (1, -1), (1, math.nan), (1, math.inf)])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"^weights: "):
        Split(weights)


def test_sums_of_another_number_of_arms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^sums: 3 arms, but the split has 2 weights"):
        Split((1, 1)).fit(NOTHING)


def test_ejecting_an_arm_through_the_mask_moves_no_other_unit() -> None:
    fitted = Split((5, 3, 2)).fit(NOTHING)
    draw = sampler("salt", ["a", "b", "c"])
    for i in range(3000):
        before = draw(fitted(None, ALL), f"unit-{i}")
        after = draw(fitted(None, np.array([True, False, True])), f"unit-{i}")
        assert before in (after, 1)


def test_a_ramp_moves_the_fewest_units_and_only_to_the_ramped_arm() -> None:
    """From 1 % to 10 % of the traffic at the cost of the other two: 9 % of the units move, and none between those."""
    draw = sampler("salt", ["old", "older", "new"])
    before = Split((66, 33, 1)).fit(NOTHING)(None, ALL)
    after = Split((60, 30, 10)).fit(NOTHING)(None, ALL)
    units = [f"unit-{i}" for i in range(20_000)]
    moved = [(draw(before, unit), draw(after, unit)) for unit in units if draw(before, unit) != draw(after, unit)]
    assert {to for _, to in moved} == {2}
    assert len(moved) / len(units) == pytest.approx(0.09, abs=4 * math.sqrt(0.09 * 0.91 / len(units)))
