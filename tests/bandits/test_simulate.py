"""The simulation plays by the real interface, and the compiled race is the same game."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import chisquare

from bandits import EpsilonGreedy, Split, Thompson, sampler
from bandits.bernoulli import Mortal, Piecewise, Seasonal, Stationary
from bandits.counts import Counts
from bandits.decay import HalfLife
from bandits.floor import Floor
from bandits.race import play, player, race
from bandits.simulate import Feedback, _played, simulate
from bandits.ucb import UCB1, KLUCBPlus
from bandits.worlds import Linear, Sleeping

SWITCHING = Piecewise(((0.8, 0.3, 0.1), (0.1, 0.3, 0.8)), every=40)
SCENES = {
    "at once": (Stationary((0.9, 0.5, 0.6)), Feedback()),
    "drifting, late and forgotten": (SWITCHING, Feedback(delay=3, half_life=HalfLife(20))),
    "mortal, late and in batches": (Mortal(arms=3, mortality=0.05), Feedback(delay=2, every=7, half_life=HalfLife(25))),
    "seasonal": (Seasonal(arms=2, period=60), Feedback(every=2, half_life=HalfLife.of_discount(0.9))),
}
POLICIES = [Thompson(0.5, 3.0), EpsilonGreedy(0.2), UCB1(), KLUCBPlus(), Floor(Thompson(), 0.1)]


def rng(seed=0):
    return np.random.default_rng(seed)


@dataclass(frozen=True)
class Watched(Counts):
    """A policy that plays evenly and keeps all sums that it was ever fitted to."""

    seen: list = field(default_factory=list)

    def fit(self, sums):
        self.seen.append(sums.copy())
        return Split((1.0,) * len(sums)).fit(sums)


# One game, played in two ways


@pytest.mark.parametrize("scene", ["at once", "drifting, late and forgotten"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_race_agrees_with_the_simulation(policy, scene):
    world, feedback = SCENES[scene]
    slow = simulate(policy, world, 80, rng=rng(1), runs=30, feedback=feedback, checkpoints=(30,))
    quick = race(policy, world, 80, rng=rng(2), runs=500, feedback=feedback, checkpoints=(30,))
    assert np.array_equal(slow.steps, quick.steps)
    for one, other in ((slow.regret, quick.regret), (slow.reward, quick.reward), (slow.shares, quick.shares)):
        error = np.hypot(one.std(axis=0, ddof=1) / 30**0.5, other.std(axis=0, ddof=1) / 500**0.5)
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4.5 * error).all()


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("policy", [UCB1(0.5), KLUCBPlus(), EpsilonGreedy(0.0)], ids=str)
def test_the_race_plays_the_very_arm_that_the_simulation_would(policy, scene):
    """They draw only between equals. So the simulation, led along the race's path, has to agree all along."""
    world, feedback = SCENES[scene]
    keep = 0.5 ** (1 / feedback.half_life.seconds) if feedback.half_life else 1.0
    spells = world.spells(300, rng(3))
    arms, earned = play(player(policy, world.arms), spells, 300, rng(4), feedback.delay, feedback.every, keep)
    rounds = world.rounds(300, rng(3))
    rounds.reward[np.arange(300), arms] = earned
    likely = []

    def follow(p, key):
        arm = int(arms[int(key)])
        likely.append(p[arm])
        return arm

    _played(policy, rounds, follow, feedback)
    assert min(likely) > 0
    assert np.mean(np.array(likely) == 1) > 0.5, "mostly there was no choice"


def test_equals_share_the_rounds_of_a_race_equally():
    shares = race(UCB1(), Stationary((0.5,) * 4), 1, rng=rng(), runs=4000).shares.sum(axis=0)
    assert chisquare(shares).pvalue > 1e-4


