from __future__ import annotations

import gc
import json
import platform
import shutil
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from protos.errors import FailedPrecondition, Internal
from protos.tensors import DATATYPES
from runtime.formats.compiled import check_fit
from runtime.formats.program import Program
from runtime.loader import LOADERS
from runtime.sample import Sample
from runtime.warmup import warm_up
from tests.process import ROOT
from tests.runtime.contract import ModelContract
from tests.runtime.models import MLP_BYTES, AsTuple, Both, InPlace, Minus, Mlp, load_from, put, save, tensor
from tests.runtime.package import PAIR, X

EXPORTED = "runtime.ExportedModel"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The folder of `Both`, compiled: by a process of its own, as all that a compiler needs stays where it was."""
    if shutil.which("g++") is None:
        pytest.skip("PyTorch compiles with g++, which is not here")
    folder = tmp_path_factory.mktemp("compiled") / "m"
    command = [sys.executable, "-m", "tests.runtime.package", str(folder)]
    compiler = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    assert compiler.returncode == 0, compiler.stderr
    return folder


def exported(root, module, example=X, *, rows=None, **settings):
    """The model of a new folder, in it a program exported by PyTorch's own means; no size is free without `rows`."""
    example = example if isinstance(example, dict) else {"x": example}
    sizes = {name: {0: rows} for name in example} if rows else None
    program = torch.export.export(module.eval(), (), example, dynamic_shapes=sizes)
    folder = put(root, "m", implementation=EXPORTED, **settings)
    torch.export.save(program, folder / "model.pt2")
    return load_from(root)


def same(name, *shape, datatype="FP32"):
    return [tensor(name, datatype, *(shape or (-1, 4)))]


