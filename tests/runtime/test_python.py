from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from textwrap import dedent

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import FailedPrecondition, Internal
from protos.messages import ModelInferRequest, ModelInferResponse
from protos.tensors import add_inputs, outputs_of
from runtime.engine import Engine
from runtime.formats import python
from runtime.formats.user_code import UserCode
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.warmup import warm_up
from tests.runtime.contract import ModelContract
from tests.runtime.models import load_from, put, tensor

DOUBLES = """
    class Doubles:
        def predict(self, inputs):
            return {"y": inputs["x"] * 2}
"""


def written(root, name="m", code=DOUBLES, implementation="models.Doubles", **settings):
    """A folder with a module of a user's; what the settings leave out is x [-1, 2] and y [-1, 2]."""
    declared = {"inputs": [tensor("x", "FP32", -1, 2)], "outputs": [tensor("y", "FP32", -1, 2)], **settings}
    folder = put(root, name, implementation=implementation, **declared)
    (folder / "models.py").write_text(dedent(code))
    return folder


def loaded(root, code=DOUBLES, implementation="models.Doubles", **settings):
    written(root, "m", code, implementation, **settings)
    return load_from(root)


def x(*rows):
    return {"x": np.array(rows or [[1, 2]], np.float32)}


@asynccontextmanager
async def running(root):
    engine = Engine(Repository(root), Metrics(CollectorRegistry()))
    try:
        assert await engine.load_all() == []
        yield engine
    finally:
        await engine.close()


def request(name="m", arrays=None, **parameters):
    asked = ModelInferRequest(model_name=name)
    add_inputs(asked, arrays or x(), raw=True)
    for key, value in parameters.items():
        asked.parameters[key].int64_param = value
    return asked


async def answer(engine, name="m", **parameters):
    return outputs_of(await engine.infer(request(name, **parameters)))["y"].tolist()


class TestPythonModel(ModelContract):
    def make(self, folder):
        return loaded(folder)


class TestPythonModelWithTwoInputsAndOutputs(ModelContract):
    def make(self, folder):
        code = """
            class Both:
                def predict(self, inputs):
                    a, b = inputs["a"], inputs["b"]
                    return {"more": None, "difference": a - b, "sum": a + b}
        """
        pair = [[tensor(name, "FP32", -1, 2) for name in names] for names in (("a", "b"), ("sum", "difference"))]
        return loaded(folder, code, "models.Both", inputs=pair[0], outputs=pair[1])


class TestPythonModelThatReadsParameters(ModelContract):
    def make(self, folder):
        code = """
            class Times:
                def predict(self, inputs, parameters):
                    return {"y": inputs["x"] * parameters.get("factor", 1)}
        """
        return loaded(folder, code, "models.Times")


def test_the_example_of_the_documentation_is_served(tmp_path):
    said = python.__doc__
    assert said
    code = said[said.index("    import numpy") : said.index("`predict` takes")]
    takes, returns = [tensor("features", "FP64", -1, 3)], [tensor("probability", "FP64", -1)]
    folder = put(tmp_path, "m", implementation="my_model.Logistic", inputs=takes, outputs=returns)
    (folder / "my_model.py").write_text(dedent(code))
    np.save(folder / "weights.npy", np.array([1.0, 2.0, 3.0]))
    model = load_from(tmp_path)
    assert warm_up(model, max_rows=8)
    assert model.run({"features": np.zeros((2, 3))})["probability"].tolist() == [0.5, 0.5]


def test_parameters_are_read_where_predict_takes_them(tmp_path):
    code = """
        class Times:
            def predict(self, inputs, parameters):
                return {"y": inputs["x"] * np.float32(parameters.get("factor", 1))}

        import numpy as np
    """
    written(tmp_path, "reads", code, "models.Times")
    written(tmp_path, "ignores")

    async def scenario():
        async with running(tmp_path) as engine:
            answers = await asyncio.gather(
                *(answer(engine, "reads", factor=factor) for factor in (1, 3, 1)), answer(engine, "ignores", factor=3)
            )
            assert answers == [[[1, 2]], [[3, 6]], [[1, 2]], [[2, 4]]]

    asyncio.run(scenario())


