"""Explanations: that they are right, what is refused, and that they leave other requests alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

import grpc
import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor, nn
from torch.export import Dim

from protos.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, ResourceExhausted
from protos.infer_json import parameters_of
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from protos.v2 import SERVICE
from runtime import formats
from runtime.explain import Question
from runtime.explained import NICENESS, Explained
from runtime.finance.features import NAMES, WINDOW
from runtime.finance.networks import Recurrent
from runtime.formats.program import Program
from runtime.metrics import Metrics, ModelMetrics
from runtime.options import ExplainOptions, FormatOptions
from runtime.prepare import prepare
from runtime.repository import Repository
from runtime.sample import FILE, Sample
from tests import plain_http
from tests.process import ROOT, Runtime
from tests.runtime.models import AsDict, Both, Centred, InPlace, Mlp, Times, Total, put, tensor
from tests.runtime.test_engine import request, running

pytest.importorskip("captum")

RNG = np.random.default_rng(0)
WINDOWS = {"inputs": [tensor("window", "FP32", -1, WINDOW, len(NAMES))], "outputs": [tensor("logit", "FP32", -1, 1)]}
ROUNDING = 1e-5  # of a sum of FP32 in the order of 1


class Linear(nn.Module):
    """y = x @ [1, 2, 3, 4] + 5."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + 5


class Logarithm(nn.Module):
    """Which zero has none of."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x)


class Product(nn.Module):
    """a * b, and what needs only one of them, or neither, or is no number to differentiate."""

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        product = a * b
        return {
            "product": product,
            "only_a": a[:, 0],
            "sign": torch.sign(product).to(torch.int64),
            "step": (a > 0).float(),
        }


class Chosen(nn.Module):
    """x by a factor that an integer chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = nn.Embedding.from_pretrained(torch.tensor([[1.0], [10.0], [100.0]]))

    def forward(self, x: Tensor, which: Tensor) -> Tensor:
        chosen: Tensor = x * self.factors(which)
        return chosen


def prepared(root, module, *, explain=True, extra=None, **settings):
    """A model and what explains it, as a server has them."""
    put(root, "m", module, parameters={"extra": {"explain": explain, **(extra or {})}}, **settings)
    return prepared_from(root)


def prepared_from(root):
    (found,) = Repository(root).find("m")
    if found.settings is None:
        raise FailedPrecondition(found.reason)
    return prepare(formats.load_any, found.settings, found.folder)


def explained(made, output="y", place=(0,), steps=50, **arrays):
    return made.explainer.explain(arrays, Question(output, place, steps), lambda: None)


def summed(told):
    """The attributions of each row."""
    parts = [a for name, a in told.items() if name not in {"explain.baseline", "explain.delta"}]
    return sum(part.reshape(len(part), -1).sum(1, dtype=np.float64) for part in parts)


def normal(*shape, dtype=np.float32):
    return RNG.normal(size=shape).astype(dtype)


# ------------------------------------------------------------------------------------------------- what they say


