from __future__ import annotations

import gc
import warnings
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import torch

from protos.errors import FailedPrecondition, Internal
from protos.tensors import DATATYPES
from runtime.formats import load
from runtime.repository import Repository
from tests.runtime.contract import ModelContract
from tests.runtime.models import (
    MLP_BYTES,
    AsDict,
    AsPair,
    AsTuple,
    Choosy,
    InPlace,
    Minus,
    Mlp,
    Times,
    put,
    save,
    tensor,
)


def loaded(root, module, **settings):
    """The model of a new folder."""
    put(root, "m", module, **settings)
    (found,) = Repository(root).find("m")
    assert found.settings, found.reason
    return load(found.settings, found.folder)


def same(name="x", *shape, datatype="FP32"):
    return [tensor(name, datatype, *(shape or (-1, 2)))]


class TestTorchScriptModel(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return loaded(folder, Mlp())


class TestModelWithTwoInputsAndOutputs(ModelContract):
    def make(self, folder):
        class Both(torch.nn.Module):
            def forward(self, a, b):
                return {"sum": a + b, "difference": a - b}

        declared = {"inputs": same("a") + same("b"), "outputs": same("sum") + same("difference")}
        return loaded(folder, Both(), **declared)


class TestModelThatWritesToItsInputs(ModelContract):
    def make(self, folder):
        return loaded(folder, InPlace(), inputs=same(), outputs=same("y"))


def test_it_computes_what_the_module_does(tmp_path):
    x = np.random.default_rng(0).random((3, 4), np.float32)
    with torch.no_grad():
        expected = Mlp()(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(loaded(tmp_path, Mlp()).run({"x": x})["y"], expected)


def test_a_result_is_not_copied_on_its_way(tmp_path):
    model = loaded(tmp_path, torch.nn.Identity(), inputs=same("input"), outputs=same("y"))
    x = np.ones((3, 2), np.float32)
    assert np.shares_memory(model.run({"input": x})["y"], x)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_inputs_go_by_the_names_of_the_arguments(tmp_path, names):
    model = loaded(tmp_path, Minus(), inputs=same(names[0]) + same(names[1]), outputs=same("y"))
    one, two = np.ones((1, 2), np.float32), np.full((1, 2), 2, np.float32)
    assert model.run({"b": two, "a": one})["y"].tolist() == [[-1, -1]]


def test_inputs_go_by_order_where_no_name_is_an_arguments(tmp_path):
    model = loaded(tmp_path, Minus(), inputs=same("INPUT__0") + same("INPUT__1"), outputs=same("y"))
    one, two = np.ones((1, 2), np.float32), np.full((1, 2), 2, np.float32)
    assert model.run({"INPUT__1": two, "INPUT__0": one})["y"].tolist() == [[-1, -1]]


def test_an_argument_with_a_default_may_be_left_out(tmp_path):
    class Scaled(torch.nn.Module):
        def forward(self, x, by: float = 3.0):
            return x * by

    model = loaded(tmp_path, Scaled(), inputs=same(), outputs=same("y"))
    assert model.run({"x": np.ones((1, 2), np.float32)})["y"].tolist() == [[3, 3]]


@pytest.mark.parametrize("module", [AsTuple, AsDict, AsPair])
@pytest.mark.parametrize("names", [["low", "high"], ["high", "low"]])
def test_outputs_go_by_name_where_there_are_names(tmp_path, module, names):
    model = loaded(tmp_path, module(), inputs=same(), outputs=same(names[0]) + same(names[1]))
    outputs = model.run({"x": np.zeros((1, 2), np.float32)})
    assert list(outputs) == names
    first = -1 if module is AsTuple or names[0] == "low" else 1
    assert outputs[names[0]].tolist() == [[first, first]]
    assert outputs[names[1]].tolist() == [[-first, -first]]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BYTES"}))
def test_every_datatype_but_bytes_goes_through(tmp_path, datatype):
    model = loaded(
        tmp_path, torch.nn.Identity(), inputs=same("x", -1, datatype=datatype), outputs=same("y", -1, datatype=datatype)
    )
    x = np.array([0, 1, 1], DATATYPES[datatype])
    y = model.run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist()


def test_half_precisions_are_computed_in(tmp_path):
    for datatype, dtype in (("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)):
        declared = {"inputs": same("x", -1, datatype=datatype), "outputs": same("y", -1, datatype=datatype)}
        y = loaded(tmp_path, Times(1.5), **declared).run({"x": np.array([3], dtype)})["y"]
        assert y.dtype == dtype
        assert y.tolist() == [4.5]


def test_unaligned_bytes_are_taken(tmp_path):
    """PyTorch's kernels may take alignment for granted."""
    model = loaded(tmp_path, torch.nn.Identity(), inputs=same("input", -1), outputs=same("y", -1))
    x = np.frombuffer(bytes(1) + np.arange(3, dtype=np.float32).tobytes(), np.float32, offset=1)
    assert not x.flags.aligned
    y = model.run({"input": x})["y"]
    assert y.tolist() == [0, 1, 2]
    assert y.flags.aligned


def test_an_archive_in_training_is_served_as_one_that_is_not(tmp_path):
    module = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(2))
    put(tmp_path, "m", inputs=same("input"), outputs=same("y"))
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.script(module.train()).save(tmp_path / "m" / "model.pt")
    (found,) = Repository(tmp_path).find("m")
    assert found.settings
    x = np.random.default_rng(0).random((2, 2), np.float32)
    np.testing.assert_allclose(load(found.settings, found.folder).run({"input": x})["y"], x, rtol=1e-4)


def test_loading_and_running_warn_of_nothing(tmp_path):
    """That the format is deprecated and that a request's bytes are read-only is no news to an operator."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        x = np.zeros((1, 4), np.float32)
        x.setflags(write=False)
        loaded(tmp_path, Mlp()).run({"x": x})
    assert [str(warning.message) for warning in told] == []


def test_what_pytorch_says_about_a_run_is_said_in_one_line(tmp_path):
    model = loaded(tmp_path, Choosy(), inputs=same(), outputs=same("y"))
    with pytest.raises(Internal) as failed:
        model.run({"x": np.full((1, 2), 2, np.float32)})
    assert failed.value.message == "builtins.ValueError: too large"
    with pytest.raises(Internal) as failed:
        loaded(tmp_path, Mlp()).run({"x": np.zeros((1, 3), np.float32)})
    assert failed.value.message == "RuntimeError: mat1 and mat2 shapes cannot be multiplied (1x3 and 4x8)"


def test_a_closed_model_says_so_and_holds_nothing(tmp_path):
    model = loaded(tmp_path, Mlp())
    model.close()
    with pytest.raises(Internal, match="closed"):
        model.run({"x": np.zeros((1, 4), np.float32)})
    gc.collect()  # by type: in a long run there are dead weak references, which are not to be asked
    assert not [each for each in gc.get_objects() if issubclass(type(each), torch.jit.ScriptModule)]


class NoForward(torch.nn.Module):
    @torch.jit.export
    def predict(self, x):
        return x


class TakesNumber(torch.nn.Module):
    def forward(self, x, n: int):
        return x * n


@pytest.mark.parametrize(
    ("module", "settings", "says"),
    [
        (b"junk", {}, "model.pt is not a TorchScript archive: PytorchStreamReader failed reading zip archive"),
        (b"", {}, "model.pt is not a TorchScript archive"),
        (None, {}, "has no model.pt or model.pth"),
        (NoForward(), {}, "the archive has no forward method"),
        (Mlp(), {"inputs": None}, "inputs: none declared"),
        (Mlp(), {"outputs": []}, "outputs: none declared"),
        (Mlp(), {"inputs": same("x", -1, datatype="BYTES")}, "inputs: 'x' is BYTES"),
        (Minus(), {"inputs": same("a") + same("c")}, "inputs: 'a', 'c' declared; forward takes 'a', 'b'"),
        (Minus(), {"inputs": same("x")}, "inputs: 'x' declared; forward takes 'a', 'b'"),
        (Mlp(), {"inputs": same("x") + same("y")}, "inputs: 'x', 'y' declared; forward takes 'x'"),
        (TakesNumber(), {"inputs": same("x") + same("n")}, "forward's 'n' is int; only tensors are served"),
        (Mlp(), {"parameters": {"extra": {"device": "gpu"}}}, "parameters.extra.device: 'gpu' is no device"),
        (Mlp(), {"parameters": {"extra": {"device": "meta"}}}, "'meta' is not supported; use cpu, cuda or cuda:N"),
        (Mlp(), {"parameters": {"extra": {"device": "cuda:99"}}}, "'cuda:99' is not there; PyTorch sees"),
        (Mlp(), {"implementation": "runtime.Mine"}, "runtime.Ensemble, runtime.Chain, and a class of your"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_sentence(tmp_path, module, settings, says):
    with pytest.raises(FailedPrecondition) as refused:
        loaded(tmp_path, module, **settings)
    assert str(tmp_path / "m") in refused.value.message
    assert says in refused.value.message
    assert "\n" not in refused.value.message


def save_program(path):
    # Not by its path, as torch.export complains of one that ends otherwise.
    with path.open("wb") as file:
        torch.export.save(torch.export.export(Mlp(), (torch.zeros(2, 4),)), file)


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (lambda path: torch.save(Mlp().state_dict(), path), r"it is torch.save's, .* croupier export"),
        (lambda path: torch.save(Mlp(), path), r"it is torch.save's, .* croupier export"),
        (save_program, r"it is torch.export's; call it model.pt2, .*runtime.ExportedModel"),
    ],
)
def test_another_file_of_pytorch_is_called_by_its_name(tmp_path, write, says):
    put(tmp_path, "m")
    write(tmp_path / "m" / "model.pt")
    (found,) = Repository(tmp_path).find("m")
    assert found.settings
    with pytest.raises(FailedPrecondition, match=f"model.pt is not a TorchScript archive: {says}"):
        load(found.settings, found.folder)


def test_each_model_runs_with_the_threads_it_asks_for(tmp_path):
    """In whichever thread it runs: OpenMP keeps the number by thread."""
    one, two = loaded(tmp_path, Mlp()), loaded(tmp_path, Mlp(), parameters={"extra": {"threads": "2"}})
    x = {"x": np.zeros((1, 4), np.float32)}

    def threads_after(model) -> int:
        model.run(x)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as elsewhere:
        for model, threads in ((one, 1), (two, 2), (one, 1)):
            assert threads_after(model) == threads
            assert elsewhere.submit(threads_after, model).result() == threads


def test_what_other_code_sets_does_not_last(tmp_path):
    model = loaded(tmp_path, Mlp())
    x = {"x": np.zeros((1, 4), np.float32)}
    model.run(x)
    torch.set_num_threads(2)
    model.run(x)
    assert torch.get_num_threads() == 1


def test_a_model_with_more_threads_does_not_change_another_threads_number(tmp_path):
    """A thread that never asked PyTorch for its number would take over the last one set anywhere."""
    one, two = loaded(tmp_path, Mlp()), loaded(tmp_path, Mlp(), parameters={"extra": {"threads": "2"}})
    x = {"x": np.zeros((1, 4), np.float32)}
    with ThreadPoolExecutor(1) as elsewhere:
        elsewhere.submit(one.run, x).result()
        two.run(x)
        assert elsewhere.submit(torch.get_num_threads).result() == 1
    one.run(x)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestOnGpu(ModelContract):
    holds = MLP_BYTES

    def make(self, folder):
        return loaded(folder, Mlp(), parameters={"extra": {"device": "cuda"}})


def test_a_model_file_may_lie_elsewhere(tmp_path):
    save(Mlp(), tmp_path / "net.pt")
    model = loaded(tmp_path, None, parameters={"uri": "../net.pt"})
    assert model.run({"x": np.zeros((2, 4), np.float32)})["y"].shape == (2, 1)
