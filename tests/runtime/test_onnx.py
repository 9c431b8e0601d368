from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from protos.errors import FailedPrecondition, Internal, InvalidArgument
from protos.tensors import DATATYPES
from runtime.formats.onnx_weights import weights_of
from runtime.model import TensorSpec
from runtime.warmup import warm_up
from tests.runtime.contract import ModelContract
from tests.runtime.models import load_from, put, tensor

ELEMENTS = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def graph(nodes, inputs, outputs, weights=()) -> bytes:
    """A model of nodes `(operator, inputs, outputs)`; tensors are `name: (datatype, *shape)`."""
    takes, returns = (
        [helper.make_tensor_value_info(name, ELEMENTS[datatype], shape) for name, (datatype, *shape) in each.items()]
        for each in (inputs, outputs)
    )
    initial = [numpy_helper.from_array(array, name) for name, array in dict(weights).items()]
    made = helper.make_graph([helper.make_node(*node) for node in nodes], "graph", takes, returns, initial)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


def mlp() -> bytes:
    """y = a network of x [n, 4] -> [n, 1]."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((4, 8), np.float32), "v": rng.standard_normal((8, 1), np.float32)}
    nodes = [("MatMul", ["x", "w"], ["h"]), ("Tanh", ["h"], ["a"]), ("MatMul", ["a", "v"], ["y"])]
    return graph(nodes, {"x": ("FP32", "n", 4)}, {"y": ("FP32", "n", 1)}, weights)


def both() -> bytes:
    """Two inputs and two outputs."""
    same = ("FP32", "n", 2)
    nodes = [("Add", ["a", "b"], ["sum"]), ("Sub", ["a", "b"], ["difference"])]
    return graph(nodes, {"a": same, "b": same}, {"sum": same, "difference": same})


def identity(datatype, *shape) -> bytes:
    return graph([("Identity", ["x"], ["y"])], {"x": (datatype, *shape)}, {"y": (datatype, *shape)})


def loaded(root, content, **settings):
    """The model of a new folder; its tensors are the file's unless the settings declare some."""
    settings = {"inputs": None, "outputs": None, **settings}
    folder = put(root, "m", implementation="runtime.OnnxModel", **settings)
    (folder / "model.onnx").write_bytes(content)
    return load_from(root)


def same(name, *shape, datatype="FP32"):
    return [tensor(name, datatype, *(shape or (-1, 2)))]


class TestOnnxModel(ModelContract):
    holds = 4 * (4 * 8 + 8)

    def make(self, folder):
        return loaded(folder, mlp())


class TestOnnxModelWithTwoInputsAndOutputs(ModelContract):
    def make(self, folder):
        return loaded(folder, both(), inputs=same("b") + same("a"), outputs=same("difference") + same("sum"))


class TestOnnxModelWithTwoThreads(ModelContract):
    holds = 4 * (4 * 8 + 8)

    def make(self, folder):
        return loaded(folder, mlp(), parameters={"extra": {"threads": "2"}})


def test_the_file_says_what_it_takes_and_returns(tmp_path):
    model = loaded(tmp_path, mlp())
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 4)),)
    assert model.outputs == (TensorSpec("y", "FP32", (-1, 1)),)
    assert model.platform == "onnxruntime_onnx"
    assert warm_up(model, max_rows=8)


def test_the_weights_are_told_wherever_and_however_they_are_kept(tmp_path):
    """As raw bytes, as numbers, in a file of their own, as constants between the operators; text has no size."""
    raw = numpy_helper.from_array(np.ones((3, 5), np.float32), "raw")
    typed = helper.make_tensor("typed", TensorProto.DOUBLE, [2, 2], [1.0, 2.0, 3.0, 4.0])
    scalar = helper.make_tensor("scalar", TensorProto.INT64, [], [7])
    text = numpy_helper.from_array(np.array(["text"], np.object_), "text")
    apart = numpy_helper.from_array(np.ones(1000, np.float16), "apart")
    external_data_helper.set_external_data(apart, "weights.bin")
    apart.ClearField("raw_data")
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(9, np.uint8)))
    made = helper.make_model(helper.make_graph([constant], "graph", [], [], [raw, typed, scalar, text, apart]))
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    assert weights_of(tmp_path / "model.onnx") == 3 * 5 * 4 + 4 * 8 + 8 + 1000 * 2 + 9


def test_tensors_go_by_name(tmp_path):
    model = loaded(tmp_path, both())
    one, two = np.ones((1, 2), np.float32), np.full((1, 2), 2, np.float32)
    outputs = model.run({"b": two, "a": one})
    assert outputs["sum"].tolist() == [[3, 3]]
    assert outputs["difference"].tolist() == [[-1, -1]]


