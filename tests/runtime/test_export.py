from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from protos.errors import FailedPrecondition
from protos.tensors import DATATYPES
from runtime.export import export
from runtime.export.__main__ import main
from runtime.sample import Sample, check_sample, read_sample
from runtime.warmup import warm_up
from tests.runtime.models import AsDict, AsPair, AsTuple, Both, Choosy, Minus, Mlp, Times, Total, load_from

X = torch.linspace(-1, 1, 8).reshape(2, 4)


class Branches(nn.Module):
    """Its course depends on a value, in a way that only Python can run."""

    def forward(self, x):
        return max([x, -x], key=lambda each: float(each.sum()))


class OnlyTraced(nn.Module):
    """Python that cannot be scripted, and always takes the same course."""

    def forward(self, x):
        return sum(map(lambda power: x**power, range(3)))  # noqa: C417 - such things people write


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x):
        return self.cells(x)[0][:, -1]


def settings_of(folder: Path) -> dict:
    told: dict = json.loads((folder / "model-settings.json").read_text())
    return told


def served_as(folder: Path, implementation: str, file: str) -> None:
    """Lets a folder be served by another of its files."""
    told = settings_of(folder)
    told |= {"implementation": implementation, "parameters": {"uri": f"./{file}"}}
    (folder / "model-settings.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("module", "example"), [(Mlp(), X), (OnlyTraced(), X), (Recurrent(), torch.randn(1, 7, 3)), (Times(2.0), X)]
)
def test_each_file_answers_as_the_module_does(tmp_path, module, example):
    folder = export(module, [example], tmp_path / "m")
    with torch.inference_mode():
        more = torch.cat([example, 2 * example, example])
        expected = module(more).numpy()
    for implementation, file in (("runtime.TorchScriptModel", "model.pt"), ("runtime.ExportedModel", "model.pt2")):
        served_as(folder, implementation, file)
        model = load_from(tmp_path)
        assert warm_up(model, max_rows=16)
        np.testing.assert_allclose(model.run({"x": more.numpy()})["output"], expected, rtol=1e-5, atol=1e-6)


def test_the_folder_says_what_it_takes_and_returns(tmp_path):
    folder = export(Both(), {"a": X, "b": X}, tmp_path / "both")
    assert settings_of(folder) == {
        "name": "both",
        "implementation": "runtime.TorchScriptModel",
        "platform": "pytorch_torchscript",
        "parameters": {"uri": "./model.pt", "version": "1"},
        "inputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in "ab"],
        "outputs": [{"name": name, "datatype": "FP32", "shape": [-1, 4]} for name in ("sum", "difference")],
    }
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS",
        "model-settings.json",
        "model.pt",
        "model.pt2",
        "warm-up.npz",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["both"]


def test_coreutils_can_check_the_sums(tmp_path):
    folder = export(Mlp(), [X], tmp_path / "m")
    check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    said = subprocess.run(check, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["model.pt: OK", "model.pt2: OK", "warm-up.npz: OK"]
    (folder / "model.pt2").write_bytes(b"other")
    assert subprocess.run(check, cwd=folder, capture_output=True, check=False).returncode


def test_one_tensor_given_twice_is_two_inputs(tmp_path):
    """PyTorch's own export would make one of them, and a - b be 0."""
    export(Minus(), [X, X], tmp_path / "m", formats=["pt2"])
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    assert load_from(tmp_path).run({"a": one, "b": two})["output"].tolist() == [[-1] * 4]


@pytest.mark.parametrize(
    ("module", "named", "expected"),
    [
        (AsTuple(), (), ["output_0", "output_1"]),
        (AsTuple(), ("low", "high"), ["low", "high"]),
        (AsPair(), (), ["low", "high"]),
        (AsDict(), ("high", "low"), ["high", "low"]),
        (Mlp(), ("y",), ["y"]),
    ],
)
def test_outputs_have_the_names_that_are_given_or_the_modules_own(tmp_path, module, named, expected):
    folder = export(module, [X], tmp_path / "m", outputs=named, formats=["pt"])
    assert [each["name"] for each in settings_of(folder)["outputs"]] == expected


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "FP64", "INT64", "BOOL"])
def test_datatypes_are_those_of_the_example(tmp_path, datatype):
    class Same(nn.Module):
        def forward(self, x):
            return x.clone()

    bits = np.array([[0, 1], [1, 1]], DATATYPES[datatype])
    example = torch.tensor([[0, 1], [1, 1]], dtype=torch.bfloat16) if datatype == "BF16" else torch.from_numpy(bits)
    folder = export(Same(), [example], tmp_path / "m")
    assert settings_of(folder)["inputs"] == [{"name": "x", "datatype": datatype, "shape": [-1, 2]}]
    model = load_from(tmp_path)
    sample = read_sample(folder, model)
    assert sample
    assert sample.outputs["output"].dtype == DATATYPES[datatype]
    check_sample(model, sample)


