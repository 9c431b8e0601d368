"""The whole way, with two epochs a model: build, reuse, mend, print."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from runtime.finance import RECIPES, build, decisions, held_out
from runtime.finance.__main__ import main
from runtime.finance.builds import RECORD_FILE, _digest, _record
from runtime.finance.data import Market
from runtime.finance.export import Exported
from runtime.finance.training import QUICK, Budget, constants

NAMES = tuple(recipe.name for recipe in RECIPES)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    told = []
    built = build(tmp_path_factory.mktemp("models") / "new", progress=lambda *step: told.append(step), quick=True)
    return built, told


@pytest.fixture
def copy(first, tmp_path):
    return shutil.copytree(first[0].folder, tmp_path / "copy")


def test_a_build_makes_a_folder_for_each_recipe(first):
    built, _ = first
    assert built.names == NAMES
    assert not built.reused
    assert sorted(path.name for path in built.folder.iterdir()) == sorted([*NAMES, RECORD_FILE])


def test_progress_names_each_model_and_ends_at_one(first):
    _, told = first
    assert {name for name, done in told if done == 1.0} == set(NAMES)


def test_the_probabilities_are_those_of_the_files_on_the_held_out_days_in_order(first):
    built, _ = first
    test = held_out()
    row = 1234
    for name in NAMES:
        assert built.probability[name].shape == (len(test),)
        alone = Exported(built.folder, name)(torch.from_numpy(test.features[row : row + 1])).item()
        assert built.probability[name][row] == pytest.approx(alone, abs=1e-5)


def test_the_constants_in_every_file_are_the_training_parts(first, parts):
    built, _ = first
    center, spread = constants(parts.train)
    for name in NAMES:
        exported = Exported(built.folder, name)
        assert torch.equal(exported._model.center, center)
        assert torch.equal(exported._model.spread, spread)


def test_the_reports_are_of_the_held_out_days_split_by_regime(first):
    built, _ = first
    test = held_out()
    for name, report in built.reports.items():
        assert report.all.rows == len(test) == report.calm.rows + report.turbulent.rows
        assert report.turbulent.rows == test.turbulent.sum()
        assert report.all.accuracy == np.mean(decisions(built.probability[name]) == test.label)


def test_a_second_build_reuses_the_first(copy):
    written = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()}
    again = build(copy, quick=True)
    assert again.reused
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.is_file()} == written


@pytest.mark.parametrize("fault", ["none", "a model changed", "a model missing", "the record cut short"])
def test_a_record_holds_only_while_all_its_files_are_what_was_written(fault, copy):
    model, record = copy / "logistic" / "model.pt", copy / RECORD_FILE
    digest = json.loads(record.read_text())["digest"]
    if fault == "a model changed":
        model.write_bytes(model.read_bytes() + b"\0")
    elif fault == "a model missing":
        model.unlink()
    elif fault == "the record cut short":
        record.write_text('{"digest": "')
    assert bool(_record(copy, digest)) == (fault == "none")


def test_code_data_and_budget_make_the_digest(market, monkeypatch):
    digests = [_digest(market, QUICK), _digest(market, Budget()), _digest(Market(market.nasdaq, market.sp500), QUICK)]
    monkeypatch.setattr("runtime.finance.builds.SHAPE_THE_MODELS", ("data",))
    digests.append(_digest(market, QUICK))
    assert len(set(digests)) == len(digests)


def test_a_folder_out_of_place_is_built_anew_to_the_same_models(copy, first):
    (copy / "lstm" / "model-settings.json").unlink()
    again = build(copy, quick=True)
    assert not again.reused
    for name in NAMES:
        np.testing.assert_array_equal(again.probability[name], first[0].probability[name])


def test_the_command_prints_every_model_and_that_it_reused_them(copy, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main([str(copy), "--quick"])
    printed = capsys.readouterr().out
    assert "reused" in printed
    assert all(recipe.why in printed for recipe in RECIPES)
    assert all(words in printed for words in ("base rate", "calm days", "turbulent days", "buy and hold"))


def test_the_command_says_where_models_cannot_be_kept(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit, match="file: models cannot be kept there"):
        main([str(tmp_path / "file"), "--quick"])
