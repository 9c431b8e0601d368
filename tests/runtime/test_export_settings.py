from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from protos.errors import FailedPrecondition
from runtime.export import export
from runtime.repository import Repository
from tests.runtime.models import Centred, Mlp, Times, load_from
from tests.runtime.test_export import X, settings_of

SPELT = {
    "parameters": {"extra": {"explain": {"steps": 7}}, "content_type": "np"},
    "max_batch_time": 0.1,
    "note": "mine",
}


def test_exporting_again_keeps_what_its_user_wrote(tmp_path):
    pytest.importorskip("captum", reason="the extra explain is not installed")
    folder = export(Mlp(), [torch.ones(2, 3, 4)], tmp_path / "m", name="mlp", formats=["pt"])
    told = settings_of(folder)
    told |= SPELT | {"parameters": told["parameters"] | SPELT["parameters"]}
    told["inputs"][0] |= {"shape": [-1, -1, 4], "parameters": {"content_type": "np"}}
    told["outputs"][0]["shape"][1] = -1
    (folder / "model-settings.json").write_text(json.dumps(told))
    export(Mlp(1), [torch.ones(2, 3, 4)], folder, formats=["pt2"])
    changed = {"implementation": "runtime.ExportedModel", "platform": "pytorch_exported"}
    assert settings_of(folder) == told | changed | {"parameters": told["parameters"] | {"uri": "./model.pt2"}}
    assert load_from(tmp_path, "mlp").run({"x": np.ones((1, 5, 4), np.float32)})["output"].shape == (1, 5, 1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "JSON is malformed|truncated"),
        ("[]", "Expected `object`, got `array`"),
        ('{"inputs": 1}', "Expected `array`, got `int`"),
        ('{"parameters": {"extra": {"thread": 2}}}', "parameters.extra: Object contains unknown field `thread`"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused_and_stay(tmp_path, content, says):
    path = tmp_path / "m" / "model-settings.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(FailedPrecondition, match=says) as refused:
        export(Mlp(), [X], tmp_path / "m", formats=["pt"])
    assert str(path) in refused.value.message
    assert path.read_text() == content


def test_options_may_stand_there_before_the_first_export(tmp_path):
    """As a model whose rows belong together needs them."""
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "model-settings.json").write_text('{"parameters": {"extra": {"max_batch_size": 1, "device": "cuda"}}}')
    export(Centred(), [X], folder, formats=["pt"])
    extra = {"max_batch_size": 1, "device": "cuda"}
    assert settings_of(folder)["parameters"] == {"extra": extra, "uri": "./model.pt", "version": "1"}


def test_a_folder_that_is_called_by_a_number_is_a_version(tmp_path):
    for version in (1, 2):
        export(Times(version), [X], tmp_path / "times" / str(version), formats=["pt"])
    copied = tmp_path / "times" / "3"
    shutil.copytree(tmp_path / "times" / "2", copied)
    export(Times(3), [X], copied, formats=["pt"])
    found = Repository(tmp_path).scan()
    assert [(each.name, each.version, each.reason) for each in found] == [("times", each, "") for each in "123"]


def test_a_folder_is_called_as_it_is_wherever_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "m" / "2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "m" / "2")
    assert settings_of(export(Mlp(), [X], Path(), formats=["pt"]))["name"] == "m"