def test_a_fixed_batch_is_declared_as_it_is(tmp_path):
    folder = export(Total(), [X], tmp_path / "m", dynamic_batch=False)
    assert settings_of(folder)["inputs"][0]["shape"] == [2, 4]
    assert settings_of(folder)["outputs"][0]["shape"] == [1, 4]
    assert warm_up(load_from(tmp_path), max_rows=64)


def test_a_module_in_training_is_exported_as_one_that_is_not(tmp_path):
    folder = export(nn.Sequential(nn.Dropout(0.5)).train(), [X], tmp_path / "m")
    served_as(folder, "runtime.ExportedModel", "model.pt2")
    np.testing.assert_array_equal(load_from(tmp_path).run({"input": X.numpy()})["output"], X.numpy())


def test_exporting_again_replaces_what_was_there(tmp_path):
    folder = export(Times(2.0), [X], tmp_path / "m")
    export(Times(3.0), [X], folder, formats=["pt2"])
    assert not (folder / "model.pt").exists()
    assert load_from(tmp_path).run({"x": np.ones((1, 4), np.float32)})["output"].tolist() == [[3] * 4]


@pytest.mark.parametrize(
    ("module", "example", "options", "says"),
    [
        (Mlp(), [X], {"formats": ["onnx"]}, "there is no format 'onnx'; there are pt, pt2, aoti"),
        (Mlp(), [X], {"formats": []}, "name at least one format of pt, pt2, aoti"),
        (Mlp(), [X, X], {}, "the example has 2 tensors; forward takes x"),
        (Mlp(), [X[:, :3]], {}, "the module does not take the example: mat1 and mat2 shapes cannot be multiplied"),
        (Mlp(), {"z": X}, {}, "the module does not take the example: "),
        (Mlp(), {"x": X[0, 0]}, {}, "all tensors of the example have the same rows, and not {'x': 0}"),
        (Minus(), [X, X[:1]], {}, "all tensors of the example have the same rows, and not {'a': 2, 'b': 1}"),
        (AsTuple(), [X], {"outputs": ["low"]}, "forward returns 2 values; 1 outputs are named"),
        (AsDict(), [X], {"outputs": ["middle"]}, "forward returns no 'middle', only 'high', 'low', 'more'"),
        (Total(), [X], {}, "output 'output' has shape [1, 4] for 2 rows: its first dimension does not count rows"),
        (Branches(), [X], {"formats": ["pt"]}, "nor traced (Converting a tensor to a Python float"),
        (Branches(), [X], {"formats": ["pt2"]}, "pt2: torch.export does not take it: "),
        (Choosy(), [X], {}, "; TorchScript runs what depends on values: --format pt writes that alone"),
        (
            AsPair(),
            [X],
            {"formats": ["pt2"]},
            "pt2: torch.export cannot save it: Can't serialize TreeSpec of namedtuple",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_and_writes_nothing(tmp_path, module, example, options, says):
    with pytest.raises(FailedPrecondition) as refused:
        export(module, example, tmp_path / "m", **options)
    assert says in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_refused(tmp_path):
    """Scripting keeps a module's attribute as it is; this one changes with each call."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * self.calls

    with pytest.raises(
        FailedPrecondition, match="pt: output 'output' is not what the warm-up sample says that the model"
    ):
        export(Counts(), [X], tmp_path / "m", formats=["pt"])


def test_exporting_warns_of_nothing(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        export(Recurrent(), [torch.randn(2, 7, 3)], tmp_path / "m")
    assert [str(warning.message) for warning in told] == []


def test_a_sample_is_of_one_model(tmp_path):
    folder = export(Times(2.0), [X], tmp_path / "m")
    model = load_from(tmp_path)
    sample = read_sample(folder, model)
    assert sample
    check_sample(model, sample)
    wrong = Sample(sample.inputs, {"output": sample.outputs["output"] + 1})
    with pytest.raises(FailedPrecondition, match="output 'output' is not what the warm-up sample says"):
        check_sample(model, wrong)
    with pytest.raises(FailedPrecondition, match="the model does not take its warm-up sample"):
        check_sample(model, Sample({"z": sample.inputs["x"]}, sample.outputs))
    (folder / "warm-up.npz").write_bytes(b"junk")
    with pytest.raises(FailedPrecondition, match=r"warm-up\.npz is not a sample of this model"):
        read_sample(folder, model)
    Sample({"z": sample.inputs["x"]}, {}).write(folder / "warm-up.npz")
    with pytest.raises(FailedPrecondition, match="of this model: it has no 'inputs/x', only 'inputs/z'"):
        read_sample(folder, model)
    (folder / "warm-up.npz").unlink()
    assert read_sample(folder, model) is None


NETWORK = """\
from tests.runtime.models import Mlp

def build():
    return Mlp()

class Fails:
    def __init__(self):
        raise KeyError("no weights")
"""


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A user's module in the current folder."""
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "typo.py").write_text("def build(:")
    (tmp_path / "early.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("module", ["network:build", "network:Mlp"])
def test_the_command_exports_and_says_what_it_wrote(tmp_path, capsys, module):
    assert main([module, "models/mlp", "--example", "x=FP32[2, 4]", "--output", "y", "--format", "pt"]) == 0
    *sums, end = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in sums] == ["model.pt", "warm-up.npz"]
    assert end == "each answers as the module does; next: croupier runtime models/mlp"
    assert load_from(tmp_path / "models", "mlp").run({"x": np.zeros((3, 4), np.float32)})["y"].shape == (3, 1)


@pytest.mark.usefixtures("network")
def test_the_command_takes_an_example_from_a_file(tmp_path):
    np.savez("example.npz", x=np.ones((5, 4), np.float32))
    assert main(["network:build", "m", "--example", "example.npz", "--fixed-batch", "--name", "n"]) == 0
    assert settings_of(tmp_path / "m")["name"] == "n"
    assert settings_of(tmp_path / "m")["inputs"][0]["shape"] == [5, 4]


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["network", "--example", "x=FP32[2,4]"], "'network' is not MODULE:FACTORY"),
        (["network:nobody", "--example", "x=FP32[2,4]"], "'network:nobody' is not MODULE:FACTORY"),
        (["nobody:build", "--example", "x=FP32[2,4]"], "No module named 'nobody'"),
        (
            ["network:Fails", "--example", "x=FP32[2,4]"],
            "network:Fails fails: network.py, line 8: KeyError: 'no weights'",
        ),
        (
            ["typo:build", "--example", "x=FP32[2,4]"],
            "importing typo fails: SyntaxError: invalid syntax (typo.py, line 1)",
        ),
        (["early:build", "--example", "x=FP32[2,4]"], "importing early fails: early.py, line 1: ZeroDivisionError: "),
        (["builtins:dict", "--example", "x=FP32[2,4]"], "builtins:dict returns dict, not an nn.Module"),
        (["network:build", "--example", "x=F32[2,4]"], "--example x=F32[2,4]: write NAME=DATATYPE[SHAPE]"),
        (["network:build", "--example", "x=BYTES[2]"], "--example x=BYTES[2]: write NAME=DATATYPE[SHAPE]"),
        (["network:build", "--example", "nobody.npz"], "--example nobody.npz: "),
        (["network:build", "--example", "x=FP32[2,5]"], "the module does not take the example"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, arguments, says):
    assert main([*arguments[:1], "m", *arguments[1:]]) == 1
    complained = capsys.readouterr().err
    assert complained.startswith("croupier export: ")
    assert says in complained
    assert complained.count("\n") == 1
    assert not (tmp_path / "m").exists()