def test_of_a_linear_model_they_are_weights_times_distances_from_the_baseline(tmp_path):
    made = prepared(tmp_path, Linear(), explain={"baseline": {"x": [1, 0, -1, 0.5]}})
    x = normal(3, 4)
    told = explained(made, x=x)
    np.testing.assert_allclose(told["explain.x"], (x - [1, 0, -1, 0.5]) * [1, 2, 3, 4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(told["explain.baseline"], [5.0] * 3)  # 1 - 3 + 2 + 5
    np.testing.assert_allclose(told["explain.delta"], 0, atol=ROUNDING)
    assert {name: (a.dtype, a.shape) for name, a in told.items()} == {
        "explain.x": (np.float32, (3, 4)),
        "explain.baseline": (np.float64, (3,)),
        "explain.delta": (np.float64, (3,)),
    }


def test_a_model_without_an_answer_to_zero_is_explained_from_elsewhere(tmp_path):
    shapes = {"inputs": [tensor("x", "FP32", -1, 1)], "outputs": [tensor("y", "FP32", -1, 1)]}
    told = explained(
        prepared(tmp_path, Logarithm(), explain={"baseline": {"x": 1}}, **shapes), x=np.full((1, 1), 2, "f4")
    )
    np.testing.assert_allclose(told["explain.x"], [[np.log(2)]], rtol=1e-4)


def test_two_factors_share_their_product(tmp_path):
    """Known exactly: from zero, half of a product is due to each of its factors."""
    ab = [tensor("a", "FP32", -1, 2), tensor("b", "FP32", -1, 2)]
    outputs = [tensor("product", "FP32", -1, 2)]
    made = prepared(tmp_path, Product(), inputs=ab, outputs=outputs)
    a, b = normal(4, 2), normal(4, 2)
    told = explained(made, "product", (1,), a=a, b=b)
    for name in ("explain.a", "explain.b"):
        np.testing.assert_allclose(told[name], np.stack([0 * a[:, 1], a[:, 1] * b[:, 1] / 2], 1), rtol=1e-4, atol=1e-6)


def test_an_input_that_a_target_does_not_need_is_due_nothing(tmp_path):
    ab = [tensor("a", "FP32", -1, 2), tensor("b", "FP32", -1, 2)]
    made = prepared(tmp_path, Product(), inputs=ab, outputs=[tensor("only_a", "FP32", -1)])
    told = explained(made, "only_a", (), a=normal(2, 2), b=normal(2, 2))
    np.testing.assert_array_equal(told["explain.b"], np.zeros((2, 2)))


def test_of_a_network_they_add_up_to_its_answer_and_the_delta_says_how_well(tmp_path):
    """Tolerances: 0.02 after 50 steps, 0.002 after 500; the delta is exact but for rounding."""
    made = prepared(tmp_path, Mlp(), explain={"baseline": {"x": 0.5}})
    x = normal(16, 4)
    with torch.no_grad():
        answer, at_baseline = (Mlp()(torch.from_numpy(each)).numpy()[:, 0] for each in (x, np.full_like(x, 0.5)))
    for steps, tolerance in ((50, 0.02), (500, 0.002)):
        told = explained(made, steps=steps, x=x)
        np.testing.assert_allclose(told["explain.baseline"], at_baseline, atol=ROUNDING)
        np.testing.assert_allclose(summed(told), answer - at_baseline, atol=tolerance)
        np.testing.assert_allclose(summed(told) - (answer - at_baseline), told["explain.delta"], atol=ROUNDING)


def test_of_an_lstm_over_days_they_add_up_and_no_row_depends_on_another(tmp_path):
    """More rows than a run may have, too."""
    torch.manual_seed(0)
    network = Recurrent().eval()
    made = prepared(tmp_path, network, max_batch_size=4, **WINDOWS)
    window = normal(6, WINDOW, len(NAMES))
    told = explained(made, "logit", window=window)
    assert told["explain.window"].shape == window.shape
    with torch.no_grad():
        difference = network(torch.from_numpy(window)) - network(torch.zeros(window.shape))
    np.testing.assert_allclose(summed(told), difference.numpy()[:, 0], atol=1e-3)
    for row in range(6):
        alone = explained(made, "logit", window=window[row : row + 1])
        for name, array in alone.items():
            np.testing.assert_allclose(array, told[name][row : row + 1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rows", [Dim("batch", min=1), Dim("batch", min=2, max=64)], ids=["any rows", "2 to 64"])
def test_an_exported_program_is_explained_as_its_script(tmp_path, rows):
    script = prepared(tmp_path / "pt", Mlp())
    program = torch.export.export(Mlp().eval(), (), {"x": torch.zeros(2, 4)}, dynamic_shapes={"x": {0: rows}})
    folder = put(tmp_path / "pt2", "m", implementation="runtime.ExportedModel", parameters={"extra": {"explain": True}})
    torch.export.save(program, folder / "model.pt2")
    exported = prepared_from(tmp_path / "pt2")
    for x in (normal(1, 4), normal(5, 4)):
        ours, theirs = explained(exported, steps=65, x=x), explained(script, steps=65, x=x)
        for name, array in theirs.items():
            np.testing.assert_allclose(ours[name], array, atol=1e-6)


def test_an_integer_keeps_its_value_at_the_baseline_and_gets_no_attribution(tmp_path):
    inputs = [tensor("x", "FP32", -1, 1), tensor("which", "INT64", -1)]
    made = prepared(tmp_path, Chosen(), inputs=inputs)
    x, which = normal(200, 1), RNG.integers(0, 3, 200)
    told = explained(made, x=x, which=which)
    assert list(told) == ["explain.x", "explain.baseline", "explain.delta"]
    np.testing.assert_allclose(told["explain.x"][:, 0], x[:, 0] * 10.0**which, rtol=1e-5)


def test_a_model_that_writes_to_its_inputs_is_explained_all_the_same(tmp_path):
    made = prepared(tmp_path, InPlace(), inputs=[tensor("x", "FP32", -1, 2)], outputs=[tensor("y", "FP32", -1, 2)])
    x = normal(2, 2)
    before = x.copy()
    told = explained(made, place=(1,), x=x)
    np.testing.assert_allclose(told["explain.x"], x * [0, 1], rtol=1e-5)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("datatype", "dtype", "wide", "tolerance"),
    [("FP64", np.float64, np.float64, 1e-6), ("FP16", np.float16, np.float32, 0.02)],
)
def test_attributions_are_as_wide_as_their_input_and_no_narrower_than_fp32(tmp_path, datatype, dtype, wide, tolerance):
    made = prepared(
        tmp_path,
        Linear(torch.from_numpy(np.zeros(0, dtype)).dtype),
        inputs=[tensor("x", datatype, -1, 4)],
        outputs=[tensor("y", datatype, -1, 1)],
    )
    x = normal(2, 4, dtype=dtype)
    told = explained(made, x=x)
    assert told["explain.x"].dtype == wide
    np.testing.assert_allclose(told["explain.x"], x * np.array([1.0, 2, 3, 4]), rtol=tolerance, atol=tolerance)


def test_no_rows_have_no_explanations(tmp_path):
    told = explained(prepared(tmp_path, Mlp()), x=normal(0, 4))
    assert {name: a.shape for name, a in told.items()} == {
        "explain.x": (0, 4),
        "explain.baseline": (0,),
        "explain.delta": (0,),
    }


def test_what_is_not_a_number_explains_its_own_row_only(tmp_path):
    x = normal(3, 4)
    x[1, 2] = np.nan
    told = explained(prepared(tmp_path, Linear()), x=x)
    assert np.isnan(told["explain.delta"]).tolist() == [False, True, False]


def test_a_model_that_has_no_number_for_a_row_of_its_sample_is_explained(tmp_path):
    shapes = {"inputs": [tensor("x", "FP32", -1, 1)], "outputs": [tensor("y", "FP32", -1, 1)]}
    x = np.array([[2], [-1]], np.float32)
    put(tmp_path, "m", Logarithm(), parameters={"extra": {"explain": {"baseline": {"x": 1}}}}, **shapes)
    Sample({"x": x}, {"y": np.array([[np.log(2)], [np.nan]], np.float32)}).write(tmp_path / "m" / FILE)
    told = explained(prepared_from(tmp_path), x=x)
    assert np.isnan(told["explain.delta"]).tolist() == [False, True]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_lstm_on_a_gpu_is_explained_as_on_the_processor(tmp_path):
    torch.manual_seed(0)
    network = Recurrent().eval()
    window = normal(3, WINDOW, len(NAMES))
    here = explained(prepared(tmp_path / "cpu", network, **WINDOWS), "logit", window=window)
    there = explained(prepared(tmp_path / "gpu", network, extra={"device": "cuda"}, **WINDOWS), "logit", window=window)
    for name, array in here.items():
        np.testing.assert_allclose(there[name], array, rtol=1e-3, atol=1e-4)
    assert torch.backends.cudnn.enabled


# -------------------------------------------------------------------------------------- what is refused at a load


XY = {"inputs": [tensor("x", "FP32", -1, 2)], "outputs": [tensor("y", "FP32", -1, 2)]}


@pytest.mark.parametrize(
    ("module", "settings", "explain", "says"),
    [
        (Mlp(), {}, {"baseline": {"z": 1}}, r"baseline: 'z' is no floating-point input; those are 'x'"),
        (
            Mlp(),
            {},
            {"baseline": {"x": [1, 2]}},
            r"the baseline of input 'x' has shape \[2\], a row of the request \[4\]",
        ),
        (
            Mlp(),
            {},
            {"baseline": {"x": [[0] * 4] * 2}},
            r"baseline.x: it has the shape \[2, 4\]; it must fit a row, \[4\]",
        ),
        (Mlp(), {}, {"baseline": {"x": [[0], [1, 2]]}}, "baseline.x: it must be a number, or lists of numbers of one"),
        (
            Times(2),
            {"inputs": [tensor("x", "INT64", -1, 2)], "outputs": [tensor("y", "INT64", -1, 2)]},
            True,
            "no input is of floating point",
        ),
        (nn.Identity(), {"inputs": [tensor("x", "FP32", 2, 2)], "outputs": XY["outputs"]}, True, "'x' has none"),
        (Centred(), {**XY, "max_batch_size": 1}, True, "does not add up to the model's answer: a row depends"),
        (Total(), {**XY, "max_batch_size": 1}, True, "parameters.extra.explain: "),
        (
            AsDict(),
            {**XY, "outputs": [tensor("low", "FP32", -1, 2)], "inputs": [tensor("x", "FP32", -1, 2)]},
            {"steps": 50, "max_steps": 10},
            "explain.*steps: 50 is more than max_steps, 10",
        ),
        (Mlp(), {}, {"step": 5}, "explain.*unknown field `step`"),
        (
            Logarithm(),
            XY,
            True,
            r"explain: y\[0\] is -inf at the baseline, .*; set baseline to inputs that the model has",
        ),
    ],
)
def test_what_cannot_be_explained_is_not_served_as_if_it_could(tmp_path, module, settings, explain, says):
    put(tmp_path, "m", module, parameters={"extra": {"explain": explain}}, **settings)
    with pytest.raises(FailedPrecondition, match=says):
        prepared_from(tmp_path)


def test_steps_without_gradients_are_refused(tmp_path):
    ab = [tensor("a", "FP32", -1, 2), tensor("b", "FP32", -1, 2)]
    with pytest.raises(FailedPrecondition, match=r"explain: .*step\[0\] has no gradients: it goes by steps"):
        prepared(
            tmp_path, Product(), inputs=ab, outputs=[tensor("step", "FP32", -1, 2), tensor("sign", "INT64", -1, 2)]
        )


def test_an_output_of_the_model_and_one_of_the_explanation_need_two_names(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"two outputs would be named 'explain.x'; rename"):
        prepared(tmp_path, Mlp(), outputs=[tensor("explain.x", "FP32", -1, 1)])


def test_a_model_without_gradients_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, kind, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", ends[:1], ends[1:])
    folder = put(
        tmp_path,
        "m",
        implementation="runtime.OnnxModel",
        parameters={"extra": {"explain": True}},
        inputs=[],
        outputs=[],
    )
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(
        FailedPrecondition, match=r"model-settings.json: parameters.extra.explain: onnxruntime_onnx has no"
    ):
        prepared_from(tmp_path)


def test_a_compiled_package_is_refused_and_what_is_right_is_said(tmp_path, monkeypatch):
    compiled = Program(
        run=lambda tensors: [tensors[0].sum(1, keepdim=True)],
        inputs=["x"],
        outputs=[None],
        writes=False,
        platform="pytorch_aotinductor",
    )
    monkeypatch.setattr("runtime.formats.exported._program", lambda *_: compiled)
    folder = put(tmp_path, "m", implementation="runtime.ExportedModel", parameters={"extra": {"explain": True}})
    (folder / "model.pt2").write_bytes(b"")
    with pytest.raises(FailedPrecondition, match="a compiled package has no gradients; serve the exported program"):
        prepared_from(tmp_path)


def test_without_captum_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.delitem(sys.modules, "runtime.formats.integrated_gradients", raising=False)
    with pytest.raises(FailedPrecondition, match=r"explanations need Captum: pip install 'croupier\[explain\]'"):
        prepared(tmp_path, Mlp())


def test_what_nobody_asked_for_is_not_imported(tmp_path):
    put(tmp_path, "m", Mlp())
    load = (
        "import sys; from tests.runtime.models import load_from; from pathlib import Path; load_from(Path(sys.argv[1]))"
    )
    check = "assert 'torch' in sys.modules; assert not {'captum', 'matplotlib'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", f"{load}; {check}", tmp_path], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (True, ExplainOptions()),
        ("true", ExplainOptions()),
        ({}, ExplainOptions()),
        ({"steps": "20", "max_rows": "4"}, ExplainOptions(steps=20, max_rows=4)),
        (False, None),
        ("false", None),
        (None, None),
    ],
)
def test_settings_turn_them_on(tmp_path, told, meant):
    """As strings too, as Seldon's agent writes them."""
    put(tmp_path, "m", parameters={"extra": {"explain": told}})
    (found,) = Repository(tmp_path).find("m")
    assert found.settings
    assert found.settings.options.explained == meant