def test_only_declared_outputs_are_computed(tmp_path):
    model = loaded(tmp_path, both(), outputs=same("difference"))
    assert list(model.run({name: np.ones((1, 2), np.float32) for name in "ab"})) == ["difference"]


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"BF16"}))
def test_every_datatype_but_bfloat16_goes_through(tmp_path, datatype):
    model = loaded(tmp_path, identity(datatype, "n"))
    assert model.inputs[0].datatype == datatype
    x = np.array([b"a", "é".encode(), b""] if datatype == "BYTES" else [0, 1, 1], DATATYPES[datatype])
    y = model.run({"x": x})["y"]
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist()


def test_text_keeps_its_shape_and_passes_the_warm_up(tmp_path):
    model = loaded(tmp_path, identity("BYTES", "n", 2))
    x = np.array([[b"a", b"b"], [b"c", b"d"]], np.object_)
    assert model.run({"x": x})["y"].tolist() == x.tolist()
    assert warm_up(model, max_rows=4)


def test_text_that_is_not_utf8_is_the_callers_fault(tmp_path):
    with pytest.raises(InvalidArgument, match="input 'x' is not UTF-8, which ONNX's strings are"):
        loaded(tmp_path, identity("BYTES", "n")).run({"x": np.array([b"\xff"], np.object_)})


def test_what_the_runtime_says_about_a_run_is_said_in_one_line(tmp_path):
    model = loaded(tmp_path, mlp())
    with pytest.raises(Internal) as failed:
        model.run({"x": np.zeros((1, 3), np.float32)})
    assert failed.value.message.startswith("Got invalid dimensions for input: x")
    assert "\n" not in failed.value.message


def test_each_size_that_is_fixed_is_served_as_fixed(tmp_path):
    model = loaded(tmp_path, identity("FP32", 1, 2))
    assert model.inputs[0].shape == (1, 2)
    assert warm_up(model, max_rows=64)


def test_a_graph_without_shapes_takes_the_declared_ones(tmp_path):
    unshaped = onnx.load_from_string(identity("FP32", "n", 2))
    unshaped.graph.output[0].type.tensor_type.ClearField("shape")
    model = loaded(tmp_path, unshaped.SerializeToString(), inputs=same("x"), outputs=same("y"))
    assert model.run({"x": np.ones((3, 2), np.float32)})["y"].shape == (3, 2)


def sequence() -> bytes:
    """A classifier of scikit-learn's returns such a thing, unless it is told not to."""
    made = onnx.load_from_string(identity("FP32", "n", 2))
    made.graph.node.append(helper.make_node("SequenceConstruct", ["x"], ["all"]))
    made.graph.output.append(helper.make_tensor_sequence_value_info("all", TensorProto.FLOAT, ["n", 2]))
    return made.SerializeToString()


def test_outputs_that_are_no_tensors_may_be_left_out(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"outputs: 'all' is a seq\(tensor\(float\)\), which is not served"):
        loaded(tmp_path, sequence())
    assert loaded(tmp_path, sequence(), outputs=same("y")).run({"x": np.ones((1, 2), np.float32)}).keys() == {"y"}


@pytest.mark.parametrize(
    ("content", "settings", "says"),
    [
        (b"junk", {}, "model.onnx is not an ONNX model: "),
        (b"", {}, "model.onnx is not an ONNX model: "),
        (mlp(), {"inputs": same("z", -1, 4)}, "inputs: 'z' declared; the file has 'x'"),
        (mlp(), {"outputs": same("z", -1, 1)}, "outputs: 'z' declared; the file has 'y'"),
        (both(), {"inputs": same("a")}, "inputs: 'a' declared; the file has 'a', 'b'"),
        (
            mlp(),
            {"inputs": same("x", -1, 4, datatype="FP64")},
            "'x' is declared FP64 [-1, 4]; the file has FP32 [-1, 4]",
        ),
        (mlp(), {"inputs": same("x", -1, 5)}, "'x' is declared FP32 [-1, 5]; the file has FP32 [-1, 4]: declare that"),
        (mlp(), {"inputs": same("x", -1)}, "'x' is declared FP32 [-1]; the file has FP32 [-1, 4]"),
        (identity("FP32", 1, 2), {"inputs": same("x")}, "'x' is declared FP32 [-1, 2]; the file has FP32 [1, 2]"),
        (identity("BF16", "n"), {}, "inputs: 'x' is a tensor(bfloat16), which is not served"),
        (mlp(), {"parameters": {"extra": {"device": "gpu"}}}, "'gpu' is no device; use cpu, cuda or cuda:N"),
        (mlp(), {"parameters": {"extra": {"device": "cuda:1"}}}, "'cuda:1' is not there for ONNX Runtime"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_sentence(tmp_path, content, settings, says):
    with pytest.raises(FailedPrecondition) as refused:
        loaded(tmp_path, content, **settings)
    assert str(tmp_path / "m") in refused.value.message
    assert says in refused.value.message
    assert "\n" not in refused.value.message


def test_without_onnx_runtime_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "runtime.formats.onnx", raising=False)
    with pytest.raises(FailedPrecondition, match=r"pip install 'croupier\[onnx\]'"):
        loaded(tmp_path, mlp())
