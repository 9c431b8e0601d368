"""The regret benchmark in small: the figures of the literature come out, and a wrong one is noticed."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from bandits import Thompson
from bandits.bernoulli import Stationary, lai_robbins
from bandits.simulate import Result
from benchmarks import regret
from benchmarks.literature import TEN_CLOSE, Known, Trial, Whose, curve, drifting, mortal, stationary
from benchmarks.regret import agrees, everything, failures, figure, joined, measure, regret_table, show, slopes

STATIC = [replace(trial, runs=100) for trial in stationary() if trial.steps <= 5000]
LOW = [replace(trial, runs=4) for trial in stationary() if trial.steps > 5000]
MORTAL = [replace(trial, runs=2) for trial in mortal() if trial.feedback.every == 32]
DRIFT = [replace(trial, runs=20) for trial in drifting()]
CURVE = [replace(trial, steps=1000, runs=20, checkpoints=(10, 100)) for trial in curve()]


@pytest.fixture(scope="module")
def results():
    with Progress(disable=True) as progress:
        return measure([*STATIC, *LOW, *MORTAL, *DRIFT, *CURVE], progress)


def test_what_is_known_comes_out(results):
    assert failures(results) == []
    assert {trial.known.whose for trial in results if trial.known} == {Whose.EARLIER, Whose.PUBLISHED}
    assert {trial.name for trial in results if trial.table == "stationary"} == {"Thompson", "KL-UCB+", "UCB1"}


def test_a_policy_that_loses_more_than_it_should_is_noticed(results):
    thompson, _, ucb1 = [trial for trial in results if trial.instance.startswith("ten low arms")]
    swapped = results | {thompson: results[ucb1], ucb1: results[thompson]}
    found = failures(swapped)
    assert sum("earlier was" in sentence for sentence in found) == 2, "both are far from the earlier figures"
    assert sum("Thompson ten low arms" in sentence and "regrets more than UCB1" in sentence for sentence in found) == 1


def test_a_figure_far_from_the_published_one_is_noticed(results):
    (trial,) = [trial for trial in MORTAL if trial.known]
    ours = results[trial]
    dearer = Result(ours.steps, 1.2 * ours.regret, ours.reward, ours.shares)
    assert [sentence for sentence in failures(results | {trial: dearer}) if "published was 9451" in sentence]


def test_a_floor_that_helps_without_forgetting_is_noticed(results):
    alone, floored = (
        next(trial for trial in DRIFT if trial.name == name) for name in ("Thompson", "Thompson, 5 % floor")
    )
    swapped = results | {alone: results[floored], floored: results[alone]}
    assert any(sentence.startswith("drifting: Thompson should regret less") for sentence in failures(swapped))


def test_a_published_figure_allows_a_tenth_and_an_earlier_one_four_standard_errors():
    ours = figure(STATIC[0], Result(np.array([1]), np.array([[99.0], [101.0]]), np.zeros((2, 1)), np.zeros((2, 2))))
    assert (ours.mean, ours.error) == (100.0, 1.0)
    for whose, mean, error, expected in [
        (Whose.PUBLISHED, 110.0, None, True),
        (Whose.PUBLISHED, 112.0, None, False),
        (Whose.PUBLISHED, 90.0, None, False),
        (Whose.EARLIER, 103.9, 0.0, True),
        (Whose.EARLIER, 104.1, 0.0, False),
        (Whose.EARLIER, 111.0, 3.0, True),
        (Whose.EARLIER, 105.0, None, True),
        (Whose.EARLIER, 106.5, None, False),
        (Whose.SIMILAR, 300.0, 1.0, True),
    ]:
        assert agrees(ours, whose, mean, error) is expected, (whose, mean, error)


def test_regret_is_told_in_the_unit_of_the_source(results):
    trial = STATIC[0]
    ours = figure(trial, results[trial])
    double = figure(replace(trial, unit=2.0), results[trial])
    assert tuple(double[:4]) == pytest.approx(tuple(2 * x for x in ours[:4]))
    assert ours.runs == double.runs == 100


def test_results_do_not_depend_on_threads_or_neighbours(results, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with Progress(disable=True) as progress:
        (alone,) = measure([STATIC[0]], progress).values()
    assert np.array_equal(alone.regret, results[STATIC[0]].regret)


def test_policies_meet_the_same_arms_in_a_mortal_world(results):
    first, second = (results[trial].reward[:, -1] + results[trial].regret[:, -1] for trial in MORTAL)
    assert first == pytest.approx(second, rel=5e-3), "what the best arm would have earned in each run, but for chance"


def test_runs_are_joined_in_order():
    one, two = (Result(np.array([1]), np.full((n, 1), n), np.full((n, 1), -n), np.full((n, 2), 0.5)) for n in (1, 2))
    assert joined([one, two]).regret.ravel().tolist() == [1, 2, 2]
    assert joined([one, two]).reward.ravel().tolist() == [-1, -2, -2]


def test_the_slope_of_a_curve_that_follows_the_bound_is_one():
    steps = np.array([10, 100, 1000])
    curve = Result(
        steps, np.tile(lai_robbins(TEN_CLOSE) * np.log(steps) + 7, (3, 1)), np.zeros((3, 3)), np.zeros((3, 2))
    )
    assert slopes({"ideal": curve})["ideal"] == pytest.approx(1)


def test_tables_stand_complete_in_eighty_columns_and_the_picture_is_saved(results, tmp_path, monkeypatch):
    monkeypatch.setattr(regret, "PICTURE", tmp_path / "new" / "regret.png")
    console = Console(width=80, record=True, file=io.StringIO())
    show(console, results)
    text = console.export_text()
    assert "…" not in text, "something was cut"
    for needed in (
        "Lai and Robbins",
        "2.252",
        "two arms",
        "9.40 ±0.46",
        "9,451",
        "902.8",
        "C ln T",
        str(regret.PICTURE)[:20],
    ):
        assert needed in text
    png = regret.PICTURE.read_bytes()
    assert png.startswith(b"\x89PNG")
    width, height = (int.from_bytes(png[i : i + 4]) for i in (16, 20))
    assert width > 1000
    assert height > 600


def test_a_trial_without_a_figure_to_stand_beside_leaves_its_cell_empty():
    trial = Trial("some", "", "Thompson", Thompson(), Stationary((0.5, 0.4)), 10, 2)
    result = Result(np.array([10]), np.ones((2, 1)), np.ones((2, 1)), np.ones((2, 2)))
    known = replace(trial, name="known", known=Known(Whose.PUBLISHED, 3.0))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(regret_table("Some", {trial: result, known: result}))
    assert console.export_text().count("3.00") == 1


def test_a_quick_run_plays_everything_fewer_times():
    full, quick = everything(quick=False), everything(quick=True)
    assert [(trial.table, trial.instance, trial.name) for trial in full] == [
        (trial.table, trial.instance, trial.name) for trial in quick
    ]
    assert all(2 <= short.runs < long.runs for short, long in zip(quick, full, strict=True))
    assert {trial.table for trial in full} == {"stationary", "mortal", "drifting", "contextual", "curve"}


def test_the_command_prints_figures_for_a_program_and_fails_where_one_is_wrong(results, monkeypatch, capsys):
    monkeypatch.setattr(regret, "everything", lambda **_: [*CURVE, *(replace(trial, runs=20) for trial in STATIC[:3])])
    monkeypatch.setattr(sys, "argv", ["regret", "--json"])
    assert regret.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failures"] == []
    assert {row["policy"] for row in told["regret"]} == {"Thompson", "KL-UCB+", "UCB1"}
    assert told["lai_robbins"]["two arms, .9 .8"] == pytest.approx(2.2521)
    wrong = [replace(STATIC[0], runs=20, known=Known(Whose.PUBLISHED, 1.0)), *CURVE]
    monkeypatch.setattr(regret, "everything", lambda **_: wrong)
    assert regret.main() == 1
    assert "published was 1.0" in capsys.readouterr().err