def test_they_are_off_unless_settings_say_otherwise(tmp_path):
    put(tmp_path, "m", Mlp())
    assert prepared_from(tmp_path).explainer is None


# ------------------------------------------------------------------------------------------------- what is asked


def asking(name="m", arrays=None, outputs=(), **parameters):
    asked = request(name, **(arrays or {"x": np.ones((2, 4), np.float32)}))
    for key, value in parameters.items():
        choice = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
        setattr(asked.parameters[key], choice, value)
    for output in outputs:
        asked.outputs.add(name=output)
    return asked


def served(root, scenario):
    """Runs `scenario(infer)` on an engine that serves a folder."""

    async def run():
        async with running(root, formats.load_any) as engine:
            assert await engine.load_all() == []
            await scenario(engine.infer)

    asyncio.run(run())


def test_an_explanation_comes_beside_the_answer_and_says_of_what_it_is(tmp_path):
    put(tmp_path, "m", Mlp(), parameters={"extra": {"explain": True}})

    async def scenario(infer):
        plain = await infer(asking())
        off = await infer(asking(explain=False))
        told = await infer(asking(explain="integrated_gradients", explain_steps=20))
        chosen = await infer(asking(explain=True, outputs=["y"]))
        assert plain == off
        names = ["y", "explain.x", "explain.baseline", "explain.delta"]
        assert [each.name for each in told.outputs] == [each.name for each in chosen.outputs] == names
        np.testing.assert_array_equal(outputs_of(told)["y"], outputs_of(plain)["y"])
        assert parameters_of(told.parameters) == {
            "explain": "integrated_gradients",
            "explain_target": "y[0]",
            "explain_steps": 20,
        }
        assert parameters_of(chosen.parameters)["explain_steps"] == 50

    served(tmp_path, scenario)