def test_both_meet_the_same_spells():
    """Every arm's rate is drawn by the run's own generator, before anything else."""
    world = Mortal(arms=1, mortality=0.1)
    slow, quick = (game(Thompson(), world, 200, rng=rng(), runs=3) for game in (simulate, race))
    assert (slow.regret == 0).all()
    assert (quick.regret == 0).all()
    rates = [world.spells(200, chance) for chance in rng().spawn(3)]
    expected = [spells.mean[spells.at(200), 0].sum() for spells in rates]
    for result in (slow, quick):
        assert np.abs(result.reward[:, -1] - expected).max() < 5 * (200 / 4) ** 0.5


# What the policy is told, and when


def test_rewards_arrive_late_and_in_batches():
    policy = Watched()
    simulate(policy, Stationary((0.5, 0.5)), 12, rng=rng(), feedback=Feedback(delay=3, every=2))
    assert [sums[:, 0].sum() for sums in policy.seen] == [0, 2, 4, 6, 8]


def test_at_once_every_reward_is_learnt_before_the_next_round():
    policy = Watched()
    result = simulate(policy, Stationary((0.7, 0.2)), 9, rng=rng(), checkpoints=range(1, 9))
    assert [sums[:, 0].sum() for sums in policy.seen] == list(range(10))
    assert [sums[:, 1].sum() for sums in policy.seen[1:]] == result.reward[0].tolist()


def test_forgetting_weighs_by_the_age_of_the_decision():
    policy = Watched()
    feedback = Feedback(delay=2, every=3, half_life=HalfLife(4.0))
    simulate(policy, Stationary((0.5, 0.5)), 11, rng=rng(), feedback=feedback)
    ages = [[], [4, 3, 2], [7, 6, 5, 4, 3, 2], [10, 9, 8, 7, 6, 5, 4, 3, 2]]
    expected = [sum(0.5 ** (age / 4) for age in known) for known in ages]
    assert [sums[:, 0].sum() for sums in policy.seen] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("half_life", [None, HalfLife(1e6)])
def test_a_new_arm_starts_from_nothing_and_is_not_paid_for_the_old_one(half_life):
    policy = Watched()
    world = Mortal(arms=2, mortality=0.1)
    feedback = Feedback(delay=5, half_life=half_life)
    simulate(policy, world, 60, rng=rng(1), feedback=feedback)
    (chance,) = rng(1).spawn(1)
    rounds = world.rounds(60, chance)
    draw = sampler(str(chance.integers(2**63)), ["0", "1"])
    arms = [draw(np.array([0.5, 0.5]), str(t)) for t in range(60)]
    born = max(np.flatnonzero(rounds.fresh[:, 0]))
    assert 20 < born < 54, "old rewards are on their way, and new ones come"
    expected = sum(arm == 0 for arm in arms[born:55])
    assert policy.seen[-1][0, 0] == pytest.approx(expected, rel=1e-3)
    assert sum((sums[0, 0] == 0) for sums in policy.seen) > 5 * rounds.fresh[:, 0].sum()


# What comes out