def test_two_models_may_each_have_a_models_py_and_import_what_lies_beside_it(tmp_path):
    code = """
        from factors import FACTOR

        class Times:
            def predict(self, inputs):
                return {"y": inputs["x"] * FACTOR}
    """
    for name, factor in (("one", 1), ("two", 2)):
        folder = written(tmp_path, name, code, "models.Times")
        (folder / "factors.py").write_text(f"FACTOR = {factor}")
    before = set(sys.modules), list(sys.path)
    models = [load_from(tmp_path, name) for name in ("one", "two")]
    assert [model.run(x())["y"].tolist() for model in models] == [[[1, 2]], [[2, 4]]]
    assert sys.path == before[1]
    assert not {"models", "factors"} & (set(sys.modules) - before[0])
    for model in models:
        model.close()
    assert set(sys.modules) - before[0] == set()


def test_an_import_elsewhere_finds_all_that_it_would(tmp_path):
    """It goes along a list of folders, which nobody may change under it."""
    path, before = sys.path, sys.path.copy()
    with UserCode(tmp_path):
        assert sys.path == [str(tmp_path), *before]
    assert sys.path == path == before


@pytest.mark.parametrize("init", [True, False])
def test_a_package_may_lie_beside_the_settings(tmp_path, init):
    before = set(sys.modules)
    folder = written(tmp_path, code="", implementation="trees.forest.Forest")
    (folder / "trees").mkdir()
    if init:
        (folder / "trees" / "__init__.py").write_text("")
    (folder / "trees" / "leaf.py").write_text("LEAF = 3")
    (folder / "trees" / "forest.py").write_text(
        dedent("""
            from trees.leaf import LEAF
            from .leaf import LEAF as SAME

            class Forest:
                def predict(self, inputs):
                    return {"y": inputs["x"] * (LEAF + SAME)}
        """)
    )
    model = load_from(tmp_path)
    assert model.run(x())["y"].tolist() == [[6, 12]]
    model.close()
    assert set(sys.modules) == before


def test_what_was_pickled_with_a_class_beside_the_settings_can_be_loaded(tmp_path):
    code = """
        import pickle

        class Scaler:
            factor = 3

        class Model:
            def load(self, folder):
                self.scaler = pickle.loads((folder / "scaler.pickle").read_bytes())
                assert type(self.scaler) is Scaler

            def predict(self, inputs):
                return {"y": inputs["x"] * self.scaler.factor}
    """
    folder = written(tmp_path, code=code, implementation="models.Model")
    (folder / "scaler.pickle").write_bytes(b"cmodels\nScaler\n)\x81.")  # models.Scaler()
    assert load_from(tmp_path).run(x())["y"].tolist() == [[3, 6]]


def test_a_reload_takes_the_new_code_even_within_the_same_second(tmp_path):
    written(tmp_path)

    async def scenario():
        async with running(tmp_path) as engine:
            assert await answer(engine) == [[2, 4]]
            written(tmp_path, code=DOUBLES.replace("* 2", "* 5"))
            await engine.load("m")
            assert await answer(engine) == [[5, 10]]
            assert not list((tmp_path / "m").glob("__pycache__"))
            written(tmp_path, code="1 / 0")
            with pytest.raises(FailedPrecondition, match=r"models\.py, line 1: ZeroDivisionError: division by zero"):
                await engine.load("m")
            assert await answer(engine) == [[5, 10]]

    asyncio.run(scenario())


def test_load_takes_its_options_by_name(tmp_path):
    code = """
        class Times:
            def load(self, folder, factor=1, threads=0):
                self.factor, self.threads, self.name = factor, threads, folder.name

            def predict(self, inputs):
                assert self.name == "m"
                return {"y": inputs["x"] * self.factor + self.threads}
    """
    settings = {"parameters": {"extra": {"factor": 2, "threads": "4", "max_batch_size": 8}}}
    assert loaded(tmp_path, code, "models.Times", **settings).run(x())["y"].tolist() == [[6, 8]]
    with pytest.raises(FailedPrecondition) as refused:
        loaded(tmp_path, code, "models.Times", parameters={"extra": {"faktor": 2}})
    assert "parameters.extra: got an unexpected keyword argument 'faktor'" in refused.value.message
    assert "load takes (folder, factor=1, threads=0)" in refused.value.message