PAIR = {"inputs": [tensor("a", "FP32", -1, 2), tensor("b", "FP32", -1, 2)]}
TWO = {**PAIR, "outputs": [tensor("sum", "FP32", -1, 2), tensor("difference", "FP32", -1, 2)]}
MIXED = {**PAIR, "outputs": [tensor("sign", "INT64", -1, 2), tensor("product", "FP32", -1, -1)]}


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("two", {"explain": True}, "'explain_target': '' is missing; name a place in a row of 'sum' FP32 .* or 'diff"),
        ("two", {"explain": True, "explain_target": "sum"}, r"output 'sum' is FP32 \[-1, 2\]; .* sum\[0\]"),
        ("two", {"explain": True, "explain_target": "sum[2]"}, r"'sum\[2\]', and output 'sum' is FP32 \[-1, 2\]"),
        ("two", {"explain": True, "explain_target": "sum[0,0]"}, r"name a place in a row of it: sum\[0\]"),
        ("two", {"explain": True, "explain_target": "sum[-1]"}, r"'sum\[-1\]' is no output"),
        ("two", {"explain": True, "explain_target": 1}, "'1' is no output"),
        ("two", {"explain": "lime", "explain_target": "sum[0]"}, "'explain' is 'lime'; it may be 'integrated_grad"),
        ("two", {"explain": True, "explain_steps": 0}, "'explain_steps' is 0; it goes from 1 to 500"),
        ("two", {"explain": True, "explain_steps": 501}, "it goes from 1 to 500"),
        ("two", {"explain": True, "explain_steps": 10.0}, "'explain_steps' is 10.0"),
        ("two", {"explain": True, "explain_goal": "sum"}, "'explain_goal' is unknown; there are 'explain', 'explain_t"),
        (
            "mixed",
            {"explain": True, "explain_target": "sign[0]"},
            r"'sign' is INT64 \[-1, 2\]; name a place in a row of",
        ),
        (
            "mixed",
            {"explain": True, "explain_target": "product[7]"},
            r"there is no product\[7\]; output .* \[2, 2\] here",
        ),
        ("off", {"explain": True}, "model 'off' gives no explanations; parameters.extra.explain of its settings turns"),
        ("desk", {"explain": True}, "model 'desk' gives no explanations"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_a_sentence(desk, name, parameters, says):
    async def scenario(infer):
        arrays = {each: np.ones((2, 2), np.float32) for each in "ab"}
        with pytest.raises(InvalidArgument, match=says):
            await infer(asking(name, arrays, **parameters))

    served(desk, scenario)


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    explain = {"parameters": {"extra": {"explain": {"max_rows": 8}}}}
    put(root, "two", Both(), **TWO, **explain)
    put(root, "mixed", Product(), **MIXED, **explain)
    put(root, "off", Both(), **TWO)
    put(
        root,
        "desk",
        implementation="runtime.Ensemble",
        inputs=None,
        outputs=None,
        parameters={"extra": {"members": {"two": 1, "off": 1}}},
    )
    return root


@pytest.mark.parametrize(
    ("rows_a", "rows_b", "says"), [(9, 9, "9 rows to explain; a request may have 8"), (2, 3, "'a' 2, 'b' 3")]
)
def test_rows_are_limited_and_belong_together(desk, rows_a, rows_b, says):
    async def scenario(infer):
        arrays = {"a": np.ones((rows_a, 2), np.float32), "b": np.ones((rows_b, 2), np.float32)}
        with pytest.raises(InvalidArgument, match=says):
            await infer(asking("two", arrays, explain=True, explain_target="sum[0]"))

    served(desk, scenario)


def test_a_class_that_reads_parameters_may_have_an_explain_of_its_own(tmp_path):
    folder = put(tmp_path, "m", implementation="own.Own", parameters={"extra": {"explain": "mine"}})
    (folder / "own.py").write_text(
        "class Own:\n"
        "    def load(self, folder, explain):\n        assert explain == 'mine'\n"
        "    def predict(self, inputs, parameters):\n"
        "        return {'y': inputs['x'][:, :1] * (2 if parameters.get('explain') == 'mine' else 1)}\n"
    )

    async def scenario(infer):
        assert outputs_of(await infer(asking(explain="mine")))["y"][0, 0] == 2

    served(tmp_path, scenario)


# -------------------------------------------------------------------------------------------- beside other requests


class Plain:
    """Answers at once."""

    inputs = ()
    outputs = ()
    reads_parameters = False
    shares_runs = False
    memory = 0

    def admit(self):
        pass

    async def run(self, arrays, parameters=None, deadline=None):
        return {"y": arrays["x"]}

    async def close(self):
        pass


class Held:
    """Explains when it is let go, in as many runs as it takes until nobody waits."""

    def __init__(self):
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended: list[object] = []

    def explain(self, arrays, question, proceed):
        self.begun.set()
        try:
            while not self.go.wait(0.001):
                proceed()
        except Exception as error:
            self.ended.append(error)
            raise
        self.ended.append(arrays)
        return {"explain.x": arrays["x"]}


class Settings:
    name = "m"
    options = FormatOptions(explain=True)


ARRAYS = {"x": np.ones((1, 1))}
QUESTION = Question("y", (0,), 50)


def held(scenario, settings=Settings, explainer=None, metrics=None):
    async def run(explainer):
        model = Explained(Plain(), explainer, settings, metrics or ModelMetrics())
        try:
            await scenario(model, explainer)
        finally:
            explainer.go.set()
            await model.close()

    asyncio.run(run(explainer or Held()))


async def begun(explainer):
    await asyncio.to_thread(explainer.begun.wait)


def test_no_more_wait_than_may_and_the_next_is_refused_at_once():
    class Two(Settings):
        options = FormatOptions(explain=ExplainOptions(max_queue=2))

    async def scenario(model, explainer):
        waiting = [asyncio.create_task(model.run(ARRAYS, QUESTION, None)) for _ in range(2)]
        await begun(explainer)
        with pytest.raises(ResourceExhausted, match="2 explanations of model 'm' are still to be given"):
            await model.run(ARRAYS, QUESTION, None)
        explainer.go.set()
        for _, told in await asyncio.gather(*waiting):
            assert list(told) == ["explain.x"]
        await model.run(ARRAYS, QUESTION, None)

    held(scenario, Two)


def test_explanations_are_counted_by_outcome_and_timed():
    class One(Settings):
        options = FormatOptions(explain=ExplainOptions(max_queue=1))

    registry = CollectorRegistry()
    metrics = Metrics(registry).of("m", "1")

    def shown(name, **labels):
        return registry.get_sample_value(name, {"model": "m", "version": "1", **labels})

    async def scenario(model, explainer):
        assert shown("runtime_explain_seconds_count") is None  # nobody asked for any
        given = asyncio.create_task(model.run(ARRAYS, QUESTION, None))
        await begun(explainer)
        with pytest.raises(ResourceExhausted):
            await model.run(ARRAYS, QUESTION, None)
        held_since = shown("runtime_explain_seconds_sum")
        explainer.go.set()
        await given
        assert shown("runtime_explain_seconds_sum") > held_since
        explainer.go.clear()
        with pytest.raises(DeadlineExceeded):
            await model.run(ARRAYS, QUESTION, asyncio.get_running_loop().time() + 0.01)
        explainer.begun.clear()
        left = asyncio.create_task(model.run(ARRAYS, QUESTION, None))
        await begun(explainer)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        for code in ("OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "CANCELLED"):
            assert shown("runtime_explanations_total", code=code) == 1
        assert shown("runtime_explain_seconds_count") == 4

    held(scenario, One, metrics=metrics)


def test_an_explanation_ends_where_its_deadline_does():
    async def scenario(model, explainer):
        with pytest.raises(DeadlineExceeded, match="before the answer was explained"):
            await model.run(ARRAYS, QUESTION, asyncio.get_running_loop().time() + 0.01)
        assert len(explainer.ended) == 1

    held(scenario)


def test_an_explanation_that_nobody_waits_for_is_given_up_or_never_begun():
    async def scenario(model, explainer):
        first, second = (asyncio.create_task(model.run(ARRAYS, QUESTION, None)) for _ in range(2))
        await begun(explainer)
        for task in (first, second):
            task.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        while not explainer.ended:
            await asyncio.sleep(0)
        explainer.go.set()
        await model.run(ARRAYS, QUESTION, None)  # after whatever the thread had
        assert [type(each) for each in explainer.ended] == [DeadlineExceeded, dict]

    held(scenario)


def test_closing_gives_the_explanations_that_were_asked_for():
    async def scenario(model, explainer):
        asked = asyncio.create_task(model.run(ARRAYS, QUESTION, None))
        await begun(explainer)
        closed = asyncio.create_task(model.close())
        await asyncio.sleep(0)
        assert not closed.done()
        explainer.go.set()
        _, told = await asked
        await closed
        assert told

    held(scenario)


def test_the_thread_ends_with_the_last_model_that_is_explained():
    """Whoever ends the process waits for threads, and takes one that goes on for a model that still loads."""

    before = set(threading.enumerate())  # of other tests' models, too, which are at their end

    def alive():
        return [each for each in set(threading.enumerate()) - before if each.name.startswith("explain")]

    async def scenario(model, explainer):
        explainer.go.set()
        another = Held()
        another.go.set()
        other = Explained(Plain(), another, Settings, ModelMetrics())  # type: ignore[arg-type]
        for each in (model, other):
            await each.run(ARRAYS, QUESTION, None)
        (thread,) = alive()
        await other.close()
        await model.run(ARRAYS, QUESTION, None)
        assert alive() == [thread]
        await model.close()
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()

    held(scenario)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are a thread's own on Linux only")
def test_the_thread_that_explains_stands_back_behind_those_that_serve():
    class Told(Held):
        def explain(self, arrays, question, proceed):
            self.ended.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return {}

    async def scenario(model, explainer):
        await model.run(ARRAYS, QUESTION, None)
        assert explainer.ended == [NICENESS]

    held(scenario, explainer=Told())


def test_others_are_answered_while_one_is_explained(tmp_path, monkeypatch):
    """By the same model too: it takes its turn in neither its queue nor its thread."""
    put(tmp_path, "m", Mlp(), parameters={"extra": {"explain": True}})
    begun, go = threading.Event(), threading.Event()

    async def scenario(infer):
        from runtime.formats.integrated_gradients import IntegratedGradients

        explain = IntegratedGradients.explain

        def hold(self, *arguments):
            begun.set()
            go.wait(60)
            return explain(self, *arguments)

        monkeypatch.setattr(IntegratedGradients, "explain", hold)
        asked = asyncio.create_task(infer(asking(explain=True)))
        await asyncio.to_thread(begun.wait)
        for _ in range(100):
            await infer(asking())
        assert not asked.done()
        go.set()
        assert len((await asked).outputs) == 4

    served(tmp_path, scenario)


def test_a_stock_mlserver_is_told_too(tmp_path):
    mlserver = pytest.importorskip("mlserver")
    from mlserver.types import InferenceRequest

    from runtime import TorchScriptModel

    folder = put(tmp_path, "m", Linear(), name="m", parameters={"extra": {"explain": True}})
    settings = mlserver.ModelSettings.parse_file(str(folder / "model-settings.json"))
    inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]

    async def scenario():
        model = TorchScriptModel(settings)
        assert await model.load()
        plain = await model.predict(InferenceRequest(inputs=inputs))
        assert [each.name for each in plain.outputs] == ["y"]
        assert plain.parameters is None
        told = await model.predict(InferenceRequest(inputs=inputs, parameters={"explain": True}))
        by_name = {each.name: list(each.data) for each in told.outputs}
        np.testing.assert_allclose(by_name["explain.x"], [1, 4, 9, 16], atol=ROUNDING)
        assert told.parameters.explain_target == "y[0]"
        await model.unload()

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------------------ end to end


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    put(root, "linear", Linear(), parameters={"extra": {"explain": {"baseline": {"x": 1}}}})
    put(root, "plain", Linear())
    with Runtime(root, tmp_path_factory.mktemp("server")) as process:
        yield process


def test_an_explanation_over_grpc(server):
    asked = ModelInferRequest(model_name="linear")
    add_inputs(asked, {"x": np.array([[1, 2, 3, 4]], np.float32)}, raw=True)
    asked.parameters["explain"].string_param = "integrated_gradients"
    with grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(SERVICE + "ModelInfer")
        response = ModelInferResponse.FromString(call(asked.SerializeToString(), timeout=60))
        told = outputs_of(response)
        np.testing.assert_allclose(told["explain.x"], [[0, 2, 6, 12]], atol=ROUNDING)
        np.testing.assert_allclose(told["explain.baseline"], [15])
        np.testing.assert_allclose(told["y"][:, 0], told["explain.baseline"] + told["explain.x"].sum(1), atol=ROUNDING)
        asked.model_name = "plain"
        with pytest.raises(grpc.RpcError) as refused:
            call(asked.SerializeToString(), timeout=60)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'plain' gives no explanations" in refused.value.details()


def test_an_explanation_over_rest(server):
    x = {"name": "x", "datatype": "FP32", "shape": [2, 4], "data": [1, 2, 3, 4, 1, 1, 1, 1]}
    body = {"inputs": [x], "parameters": {"explain": True, "explain_target": "y", "explain_steps": 3}}
    answer = plain_http.post(f"http://{server.address}/v2/models/linear/infer", json=body).raise_for_status().json()
    told = {each["name"]: np.reshape(each["data"], each["shape"]) for each in answer["outputs"]}
    np.testing.assert_allclose(told["explain.x"], [[0, 2, 6, 12], [0, 0, 0, 0]], atol=ROUNDING)
    np.testing.assert_allclose(told["explain.delta"], [0, 0], atol=ROUNDING)
    assert answer["parameters"] == {
        "explain": "integrated_gradients",
        "explain_target": "y[0]",
        "explain_steps": 3,
    }
    refused = plain_http.post(f"http://{server.address}/v2/models/plain/infer", json=body)
    assert refused.status_code == 422
    assert "'plain' gives no explanations" in refused.json()["error"]
