"""The comparison is fair: every learner sees the same rows in the same order, and no reward but its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bandits import Split, SquareCB
from benchmarks import contextual
from benchmarks.contextual import (
    OURS,
    TOLD_ALL,
    UNTUNED,
    Best,
    Ours,
    Run,
    best,
    loss,
    made,
    measure,
    play,
    report,
    settings,
    verdict,
)
from benchmarks.datasets import load
from benchmarks.peers import LIBRARIES

WINE = load("wine")


class Spy:
    """Always picks one arm, and remembers what it saw."""

    def __init__(self, arm=0):
        self.arm = arm
        self.seen = []
        self.told = []

    def prepared(self, context):
        return context

    def choose(self, context):
        self.seen.append(context)
        return self.arm, 0.25

    def learn(self, context, arm, reward, propensity):
        assert context is self.seen[-1]
        assert propensity == 0.25
        self.told.append((arm, reward))


def test_the_loss_is_the_share_of_wrong_rows():
    for arm in range(WINE.arms):
        assert loss(WINE, Spy(arm), 0) == pytest.approx(1 - WINE.rewards[:, arm].mean())


def test_every_row_is_seen_once_in_an_order_that_the_shuffle_alone_gives():
    first, again, other = Spy(0), Spy(2), Spy(0)
    loss(WINE, first, 0)
    loss(WINE, again, 0)
    loss(WINE, other, 1)
    assert np.array_equal(first.seen, again.seen)
    assert not np.array_equal(first.seen, other.seen)
    assert sorted(map(tuple, first.seen)) == sorted(map(tuple, WINE.contexts))


def test_only_the_reward_of_the_chosen_arm_is_told():
    spy = Spy(1)
    loss(WINE, spy, 0)
    order = np.random.default_rng(0).permutation(WINE.rows)
    assert spy.told == [(1, float(right)) for right in WINE.rewards[order, 1]]


def test_told_all_is_told_all():
    spy = Spy(1)
    loss(WINE, spy, 0, told_all=True)
    assert len(spy.told) == WINE.rows * WINE.arms
    assert sum(reward for _, reward in spy.told) == WINE.rows


def test_ours_learns_far_more_than_chance():
    chance = loss(WINE, Ours(Split((1.0, 1.0, 1.0)), 3, 0), 0)
    learnt = loss(WINE, Ours(SquareCB(features=13), 3, 0), 0)
    assert chance == pytest.approx(2 / 3, abs=0.12)
    assert learnt < 0.2


def test_ours_is_fitted_again_when_there_is_more_to_learn_from():
    fits = []

    class Counted(Split):
        def fit(self, sums):
            fits.append(sums[:, 0].sum())
            return super().fit(sums)

    loss(WINE, Ours(Counted((1.0, 1.0, 1.0)), 3, 0), 0)
    assert fits[:4] == [0, 1, 2, 3], "at first after every reward"
    assert 100 < len(fits) < WINE.rows
    steps = np.diff(fits)
    assert (steps <= np.maximum(1, np.ceil(0.01 * np.array(fits[:-1])) + 1)).all()


def test_the_same_run_gives_the_same_loss():
    run = Run("iris", OURS, settings(OURS)[0], 3)
    assert run.loss() == run.loss()


@pytest.mark.parametrize("library", [OURS, UNTUNED, TOLD_ALL])
def test_every_setting_of_ours_can_be_made(library):
    for setting in settings(library):
        arm, propensity = made(library, setting, WINE, 0).choose(WINE.contexts[0])
        assert 0 <= arm < 3
        assert 0 < propensity <= 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_every_grid_is_small_and_can_be_read_without_the_library(library):
    assert 5 <= len(settings(library)) <= 30


def test_the_best_setting_has_the_least_mean():
    found = best({"a": [0.3, 0.1], "b": [0.1, 0.2], "c": [0.2, 0.2]})
    assert found.setting == "b"
    assert found.mean == pytest.approx(0.15)
    assert found.error == pytest.approx(0.05)
    assert str(found) == "0.1500 ±0.0500"


@pytest.mark.parametrize(
    ("ours", "says"),
    [
        ([0.1, 0.2, 0.3], "best"),  # every shuffle is better by about a tenth
        ([0.2, 0.31, 0.39], "tied"),
        ([0.25, 0.36, 0.44], "behind"),
    ],
)
def test_a_verdict_is_on_the_paired_difference_to_the_best_of_the_others(ours, says):
    others = [Best("far", np.array([0.9, 0.9, 0.9])), Best("near", np.array([0.21, 0.3, 0.39]))]
    assert verdict(Best("x", np.array(ours)), others) == says


def test_all_settings_have_the_first_shuffle_and_the_finalists_every_one(monkeypatch, capsys):
    monkeypatch.setattr(contextual, "ProcessPoolExecutor", lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(contextual, "LIBRARIES", {})
    losses = measure(["iris"], 2)
    assert set(losses) == {"iris"}
    assert set(losses["iris"]) == {OURS, UNTUNED, TOLD_ALL}
    assert len(losses["iris"][OURS]) == contextual.FINALISTS
    assert all(len(found) == 2 for found in losses["iris"][OURS].values())
    runs = [Run("iris", OURS, setting, 0) for setting in settings(OURS)]
    with ThreadPoolExecutor(1) as worker:
        least = sorted(play(runs, worker, "again").values())[: contextual.FINALISTS]
    assert sorted(found[0] for found in losses["iris"][OURS].values()) == least
    assert "iris, Croupier done" in capsys.readouterr().err


def test_the_report_counts_who_is_best(capsys):
    rows = {OURS: {"LinUCB 0.1, l2 1": [0.1, 0.12]}, UNTUNED: {"": [0.2, 0.2]}, TOLD_ALL: {"": [0.05, 0.05]}}
    peers = {library: {"some": [0.3, 0.3]} for library in LIBRARIES}
    worse = rows | {OURS: {"LinUCB 0.1, l2 1": [0.5, 0.6]}}
    report({"iris": rows | peers, "wine": worse | peers}, 2)
    printed = capsys.readouterr().out
    assert "0.1100 ±0.0100*" in printed
    assert "Best or tied on 1 of 2: 1 best, 0 tied within one standard error, 1 behind." in printed
    assert "iris: scikit-learn, sklearn.datasets.load_iris (BSD-3-Clause)" in printed