def test_close_is_called_once(tmp_path):
    code = """
        class Closes:
            def load(self, folder):
                self.folder = folder

            def predict(self, inputs):
                return {"y": inputs["x"]}

            def close(self):
                with (self.folder / "closed").open("a") as file:
                    file.write("x")
    """
    model = loaded(tmp_path, code, "models.Closes")
    model.close()
    model.close()
    assert (tmp_path / "m" / "closed").read_text() == "x"


def test_text_may_be_returned_in_any_form(tmp_path):
    code = """
        import numpy as np

        class Texts:
            def predict(self, inputs):
                upper = [each.decode().upper() for each in inputs["x"]]
                return {"list": upper, "U": np.array(upper), "S": np.array([each.encode() for each in upper], "S")}
    """
    declared = {
        "inputs": [tensor("x", "BYTES", -1)],
        "outputs": [tensor(name, "BYTES", -1) for name in ("list", "U", "S")],
    }
    model = loaded(tmp_path, code, "models.Texts", **declared)
    assert warm_up(model, max_rows=4)
    for array in model.run({"x": np.array([b"a", "é".encode()], np.object_)}).values():
        assert array.dtype == np.object_
        assert array.tolist() == [b"A", "É".encode()]


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("inputs['x'].astype('f8')", "output 'y' is declared FP32 [-1, 2]; the model returns FP64 [1, 2]"),
        ("inputs['x'][:, 0]", "output 'y' is declared FP32 [-1, 2]; the model returns FP32 [1]"),
        ("[[1, 2]]", "output 'y' is declared FP32 [-1, 2]; the model returns INT64 [1, 2]"),
        ("1j * inputs['x']", "output 'y' is declared FP32 [-1, 2]; the model returns complex64 [1, 2]"),
    ],
)
def test_other_outputs_than_declared_are_refused_at_the_warm_up(tmp_path, returned, says):
    code = f"class Wrong:\n    def predict(self, inputs):\n        return {{'y': {returned}}}"
    model = loaded(tmp_path, code, "models.Wrong")
    with pytest.raises(FailedPrecondition) as refused:
        warm_up(model, max_rows=1)
    assert refused.value.message == says


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("inputs['x']", "predict returns ndarray, not a dict of arrays"),
        ("{'z': 1}", "predict returns no 'y', only 'z'"),
        ("{}", "predict returns no 'y', only nothing"),
    ],
)
def test_what_is_no_dict_of_the_outputs_is_refused(tmp_path, returned, says):
    code = f"class Wrong:\n    def predict(self, inputs):\n        return {returned}"
    with pytest.raises(FailedPrecondition, match=says):
        loaded(tmp_path, code, "models.Wrong").run(x())


def test_inputs_cannot_be_written_to(tmp_path):
    code = """
        class Writes:
            def predict(self, inputs):
                inputs["x"] += 1
                return {"y": inputs["x"]}
    """
    with pytest.raises(ValueError, match="read-only"):
        loaded(tmp_path, code, "models.Writes").run(x())


def test_an_answer_may_have_its_bytes_in_another_order(tmp_path):
    code = "class Doubles:\n    def predict(self, inputs):\n        return {'y': (2 * inputs['x']).astype('>f4')}\n"
    model = loaded(tmp_path, code, "models.Doubles")
    warm_up(model, max_rows=1)
    assert model.run(x())["y"].tolist() == (2 * x()["x"]).tolist()