@pytest.mark.parametrize("game", [simulate, race])
def test_the_same_seed_gives_the_same_result_and_more_runs_change_none(game):
    world, feedback = SCENES["mortal, late and in batches"]
    one, same, more, other = (
        game(Thompson(), world, 100, rng=rng(seed), runs=runs, feedback=feedback)
        for seed, runs in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    assert np.array_equal(one.regret, same.regret)
    assert np.array_equal(one.reward, more.reward[:2])
    assert not np.array_equal(one.regret, other.regret)


@pytest.mark.parametrize("game", [simulate, race])
def test_a_result_adds_up(game):
    world = Stationary((0.9, 0.5, 0.4))
    result = game(EpsilonGreedy(0.3), world, 200, rng=rng(), runs=20, checkpoints=(1, 10, 100))
    assert result.steps.tolist() == [1, 10, 100, 200]
    assert result.regret.shape == result.reward.shape == (20, 4)
    assert (np.diff(result.regret) >= 0).all()
    assert (np.diff(result.reward) >= 0).all()
    assert result.shares.sum(axis=1) == pytest.approx(1)
    assert result.regret[:, -1] == pytest.approx(200 * result.shares @ [0.0, 0.4, 0.5])
    assert (result.reward == np.round(result.reward)).all()
    assert np.abs(result.reward[:, -1] - 200 * result.shares @ [0.9, 0.5, 0.4]).max() < 5 * (200 / 4) ** 0.5


@pytest.mark.parametrize("game", [simulate, race])
def test_to_play_evenly_costs_the_mean_gap(game):
    result = game(EpsilonGreedy(1.0), Stationary((0.9, 0.5, 0.4)), 500, rng=rng(), runs=20)
    assert abs(result.regret.mean() - 150) < 4 * 500**0.5 * 0.22 / 20**0.5


def test_policies_meet_the_same_world():
    """Two that play evenly, by the same salt: the same arms, the same rewards."""
    one, other = (
        simulate(policy, Seasonal(arms=2, period=50), 200, rng=rng(), runs=2)
        for policy in (EpsilonGreedy(1.0), Split((1, 1)))
    )
    assert np.array_equal(one.reward, other.reward)
    assert np.array_equal(one.regret, other.regret)


def test_regret_is_measured_against_the_best_allowed_arm():
    alone = Sleeping(Stationary((0.9, 0.1, 0.2)), awake=0.0)
    result = simulate(Thompson(), alone, 300, rng=rng(), runs=2)
    assert (result.regret == 0).all()
    assert result.shares == pytest.approx(1 / 3, abs=0.15)


def test_a_policy_without_a_context_may_play_in_a_world_that_has_one():
    result = simulate(Split((1, 1, 1)), Linear(arms=3, features=2), 100, rng=rng())
    assert 0 < result.regret[0, -1] < 100


def test_learning_pays_and_forgetting_pays_where_the_best_arm_changes():
    evenly, learning, forgetting = (
        race(policy, Piecewise(((0.9, 0.1), (0.1, 0.9)), every=200), 400, rng=rng(), runs=20, feedback=feedback).regret
        for policy, feedback in (
            (EpsilonGreedy(1.0), Feedback()),
            (Thompson(), Feedback()),
            (Thompson(), Feedback(half_life=HalfLife(30))),
        )
    )
    assert forgetting.mean() < 0.6 * learning.mean() < 0.6 * evenly.mean()


# What is refused


@pytest.mark.parametrize("game", [simulate, race])
@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"steps": 0}, "steps"),
        ({"runs": 0}, "runs"),
        ({"checkpoints": (0, 5)}, "checkpoints"),
        ({"checkpoints": (5, 3)}, "checkpoints"),
        ({"checkpoints": (5, 5)}, "checkpoints"),
        ({"checkpoints": (5, 11)}, "checkpoints"),
        ({"checkpoints": (10, 11)}, "checkpoints"),
    ],
)
def test_a_game_that_cannot_be_played_is_refused(game, wrong, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        game(Thompson(), Stationary((0.5, 0.6)), **({"steps": 10, "rng": rng()} | wrong))


@pytest.mark.parametrize(("wrong", "name"), [({"delay": -1}, "delay"), ({"every": 0}, "every")])
def test_feedback_that_cannot_be_is_refused(wrong, name):
    with pytest.raises(ValueError, match=rf"^{name}: "):
        Feedback(**wrong)


@dataclass(frozen=True)
class Reader(Watched):
    """It reads three features."""

    @property
    def features(self):
        return 3


def test_a_policy_that_reads_other_contexts_is_refused():
    for world in (Stationary((0.5, 0.6)), Linear(features=4)):
        with pytest.raises(ValueError, match=r"^policy: reads 3 features"):
            simulate(Reader(), world, 10, rng=rng())


@pytest.mark.parametrize("policy", [Split((1, 1)), EpsilonGreedy(constant_plays=10), Floor(Split((1, 1)))], ids=str)
def test_a_policy_without_a_compiled_form_is_refused(policy):
    with pytest.raises(ValueError, match=r"^policy: no compiled form"):
        race(policy, Stationary((0.5, 0.6)), 10, rng=rng())
