"""Every world under one contract, and what each of them promises besides."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
from scipy.stats import beta, binom, chi2, kstest

from bandits.bernoulli import Bernoulli, Mortal, Piecewise, Seasonal, Stationary, lai_robbins
from bandits.worlds import Classification, Linear, Sleeping, Wheel

STEPS = 20_000
BLOBS = Classification(
    X=np.random.default_rng(5).standard_normal((300, 3)) + np.repeat(np.arange(3), 100)[:, None],
    y=np.repeat(np.arange(3), 100),
)
WORLDS = [
    Stationary((0.9, 0.8, 0.1)),
    Stationary((0.0, 1.0)),
    Piecewise(((0.3, 0.5, 0.9), (0.3, 0.2, 0.1), (0.7, 0.5, 0.1)), every=7000),
    Seasonal(arms=4, period=3000),
    Mortal(),
    Linear(),
    Linear(arms=3, features=2, noise=0.3),
    Wheel(radius=0.8),
    BLOBS,
    Sleeping(Stationary((0.9, 0.2, 0.1)), awake=0.3),
    Sleeping(Linear(), awake=0.0),
]


def rounds_of(world, steps=STEPS, seed=1):
    return world.rounds(steps, np.random.default_rng(seed))


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: f"{type(world).__name__}")
class TestWorlds:
    def test_the_same_seed_makes_the_same_rounds(self, world):
        one, same, other = rounds_of(world), rounds_of(world), rounds_of(world, seed=2)
        for name in ("context", "allowed", "mean", "reward", "fresh"):
            assert np.array_equal(getattr(one, name), getattr(same, name))
        assert world == WORLDS[1] or not np.array_equal(one.reward, other.reward)

    def test_shapes_and_types(self, world):
        rounds = rounds_of(world, steps=50)
        assert rounds.context.shape == (50, world.features)
        assert rounds.context.dtype == np.float64
        assert rounds.context.flags.c_contiguous, "kernels read its rows"
        for of_arms, dtype in (("allowed", bool), ("mean", float), ("reward", float), ("fresh", bool)):
            assert getattr(rounds, of_arms).shape == (50, world.arms)
            assert getattr(rounds, of_arms).dtype == dtype

    def test_rewards_and_what_is_expected_of_them_are_in_range(self, world):
        rounds = rounds_of(world)
        assert np.isfinite(rounds.context).all()
        for values in (rounds.mean, rounds.reward):
            assert values.min() >= 0
            assert values.max() <= 1

    def test_some_arm_is_always_allowed(self, world):
        assert rounds_of(world).allowed.any(axis=1).all()

    def test_rewards_come_as_expected(self, world):
        """For each arm, what was paid beyond what was expected, squared, over its variance: chi-square together."""
        rounds = rounds_of(world)
        beyond = rounds.reward - rounds.mean
        variance = (beyond**2).sum(axis=0)
        certain = variance < 1e-20
        assert beyond[:, certain].sum(axis=0) == pytest.approx(0)
        statistic = (beyond.sum(axis=0)[~certain] ** 2 / variance[~certain]).sum()
        assert certain.all() or chi2.sf(statistic, np.count_nonzero(~certain)) > 1e-4

    def test_rewards_follow_the_expected_ones_from_round_to_round(self, world):
        """The slope of reward on mean is 1: no drift is missed, no context mistaken for another."""
        rounds = rounds_of(world)
        mean, reward = rounds.mean.ravel(), rounds.reward.ravel()
        if np.ptp(mean) > 0:
            d = mean - mean.mean()
            slope = d @ reward / (d @ d)
            error = np.sqrt(((reward - mean) ** 2 * d**2).sum()) / (d @ d)
            assert abs(slope - 1) <= 4 * error + 1e-12

    def test_one_round_is_a_world_too(self, world):
        assert rounds_of(world, steps=1).reward.shape == (1, world.arms)

    def test_a_world_is_a_value(self, world):
        hash(world)
        for field in fields(world):
            with pytest.raises(FrozenInstanceError):
                setattr(world, field.name, None)


@pytest.mark.parametrize("world", [world for world in WORLDS if isinstance(world, Bernoulli)], ids=str)
def test_spells_say_the_same_as_rounds(world):
    rounds = rounds_of(world)
    spells = world.spells(STEPS, np.random.default_rng(1))
    assert np.array_equal(spells.mean[spells.at(STEPS)], rounds.mean)
    assert spells.start[0] == 0
    assert (np.diff(spells.start) > 0).all()
    assert spells.start[-1] < STEPS
    assert np.array_equal(np.flatnonzero(rounds.fresh.any(axis=1)), spells.start[spells.fresh.any(axis=1)])


def test_a_piecewise_world_changes_when_it_should_and_then_stays():
    world = Piecewise(((0.1, 0.2), (0.3, 0.4)), every=3)
    assert rounds_of(world, 8).mean[:, 0].tolist() == [0.1] * 3 + [0.3] * 5
    assert rounds_of(world, 2).mean[:, 1].tolist() == [0.2] * 2


def test_seasons_follow_each_other():
    mean = rounds_of(Seasonal(arms=4, period=400, low=0.2, high=0.6), 800).mean
    assert mean[::100].argmax(axis=1).tolist() == [0, 1, 2, 3] * 2
    assert mean.min() == pytest.approx(0.2)
    assert mean.max() == pytest.approx(0.6)
    assert np.abs(np.diff(mean, axis=0)).max() < 0.01


def test_mortal_arms_die_one_at_a_time_as_often_as_they_should():
    rounds = rounds_of(Mortal(mortality=0.01), 50_000)
    died = rounds.fresh[1:]
    assert rounds.fresh[0].all()
    assert died.sum(axis=1).max() == 1
    assert 1e-4 < binom.cdf(died.sum(), 49_999, 0.01) < 1 - 1e-4
    assert chi2.sf(((died.sum(axis=0) - died.sum() / 10) ** 2 / (died.sum() / 10)).sum(), 9) > 1e-4
    assert np.array_equal(np.diff(rounds.mean, axis=0) != 0, died), "the rate of no other arm changes"
    assert kstest(rounds.mean[rounds.fresh], beta(4, 4).cdf).pvalue > 1e-4


def test_linear_means_are_linear_and_the_noise_is_as_told():
    rounds = rounds_of(Linear(arms=3, features=4, noise=0.05))
    assert np.linalg.norm(rounds.context, axis=1) == pytest.approx(1)
    known = np.column_stack([np.ones(STEPS), rounds.context])
    weights, residual, *_ = np.linalg.lstsq(known, rounds.mean, rcond=None)
    assert residual == pytest.approx(0, abs=1e-20)
    assert weights[0] == pytest.approx(0.5)
    assert np.linalg.norm(weights[1:], axis=0) == pytest.approx(0.5)
    inside = (rounds.mean > 0.1) & (rounds.mean < 0.9)
    assert (rounds.reward - rounds.mean)[inside].std() == pytest.approx(0.05, rel=0.01)


def test_the_wheel_pays_as_published():
    rounds = rounds_of(Wheel(radius=0.9))
    far = np.hypot(*rounds.context.T) > 0.9
    assert 1e-4 < binom.cdf(far.sum(), STEPS, 1 - 0.9**2) < 1 - 1e-4
    assert (rounds.mean[:, 0] == 0.024).all()
    assert (rounds.mean[~far, 1:] == 0.02).all()
    best = rounds.mean[far].argmax(axis=1)
    assert (rounds.mean[far].max(axis=1) == 1).all()
    assert sorted(set(best)) == [1, 2, 3, 4]
    for arm in range(1, 5):
        signs = np.sign(rounds.context[far][best == arm])
        assert (signs == signs[0]).all(), "each has a quadrant of its own"


def test_a_data_set_shows_every_row_once_a_pass():
    rounds = rounds_of(BLOBS, 600)
    for part in (slice(0, 300), slice(300, 600)):
        assert sorted(map(tuple, rounds.context[part])) == sorted(map(tuple, BLOBS.X))
    assert not np.array_equal(rounds.context[:300], rounds.context[300:]), "each pass has an order of its own"
    assert (rounds.mean.sum(axis=1) == 1).all()
    label = {tuple(x): y for x, y in zip(BLOBS.X, BLOBS.y, strict=True)}
    assert [label[tuple(x)] for x in rounds.context] == rounds.mean.argmax(axis=1).tolist()


def test_sleeping_arms_sleep_as_often_as_they_should():
    awake = rounds_of(Sleeping(Stationary((0.5,) * 4), awake=0.3)).allowed.sum()
    assert 1e-4 < binom.cdf(awake, 4 * STEPS, 0.3 + 0.7 / 4) < 1 - 1e-4  # one of them always is


LAI_ROBBINS = [
    ((0.9, 0.8), 2.252100),
    ((0.1,) + (0.05,) * 3 + (0.02,) * 3 + (0.01,) * 3, 17.445174),
    ((0.2, 0.25), 7.140708),
    ((0.9, 0.8, 0.7), 3.553644),
    (tuple(k / 10 for k in range(1, 10)), 7.516516),
    ((0.5,) + (0.4,) * 9, 44.6971),
    ((0.5,) + (0.48,) * 9, 224.940),
    ((0.5,) + (0.4,) * 99, 491.669),
    ((0.5,) + (0.48,) * 99, 2474.34),
]


@pytest.mark.parametrize(("means", "constant"), LAI_ROBBINS)
def test_the_constants_of_lai_and_robbins(means, constant):
    assert lai_robbins(means) == pytest.approx(constant, rel=2e-6)
    assert lai_robbins(means[::-1]) == pytest.approx(constant, rel=2e-6)


def test_equal_arms_cost_nothing():
    assert lai_robbins((0.5, 0.5)) == 0


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Stationary(()), "means"),
        (lambda: Stationary((0.5, 1.5)), "means"),
        (lambda: Stationary((0.5, float("nan"))), "means"),
        (lambda: Piecewise((), 10), "means"),
        (lambda: Piecewise(((0.1, 0.2), (0.3,)), 10), "means"),
        (lambda: Piecewise(((0.1, -0.2),), 10), "means"),
        (lambda: Piecewise(((0.1, 0.2),), 0), "every"),
        (lambda: Seasonal(period=0), "period"),
        (lambda: Seasonal(high=1.5), "low, high"),
        (lambda: Mortal(arms=0), "arms"),
        (lambda: Mortal(mortality=-0.1), "mortality"),
        (lambda: Mortal(beta=0), "beta"),
        (lambda: Linear(features=0), "features"),
        (lambda: Linear(noise=-0.1), "noise"),
        (lambda: Linear(noise=float("nan")), "noise"),
        (lambda: Wheel(radius=2), "radius"),
        (lambda: Wheel(noise=float("inf")), "noise"),
        (lambda: Classification(np.zeros(3), np.zeros(3, int)), "X"),
        (lambda: Classification(np.full((3, 1), np.nan), np.zeros(3, int)), "X"),
        (lambda: Classification(np.zeros((3, 1)), np.zeros(2, int)), "y"),
        (lambda: Classification(np.zeros((3, 1)), np.zeros(3)), "y"),  # type: ignore[arg-type]
        (lambda: Classification(np.zeros((2, 1)), np.array([-1, 0])), "y"),
        (lambda: Sleeping(Mortal(), awake=1.1), "awake"),
        (lambda: lai_robbins((0.0, 0.5)), "means"),
        (lambda: lai_robbins((1.0, 0.5)), "means"),
        (lambda: lai_robbins((0.5, float("nan"))), "means"),
    ],
)
def test_a_world_that_cannot_be_is_refused(make, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        make()