def test_what_predict_raises_is_the_answer_of_that_call_alone(tmp_path):
    code = """
        class Choosy:
            def predict(self, inputs):
                if (inputs["x"] > 1).any():
                    raise KeyError("too large")
                return {"y": inputs["x"]}
    """
    written(tmp_path, code=code, implementation="models.Choosy")

    async def scenario():
        async with running(tmp_path) as engine:
            good, bad = request(arrays=x([0, 1])), request(arrays=x([0, 2]))
            answers = await asyncio.gather(engine.infer(good), engine.infer(bad), return_exceptions=True)
            assert isinstance(answers[0], ModelInferResponse)
            assert outputs_of(answers[0])["y"].tolist() == [[0, 1]]
            assert isinstance(answers[1], Internal)
            assert answers[1].message == "model 'm' failed: KeyError: 'too large'"

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "implementation", "says"),
    [
        (DOUBLES, "Doubles", "implementation: 'Doubles' names no module; write \"module.Class\""),
        (DOUBLES, "models.Trebles", "implementation: models has no class 'Trebles'"),
        (DOUBLES, "nobody.Doubles", "there is no nobody.py beside the file, and no module 'nobody' is installed"),
        (DOUBLES, "mlserver_nobody.Model", "come with pip install 'croupier[mlserver]'"),
        ("\n\nimport nobody", "models.Doubles", "models.py, line 3: ModuleNotFoundError: No module named 'nobody'"),
        ("x = 1\ndef y(:", "models.Doubles", "models.py, line 2: SyntaxError: invalid syntax"),
        (
            "class Untold(Exception):\n    def __str__(self):\n        raise ValueError\nraise Untold",
            "models.Doubles",
            "models.py, line 4: Untold: and what it says cannot be told",
        ),
        ("raise SystemExit(3)", "models.Doubles", "models.py, line 1: SystemExit: 3"),
        ("class Doubles: pass", "models.Doubles", "implementation: Doubles has no predict(self, inputs)"),
        (
            "class Doubles:\n    def predict(self): pass",
            "models.Doubles",
            "Doubles.predict must be predict(self, inputs) or",
        ),
        ("class Doubles:\n    async def predict(self, inputs): pass", "models.Doubles", "and not async"),
        *(
            (
                f"class Doubles:\n    {load}: pass\n    def predict(self, inputs): pass",
                "models.Doubles",
                "model-settings.json: implementation: Doubles.load must be load(self, folder) or load(self, folder, ",
            )
            for load in ("def load(self)", "def load(self, *, factor=1)", "async def load(self, folder)")
        ),
        (
            "class Doubles:\n    def load(self, folder):\n        folder / 1\n    def predict(self, inputs): pass",
            "models.Doubles",
            "models.py, line 3: TypeError: unsupported operand",
        ),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_a_sentence(tmp_path, code, implementation, says):
    before = set(sys.modules)
    with pytest.raises(FailedPrecondition) as refused:
        loaded(tmp_path, code, implementation)
    assert str(tmp_path / "m" / "model-settings.json") in refused.value.message
    assert says in refused.value.message
    assert "\n" not in refused.value.message
    assert {name for name in set(sys.modules) - before if "croupier_model" in name} == set()


def test_tensors_must_be_declared(tmp_path):
    with pytest.raises(FailedPrecondition, match="outputs: none declared, and a class does not say its shapes"):
        loaded(tmp_path, outputs=[])


def test_a_class_may_be_installed(tmp_path, monkeypatch):
    """Any importable one; here it lies on the path, and not beside the settings."""
    (tmp_path / "installed_models.py").write_text(dedent(DOUBLES))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = loaded(tmp_path / "models", "", "installed_models.Doubles")
    assert model.run(x())["y"].tolist() == [[2, 4]]
    assert "installed_models" in sys.modules
    monkeypatch.delitem(sys.modules, "installed_models")


LEAVES = """
    import sys

    class Doubles:
        def load(self, folder, when):
            self.when = when

        def predict(self, inputs):
            if self.when == "warm-up" or inputs["x"].max() > 90:
                sys.exit(3)
            return {"y": inputs["x"] * 2}

        def close(self):
            if self.when == "close":
                sys.exit(3)
"""


def test_a_model_that_would_end_the_process_at_its_warm_up_is_refused(tmp_path):
    written(tmp_path, code=LEAVES, parameters={"extra": {"when": "warm-up"}})

    async def scenario():
        engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()))
        (failed,) = await engine.load_all()
        await engine.close()
        return failed.reason

    says = "the model does not take its declared inputs, 'x' FP32 [1, 2]: SystemExit: 3"
    assert asyncio.run(scenario()).endswith(says)


def test_a_model_that_would_end_the_process_serves_on_and_is_unloaded(tmp_path, caplog):
    written(tmp_path, code=LEAVES, parameters={"extra": {"when": "close"}})

    async def scenario():
        async with running(tmp_path) as engine:
            with pytest.raises(Internal, match="model 'm' failed: SystemExit: 3"):
                await engine.infer(request(arrays=x([91, 0])))
            await engine.infer(request())
            await engine.unload("m")

    asyncio.run(scenario())
    assert "model 'm' was not closed: SystemExit: 3" in caplog.messages