def altered(folder: Path, root: Path, alter) -> Path:
    """A copy of a model folder whose archive's files went through `alter(name, data)`."""
    copied = shutil.copytree(folder, root / "m")
    (path,) = copied.glob("*.pt2")
    with zipfile.ZipFile(path) as archive:
        files = {name: alter(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return root


def with_metadata(**changes):
    def alter(name, data):
        return json.dumps({**json.loads(data), **changes}).encode() if name.endswith("_metadata.json") else data

    return alter


class TestExportedProgram(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return exported(folder, Mlp(), rows=Dim("batch", min=1))


class TestProgramThatNobodyExportedForOneRow(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return exported(folder, Mlp(), rows=Dim.DYNAMIC)


class TestProgramWithALimitedBatch(ModelContract):
    """Whose calls PyTorch checks one by one."""

    holds = MLP_BYTES

    def make(self, folder):
        return exported(folder, Mlp(), rows=Dim("batch", min=2, max=64))


class TestProgramWithTwoInputsAndOutputs(ModelContract):
    def make(self, folder):
        declared = {"inputs": same("b") + same("a"), "outputs": same("difference") + same("sum")}
        return exported(folder, Both(), PAIR, rows=Dim("batch", min=1), **declared)


class TestProgramThatWritesToItsInputs(ModelContract):
    def make(self, folder):
        return exported(folder, InPlace(), rows=Dim("batch", min=1), outputs=same("y"))


@pytest.mark.slow
class TestCompiledPackage(ModelContract):
    @pytest.fixture
    def model(self, compiled):
        model = load_from(compiled.parent)
        (path,) = compiled.glob("*.pt2")
        with zipfile.ZipFile(path) as archive:  # its code: there are no weights
            self.holds = sum(each.file_size for each in archive.infolist() if each.filename.endswith(".so"))
        yield model
        model.close()

    @pytest.fixture
    def own(self, model):
        return model


def test_it_computes_what_the_module_does(tmp_path):
    model = exported(tmp_path, Mlp(), rows=Dim("batch", min=1))
    with torch.no_grad():
        expected = Mlp()(X).numpy()
    np.testing.assert_allclose(model.run({"x": X.numpy()})["y"], expected, rtol=1e-6)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_inputs_go_by_the_names_of_the_arguments(tmp_path, names):
    declared = {"inputs": same(names[0]) + same(names[1]), "outputs": same("y")}
    model = exported(tmp_path, Minus(), PAIR, rows=Dim("batch", min=1), **declared)
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    assert model.run({"b": two, "a": one})["y"].tolist() == [[-1] * 4]


def test_inputs_go_by_order_where_no_name_is_an_arguments(tmp_path):
    declared = {"inputs": same("INPUT__0") + same("INPUT__1"), "outputs": same("y")}
    model = exported(tmp_path, Minus(), PAIR, rows=Dim("batch", min=1), **declared)
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    assert model.run({"INPUT__1": two, "INPUT__0": one})["y"].tolist() == [[-1] * 4]


@pytest.mark.parametrize("names", [["low", "high"], ["high", "low"]])
def test_outputs_without_names_go_by_order(tmp_path, names):
    declared = {"outputs": same(names[0]) + same(names[1])}
    outputs = exported(tmp_path, AsTuple(), rows=Dim("batch", min=1), **declared).run({"x": np.zeros((1, 4), "f4")})
    assert outputs[names[0]].tolist() == [[-1] * 4]
    assert outputs[names[1]].tolist() == [[1] * 4]


def test_some_outputs_of_a_dict_may_be_declared(tmp_path):
    declared = {"inputs": same("a") + same("b"), "outputs": same("difference")}
    model = exported(tmp_path, Both(), PAIR, rows=Dim("batch", min=1), **declared)
    assert list(model.run({"a": X.numpy(), "b": X.numpy()})) == ["difference"]


@pytest.mark.parametrize(
    ("known", "declared", "order"),
    [
        ([None, None], ["a", "b"], ["a", "b"]),
        ([None, "b"], ["b", "a"], ["a", "b"]),
        ([None, None, "c"], ["c", "b", "a"], ["b", "a", "c"]),
        (["x", "y"], ["a", "b"], ["a", "b"]),
    ],
)
def test_arguments_without_a_name_take_what_is_left_in_order(known, declared, order):
    """As in a package that was compiled with arguments by position."""
    assert Program(list, known, [None], writes=False, platform="").input_order(declared) == order


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES", "UINT16", "UINT32", "UINT64"}))
def test_datatypes_go_through(tmp_path, datatype):
    x = np.array([0, 1, 1], DATATYPES[datatype])
    sample = torch.zeros(3, dtype=torch.bfloat16) if datatype == "BF16" else torch.from_numpy(x)
    declared = {"inputs": same("x", -1, datatype=datatype), "outputs": same("y", -1, datatype=datatype)}

    class Flipped(nn.Module):
        def forward(self, x):
            return x.flip(0)

    y = exported(tmp_path, Flipped(), sample, rows=Dim("batch", min=1), max_batch_size=1, **declared).run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.tolist() == [1, 1, 0]


def test_a_fixed_number_of_rows_is_served_as_declared(tmp_path):
    model = exported(tmp_path, Mlp(), inputs=same("x", 2, 4), outputs=same("y", 2, 1))
    assert warm_up(model, max_rows=64)
    assert model.run({"x": X.numpy()})["y"].shape == (2, 1)


def test_more_rows_than_it_was_exported_for_are_refused(tmp_path):
    model = exported(tmp_path, Mlp(), rows=Dim("batch", max=4))
    assert len(model.run({"x": np.zeros((4, 4), "f4")})["y"]) == 4
    with pytest.raises(Internal, match=r"Guard failed: x.size\(\)\[0\] <= 4"):
        model.run({"x": np.zeros((5, 4), "f4")})
    with pytest.raises(FailedPrecondition, match=r"'x' FP32 \[64, 4\]: Guard failed"):
        warm_up(model, max_rows=64)


def test_sizes_that_must_agree_are_compared(tmp_path):
    class Weighted(nn.Module):
        def forward(self, x, w):
            return x @ w

    rows, width = Dim("rows", min=1), Dim("width", min=1)
    program = torch.export.export(
        Weighted(), (), {"x": X, "w": torch.ones(4, 1)}, dynamic_shapes={"x": {0: rows, 1: width}, "w": {0: width}}
    )
    declared = {"inputs": same("x", -1, -1) + same("w", -1, 1), "outputs": same("y", -1, 1), "max_batch_size": 1}
    folder = put(tmp_path, "m", implementation=EXPORTED, parameters={"extra": {"warm_up_size": 1}}, **declared)
    torch.export.save(program, folder / "model.pt2")
    model = load_from(tmp_path)
    assert model.run({"x": np.ones((2, 3), "f4"), "w": np.ones((3, 1), "f4")})["y"].tolist() == [[3], [3]]
    with pytest.raises(Internal, match="Guard failed"):
        model.run({"x": np.ones((2, 3), "f4"), "w": np.ones((1, 1), "f4")})


def test_a_closed_model_holds_nothing(tmp_path):
    model = exported(tmp_path, Mlp(), rows=Dim("batch", min=1))
    gc.collect()
    before = sum(issubclass(type(each), nn.Parameter) for each in gc.get_objects())
    model.close()
    gc.collect()
    assert sum(issubclass(type(each), nn.Parameter) for each in gc.get_objects()) < before


@pytest.mark.parametrize(
    ("module", "settings", "says"),
    [
        (Mlp(), {"inputs": None}, "inputs: none declared"),
        (Mlp(), {"inputs": same("x", datatype="BYTES")}, "inputs: 'x' is BYTES"),
        (Mlp(), {"inputs": same("x", datatype="FP64")}, "is declared FP64 [-1, 4]; the program takes FP32 [-1, 4]"),
        (Mlp(), {"inputs": same("x", -1, 5)}, "is declared FP32 [-1, 5]; the program takes FP32 [-1, 4]: declare that"),
        (Mlp(), {"inputs": same("x", -1)}, "is declared FP32 [-1]; the program takes FP32 [-1, 4]"),
        (Mlp(), {"inputs": same("x") + same("z")}, "inputs: 'x', 'z' declared; forward takes 'x'"),
        (Mlp(), {"outputs": same("y") + same("z")}, "outputs: 'y', 'z' declared; forward returns 1 tensors, known by"),
        (Mlp(), {"parameters": {"extra": {"device": "cuda:99"}}}, "'cuda:99' is not there; PyTorch sees"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(tmp_path, module, settings, says):
    with pytest.raises(FailedPrecondition) as refused:
        exported(tmp_path, module, rows=Dim("batch", min=1), **settings)
    assert str(tmp_path / "m") in refused.value.message
    assert says in refused.value.message
    assert "\n" not in refused.value.message


def test_a_program_for_so_many_rows_only_is_refused_where_any_are_declared(tmp_path):
    with pytest.raises(
        FailedPrecondition, match=r"is declared FP32 \[-1, 4\]; the program takes FP32 \[2, 4\]: declare"
    ):
        exported(tmp_path, Mlp())


class TakesNumber(nn.Module):
    def forward(self, x, n: int):
        return x * n


class Nested(nn.Module):
    def forward(self, x):
        return [x, [x]]


def test_arguments_and_results_that_are_no_tensors_are_refused(tmp_path):
    with pytest.raises(FailedPrecondition, match="exported with an argument that is 3; only tensors are served"):
        exported(tmp_path, TakesNumber(), {"x": X, "n": 3}, inputs=same("x") + same("n"))
    with pytest.raises(FailedPrecondition, match="forward returns tensors inside of lists or dicts"):
        exported(tmp_path, Nested())


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (put(tmp_path, "m", implementation=EXPORTED) / "model.pt2").write_bytes(content)
    with pytest.raises(FailedPrecondition, match=r"model\.pt2 is not a PyTorch archive: File is not a zip file"):
        load_from(tmp_path)


def test_several_are_loaded_at_once(tmp_path):
    exported(tmp_path, Mlp(), rows=Dim("batch", min=1))
    together = Barrier(LOADERS)

    def load_many():
        together.wait(60)
        return [load_from(tmp_path) for _ in range(10)]

    with ThreadPoolExecutor(LOADERS) as threads:
        loads = [threads.submit(load_many) for _ in range(LOADERS)]
        for model in [model for load in loads for model in load.result()]:
            assert model.run({"x": X.numpy()})["y"].shape == (2, 1)
            model.close()


class Factor(nn.Module):
    """Takes positive lengths and matrices that have a square root."""

    def forward(self, x, lengths):
        torch.ops.aten._assert_async.msg((lengths > 0).all(), "a length of nothing")
        return torch.linalg.cholesky(x) * lengths[:, None, None]


def test_a_program_that_takes_no_zeros_is_served_with_a_sample(tmp_path):
    example = {"x": torch.eye(2).expand(2, 2, 2).clone(), "lengths": torch.tensor([1, 2])}
    declared = {"inputs": same("x", -1, 2, 2) + same("lengths", -1, datatype="INT64"), "outputs": same("y", -1, 2, 2)}
    with pytest.raises(FailedPrecondition, match="the program does not take its declared inputs, "):
        exported(tmp_path, Factor(), example, rows=Dim("batch", min=1), **declared)
    inputs = {name: tensor.numpy() for name, tensor in example.items()}
    Sample(inputs, {"y": inputs["x"] * [[[1]], [[2]]]}).write(tmp_path / "m" / "warm-up.npz")
    with pytest.raises(FailedPrecondition, match="'outputs/y' is FP64"):
        load_from(tmp_path)
    Sample(inputs, {"y": inputs["x"] * np.array([[[1]], [[2]]], "f4")}).write(tmp_path / "m" / "warm-up.npz")
    model = load_from(tmp_path)
    assert warm_up(model, max_rows=8, sample=inputs)
    assert model.run(inputs)["y"].tolist() == [[[1, 0], [0, 1]], [[2, 0], [0, 2]]]


def test_other_archives_are_told_apart(tmp_path):
    folder = put(tmp_path, "m", implementation=EXPORTED)
    save(Mlp(), folder / "model.pt2")
    with pytest.raises(FailedPrecondition, match=r'is TorchScript: its implementation is "runtime.TorchScriptModel"'):
        load_from(tmp_path)
    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        archive.writestr("model/readme", "nothing of PyTorch's")
    with pytest.raises(FailedPrecondition, match="was exported by PyTorch an earlier version, and"):
        load_from(tmp_path)


def test_a_program_of_another_pytorch_is_refused_by_its_version(tmp_path):
    exported(tmp_path / "here", Mlp(), rows=Dim("batch", min=1))

    def alter(name, data):
        if not name.endswith("models/model.json"):
            return data
        told = json.loads(data)
        return json.dumps({**told, "torch_version": "1.2.3", "schema_version": {"major": 99, "minor": 0}}).encode()

    with pytest.raises(
        FailedPrecondition, match=r"was exported by PyTorch 1\.2\.3, and .* does not load it: .*version"
    ):
        load_from(altered(tmp_path / "here" / "m", tmp_path, alter))


def test_a_broken_program_of_this_pytorch_is_not_blamed_on_its_version(tmp_path):
    exported(tmp_path / "here", Mlp(), rows=Dim("batch", min=1))

    def alter(name, data):
        return json.dumps({**json.loads(data), "graph_module": {}}).encode() if name.endswith("model.json") else data

    with pytest.raises(FailedPrecondition, match=r"model\.pt2 does not load under PyTorch .*, which exported it: "):
        load_from(altered(tmp_path / "here" / "m", tmp_path, alter))


@pytest.mark.slow
def test_a_package_is_told_from_a_program_by_its_content(compiled):
    model = load_from(compiled.parent)
    assert model.platform == "pytorch_aotinductor"
    assert warm_up(model, max_rows=64)


@pytest.mark.slow
def test_a_package_knows_the_names_of_what_it_takes_and_returns(compiled, tmp_path):
    folder = shutil.copytree(compiled, tmp_path / "m")
    settings = json.loads((folder / "model-settings.json").read_text())
    settings["inputs"].reverse()
    settings["outputs"].reverse()
    (folder / "model-settings.json").write_text(json.dumps(settings))
    one, two = np.ones((1, 4), np.float32), np.full((1, 4), 2, np.float32)
    outputs = load_from(tmp_path).run({"b": two, "a": one})
    assert list(outputs) == ["difference", "sum"]
    assert outputs["difference"].tolist() == [[-1] * 4]


@pytest.mark.slow
def test_a_package_checks_what_it_is_given(compiled):
    """Without that it would read past the end of an array."""
    model = load_from(compiled.parent)
    good = X.numpy()
    for bad in (good[:, :3].copy(), good.astype(np.float64), good[:1]):
        with pytest.raises(Internal):
            model.run({"a": good, "b": bad})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"AOTI_MACHINE": "pdp11"}, f"was compiled for pdp11; this is {platform.machine()}"),
        ({"AOTI_PLATFORM": "beos"}, "was compiled for beos; this is linux"),
        ({"AOTI_DEVICE_KEY": "cuda"}, "was compiled for cuda; this is cpu"),
        ({"torch_version": "1.2.3"}, f"was compiled for PyTorch 1.2.3; this is PyTorch {torch.__version__}"),
        (
            {"AOTI_MACHINE": "pdp11", "AOTI_PLATFORM": "beos"},
            f"was compiled for beos and pdp11; this is linux and {platform.machine()}",
        ),
    ],
)
def test_a_package_that_does_not_fit_the_machine_is_refused(compiled, tmp_path, changes, says):
    with pytest.raises(FailedPrecondition) as refused:
        load_from(altered(compiled, tmp_path, with_metadata(**changes)))
    assert says in refused.value.message
    assert "compile it again here, or serve the exported program" in refused.value.message


@pytest.mark.slow
def test_a_package_for_another_gpu_is_refused(compiled, tmp_path, monkeypatch):
    """Told without one: what it can is what PyTorch says."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    changes = {"AOTI_DEVICE_KEY": "cuda", "AOTI_COMPUTE_CAPABILITY": "90"}
    (path,) = (altered(compiled, tmp_path, with_metadata(**changes)) / "m").glob("*.pt2")
    with pytest.raises(FailedPrecondition, match="compiled for compute capability 90; this is compute capability 80"):
        check_fit(path, torch.device("cuda:0"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("instructions", "lacks"), [("AVX512 AMX_TILE", "avx512_f, avx512_dq, avx512_bw, avx512_vl, amx_tile"), ("", "")]
)
def test_instructions_that_the_processor_lacks_are_named(compiled, tmp_path, monkeypatch, instructions, lacks):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    root = altered(compiled, tmp_path, with_metadata(AOTI_CPU_ISA=instructions))
    if not lacks:
        load_from(root).close()
        return
    with pytest.raises(FailedPrecondition, match=f"compiled for {instructions}; this is a processor without {lacks};"):
        load_from(root)


@pytest.mark.slow
def test_a_package_of_another_pytorch_is_refused_by_what_it_misses(compiled, tmp_path):
    """One that does not say its version, as PyTorch leaves that out."""

    def alter(name, data):
        if name.endswith("_metadata.json"):
            return json.dumps({key: each for key, each in json.loads(data).items() if key != "torch_version"}).encode()
        return data.replace(b"aoti_torch_empty_strided", b"aoti_torch_empty_strideX")

    with pytest.raises(FailedPrecondition) as refused:
        load_from(altered(compiled, tmp_path, alter))
    assert f"does not load under PyTorch {torch.__version__}: undefined symbol: aoti_torch" in refused.value.message


@pytest.mark.slow
def test_a_package_of_several_models_is_refused(compiled, tmp_path):
    root = altered(compiled, tmp_path, lambda _name, data: data)
    (path,) = (root / "m").glob("*.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("model.aoti/data/aotinductor/other/x.so", b"")
    with pytest.raises(FailedPrecondition, match="holds the models 'model', 'other'; package each by itself"):
        load_from(root)


@pytest.mark.slow
def test_a_package_takes_as_many_threads_as_it_is_given(compiled):
    """And not as many as the machine had on which it was compiled."""
    (path,) = compiled.glob("*.pt2")
    with zipfile.ZipFile(path) as archive:
        sources = [archive.read(name) for name in archive.namelist() if name.endswith(".cpp")]
    assert any(b"#pragma omp parallel" in source for source in sources)
    assert not any(b"num_threads(" in source for source in sources)


@pytest.mark.slow
def test_a_package_leaves_no_files_behind(compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = load_from(compiled.parent)
    assert list(tmp_path.iterdir())
    model.close()
    gc.collect()
    assert not list(tmp_path.iterdir())
