from __future__ import annotations

import json
import subprocess
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protos.errors import FailedPrecondition
from protos.tensors import DATATYPES
from runtime.export import export
from runtime.sample import Sample, check_sample, read_sample
from runtime.warmup import warm_up
from tests.runtime.models import AsDict, AsPair, AsTuple, Both, Centred, Choosy, Minus, Mlp, Times, Total, load_from

X = torch.linspace(-1, 1, 8).reshape(2, 4)


class Branches(nn.Module):
    """Its course depends on a value, in a way that only Python can run."""

    def forward(self, x):
        return max([x, -x], key=lambda each: float(each.sum()))


class OnlyTraced(nn.Module):
    """Python that cannot be scripted, and always takes the same course."""

    def forward(self, x):
        return sum(map(lambda power: x**power, range(3)))  # noqa: C417 - such things people write


class Threshold(nn.Module):
    """The answer to a row depends on how many there are."""

    def forward(self, x):
        return 2 * x if x.size(0) > 8 else 3 * x


class Counts(nn.Module):
    calls: Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.rfft(x)


class Silent(nn.Module):
    def forward(self, x):
        return {}


class Attention(nn.Module):
    """Takes sequences of any length."""

    def __init__(self):
        super().__init__()
        self.heads = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x, weight):
        return self.heads(x, x, x)[0] * weight.unsqueeze(2)


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


def test_a_free_size_may_be_any(tmp_path):
    example = {"x": torch.randn(2, 5, 4), "weight": torch.ones(2, 5)}
    folder = export(Attention(), example, tmp_path / "m", free={"x": [1], "weight": [1]})
    shapes = [each["shape"] for key in ("inputs", "outputs") for each in settings_of(folder)[key]]
    assert shapes == [[-1, -1, 4], [-1, -1], [-1, -1, 4]]
    for implementation, file in (("runtime.TorchScriptModel", "model.pt"), ("runtime.ExportedModel", "model.pt2")):
        served_as(folder, implementation, file)
        model = load_from(tmp_path)
        for length in (1, 5, 9):
            x, weight = np.ones((3, length, 4), np.float32), np.ones((3, length), np.float32)
            assert model.run({"x": x, "weight": weight})["output"].shape == x.shape


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
        (Choosy(), [X], {}, "; --format pt writes what works"),
        (AsPair(), [X], {"formats": ["pt2"]}, "pt2: torch.export cannot save it: Can't serialize TreeSpec of"),
        (AsPair(), [X], {}, "; --format pt writes what works"),
        (
            Threshold(),
            [X],
            {"formats": ["pt2"]},
            "Not all values of batch = L['x'].size()[0] in the specified range satisfy the generated guard 2 <= L['x']",
        ),
        (Threshold(), [X], {}, "pt: the server would refuse it: output 'output' of a row depends on the other rows"),
        (Centred(), [X], {}, "pt: the server would refuse it: output 'output' of a row depends on the other rows"),
        (Centred(), [X], {}, "m/model-settings.json before the export"),
        (
            Counts(),
            [X],
            {},
            "output 'output' is another one each time that forward runs on the example: it keeps state",
        ),
        (Noise(), [X], {}, "output 'output' is another one each time that forward runs on the example: it keeps state"),
        (Spectrum(), [X], {}, "output 'output' cannot be served: V2 has no datatype for NumPy's complex64"),
        (Silent(), [X], {}, "forward returns {}, and so nothing to serve"),
        (Total(), [X], {}, "which --fixed-batch (dynamic_batch=False) allows"),
        (Mlp(), [X], {"free": {"y": [1]}}, "free: 'y' has not each of the dimensions [1] after its first"),
        (Mlp(), [X], {"free": {"x": [0, 1]}}, "free: 'x' has not each of the dimensions [0, 1] after its first"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_writes_nothing(tmp_path, module, example, options, says):
    with pytest.raises(FailedPrecondition) as refused:
        export(module, example, tmp_path / "m", **options)
    assert says in refused.value.message
    assert ".export-" not in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_refused(tmp_path):
    class Otherwise(nn.Module):
        def forward(self, x):
            return 2 * x if torch.jit.is_scripting() else x + 0  # type: ignore[attr-defined]

    with pytest.raises(FailedPrecondition, match="pt: output 'output' of the file is not what the module answers"):
        export(Otherwise(), [X], tmp_path / "m", formats=["pt"])


def test_what_torch_export_prints_is_not_shown(tmp_path, capfd):
    with pytest.raises(FailedPrecondition):
        export(Choosy(), [X], tmp_path / "m", formats=["pt2"])
    assert capfd.readouterr() == ("", "")


def test_exporting_warns_of_nothing(tmp_path):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        export(Recurrent(), [torch.randn(2, 7, 3)], tmp_path / "m")
    assert [str(warning.message) for warning in told] == []


@pytest.mark.parametrize("given", [{"formats": ("pt", "pt")}, {"outputs": ("y", "y")}])
def test_what_is_named_twice_is_refused(tmp_path, given):
    with pytest.raises(FailedPrecondition, match=r"(format 'pt'|output 'y') is named twice"):
        export(Times(2.0), [X], tmp_path / "m", **given)
    assert not (tmp_path / "m").exists()


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
    lone = BytesIO()
    np.save(lone, X.numpy())
    for junk in (b"junk", b"", lone.getvalue()):
        (folder / "warm-up.npz").write_bytes(junk)
        with pytest.raises(FailedPrecondition, match=r"warm-up\.npz is not a sample of this model"):
            read_sample(folder, model)
    Sample({"z": sample.inputs["x"]}, {}).write(folder / "warm-up.npz")
    with pytest.raises(FailedPrecondition, match="of this model: it has no 'inputs/x', only 'inputs/z'"):
        read_sample(folder, model)
    (folder / "warm-up.npz").unlink()
    assert read_sample(folder, model) is None
