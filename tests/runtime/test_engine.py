from __future__ import annotations

import asyncio
import shutil
import threading
from contextlib import asynccontextmanager

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs, outputs_of
from runtime import catalogue
from runtime.catalogue import Entry, State
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.model import NOTHING
from runtime.repository import Repository
from runtime.sample import Sample
from tests.runtime.models import Fake, put, tensor

FACTOR = "factor"


class Scaled(Fake):
    """y = factor * x; the factor is the text of a file in the model's folder, and "broken" does not load."""

    def __init__(self, settings, folder):
        super().__init__(settings.name, settings.version, (-1, -1))
        self.factor = float((folder / FACTOR).read_text())

    def run(self, arrays, parameters=NOTHING):
        super().run(arrays)
        return {"y": self.factor * arrays["x"]}


class Loader:
    """Makes models and remembers them; can be held up."""

    def __init__(self):
        self.models = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, settings, folder):
        self.entered.release()
        assert self.gate.wait(60)
        model = Scaled(settings, folder)
        self.models.append(model)
        return model


def keep(root, name, factor, version=""):
    """Puts a model into the repository, or changes it."""
    folder = put(root, name, version=version)
    (folder / FACTOR).write_text(str(factor))


@asynccontextmanager
async def running(root, load=None):
    engine = Engine(Repository(root), Metrics(CollectorRegistry()), load=load or Loader())
    try:
        yield engine
    finally:
        await engine.close()


def request(name="m", version="", raw=True, **arrays):
    asked = ModelInferRequest(model_name=name, model_version=version, id="7")
    add_inputs(asked, arrays or {"x": np.ones((1, 2))}, raw=raw)
    return asked


async def answer(engine, name="m", version=""):
    return outputs_of(await engine.infer(request(name, version)))["y"][0, 0]


def told(engine):
    return asyncio.wait_for(engine.index(), 60)


def test_a_model_is_loaded_asked_and_unloaded(tmp_path):
    keep(tmp_path, "m", 2)

    async def scenario():
        load = Loader()
        async with running(tmp_path, load) as engine:
            with pytest.raises(NotFound, match="there is no model 'm'; none is loaded"):
                await answer(engine)
            assert await told(engine) == [Entry("m", "", State.UNAVAILABLE, "not loaded")]
            await engine.load("m")
            assert await answer(engine) == 2
            assert await told(engine) == [Entry("m", "", State.READY)]
            await engine.unload("m")
            with pytest.raises(NotFound, match="model 'm' is not loaded: unloaded"):
                await answer(engine)
            assert await told(engine) == [Entry("m", "", State.UNAVAILABLE, "unloaded")]
            assert load.models[0].closed == 1
            await engine.unload("m")
            await engine.load("m")
            assert await answer(engine) == 2

    asyncio.run(scenario())


def test_a_name_that_is_nowhere_is_not_found(tmp_path):
    keep(tmp_path, "m", 2)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            for action in (engine.load("x"), engine.unload("x")):
                with pytest.raises(NotFound, match="the repository has no model 'x'"):
                    await action
            with pytest.raises(NotFound, match="there is no model 'x'; loaded are 'm'"):
                await answer(engine, "x")
            with pytest.raises(NotFound, match="there is no model 'm' version '9': it is served without versions"):
                await answer(engine, "m", "9")
            with pytest.raises(NotFound) as long:
                await answer(engine, "x" * 5000)
            assert len(long.value.message) < 200

    asyncio.run(scenario())


def test_many_names_are_not_all_listed(tmp_path):
    for i in range(12):
        keep(tmp_path, f"m{i:02}", 1)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load_all()
            with pytest.raises(NotFound, match=r"'m00', .*'m09' and 2 more"):
                await answer(engine, "x")

    asyncio.run(scenario())


def test_without_a_version_the_newest_is_asked(tmp_path):
    for version, factor in (("2", 2), ("10", 10), ("beta", 3)):
        keep(tmp_path, "m", factor, version)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            assert await answer(engine) == 10
            assert [await answer(engine, version=version) for version in ("2", "10", "beta")] == [2, 10, 3]
            assert list(engine.metadata("m", "").versions) == ["beta", "2", "10"]
            assert (await engine.infer(request())).model_version == "10"
            keep(tmp_path, "m", 1)
            await engine.load("m")
            assert await answer(engine) == 1

    asyncio.run(scenario())


def test_a_reload_takes_what_changed_and_only_that(tmp_path):
    keep(tmp_path, "m", 1, "1")
    keep(tmp_path, "m", 2, "2")

    async def scenario():
        load = Loader()
        async with running(tmp_path, load) as engine:
            await engine.load("m")
            await engine.load("m")
            assert len(load.models) == 2
            keep(tmp_path, "m", 20, "2")
            await engine.load("m")
            assert len(load.models) == 3
            assert await answer(engine, version="1") == 1
            assert await answer(engine) == 20
            assert [model.closed for model in load.models] == [1, 0, 0]  # the newest is loaded first

    asyncio.run(scenario())


def test_a_version_that_left_the_disk_leaves_at_the_next_load(tmp_path):
    keep(tmp_path, "m", 1, "1")
    keep(tmp_path, "m", 2, "2")

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load_all()
            shutil.rmtree(tmp_path / "m" / "2")
            assert await answer(engine) == 2
            await engine.load("m")
            assert await answer(engine) == 1
            assert engine.ready()
            assert await told(engine) == [Entry("m", "1", State.READY)]

    asyncio.run(scenario())


def test_a_model_that_left_the_disk_is_served_until_it_is_unloaded(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            shutil.rmtree(tmp_path / "m")
            with pytest.raises(NotFound, match="no model 'm'; what was loaded before is served until it is unloaded"):
                await engine.load("m")
            assert await answer(engine) == 1
            assert await told(engine) == [Entry("m", "", State.READY)]
            await engine.unload("m")
            with pytest.raises(NotFound, match="model 'm' is not loaded: unloaded"):
                await answer(engine)

    asyncio.run(scenario())


def test_no_older_version_answers_while_the_newest_is_loaded(tmp_path):
    for version, factor in (("1", 1), ("2", 2), ("10", 10)):
        keep(tmp_path, "m", factor, version)

    async def scenario():
        load = Loader()
        load.gate.clear()
        async with running(tmp_path, load) as engine:
            loading = await engine.start_loading()
            await asyncio.to_thread(load.entered.acquire)
            with pytest.raises(Unavailable, match="model 'm' is being loaded"):
                await answer(engine)
            load.gate.set()
            await loading
            assert [model.version for model in load.models] == ["10", "2", "1"]
            assert await answer(engine) == 10

    asyncio.run(scenario())


def test_no_older_version_answers_while_the_newest_is_unloaded(tmp_path):
    for version in ("1", "2"):
        keep(tmp_path, "m", int(version), version)

    async def scenario():
        load = Loader()
        async with running(tmp_path, load) as engine:
            await engine.load("m")
            newest = engine.served("m", "2").servable
            closing, let = asyncio.Event(), asyncio.Event()
            close = newest.close

            async def held_up():
                closing.set()
                await let.wait()
                await close()

            newest.close = held_up
            unloading = asyncio.create_task(engine.unload("m"))
            await asyncio.wait_for(closing.wait(), 60)
            for version in ("", "1", "2"):
                with pytest.raises(NotFound):
                    await answer(engine, version=version)
            let.set()
            await unloading
            assert [model.closed for model in load.models] == [1, 1]

    asyncio.run(scenario())


def test_a_reload_leaves_no_gap(tmp_path):
    """Requests that never pause are all answered, by the old model or the new."""
    keep(tmp_path, "m", 1)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            answers: list[float] = []

            async def ask():
                while answers[-3:] != [5, 5, 5]:
                    answers.append(await answer(engine))

            asking = asyncio.create_task(ask())
            for factor in range(2, 6):
                keep(tmp_path, "m", factor)
                await engine.load("m")
            await asking
            assert answers == sorted(answers)

    asyncio.run(scenario())


def test_a_reload_that_fails_keeps_the_old_model_and_says_why(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            keep(tmp_path, "m", "broken")
            with pytest.raises(FailedPrecondition, match="could not convert string to float: 'broken'"):
                await engine.load("m")
            assert await answer(engine) == 1
            (entry,) = await told(engine)
            assert entry.state is State.READY
            assert "'broken'" in entry.reason
            (tmp_path / "m" / "model-settings.json").write_text("{")
            with pytest.raises(FailedPrecondition, match="truncated"):
                await engine.load("m")
            assert await answer(engine) == 1
            keep(tmp_path, "m", 2)
            await engine.load("m")
            assert await answer(engine) == 2
            assert await told(engine) == [Entry("m", "", State.READY)]

    asyncio.run(scenario())


def test_a_broken_model_hides_no_other(tmp_path):
    keep(tmp_path, "good", 1)
    keep(tmp_path, "bad", "broken")

    async def scenario():
        async with running(tmp_path) as engine:
            (failed,) = await engine.load_all()
            assert (failed.name, failed.state) == ("bad", State.UNAVAILABLE)
            assert "'broken'" in failed.reason
            assert await answer(engine, "good") == 1
            assert not engine.is_ready("bad", "")
            with pytest.raises(NotFound, match="model 'bad' is not loaded: ValueError"):
                await answer(engine, "bad")
            assert not engine.ready()
            await engine.unload("bad")
            assert engine.ready()

    asyncio.run(scenario())


def test_a_model_that_fails_its_warm_up_is_closed(tmp_path):
    keep(tmp_path, "m", 1)

    class Wrong(Scaled):
        def run(self, arrays, parameters=NOTHING):
            return {"y": np.zeros((3, 3))}

    made = []

    def load(settings, folder):
        made.append(Wrong(settings, folder))
        return made[0]

    async def scenario():
        async with running(tmp_path, load) as engine:
            with pytest.raises(
                FailedPrecondition, match=r"model-settings.json: output 'y' has 3 rows for a batch of 1"
            ):
                await engine.load("m")

    asyncio.run(scenario())
    assert made[0].closed == 1


def test_while_a_model_loads_it_is_unavailable_and_the_server_not_ready(tmp_path):
    keep(tmp_path, "m", 1)
    keep(tmp_path, "other", 1)

    async def scenario():
        load = Loader()
        load.gate.clear()
        async with running(tmp_path, load) as engine:
            assert engine.ready()
            loading = await engine.start_loading()
            assert not engine.ready()
            await asyncio.to_thread(load.entered.acquire)
            with pytest.raises(Unavailable, match="model 'm' is being loaded"):
                await answer(engine)
            assert not engine.is_ready("m", "")
            assert {entry.state for entry in await told(engine)} == {State.LOADING}
            load.gate.set()
            assert await loading == []
            assert engine.ready()
            assert engine.is_ready("m", "")

    asyncio.run(scenario())


def test_a_caller_who_leaves_does_not_stop_the_loading(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        load = Loader()
        load.gate.clear()
        async with running(tmp_path, load) as engine:
            leaving = asyncio.create_task(engine.load("m"))
            await asyncio.to_thread(load.entered.acquire)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            load.gate.set()
            await engine.load("m")
            assert len(load.models) == 1
            assert await answer(engine) == 1

    asyncio.run(scenario())


def test_loads_and_unloads_of_one_model_go_one_after_the_other(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        load = Loader()
        async with running(tmp_path, load) as engine:
            await asyncio.gather(*(engine.load("m") for _ in range(5)), engine.unload("m"), engine.load("m"))
            assert len(load.models) == 2
            assert await answer(engine) == 1

    asyncio.run(scenario())


def test_an_unload_answers_the_calls_it_has(tmp_path):
    keep(tmp_path, "m", 3)

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("m")
            calls = [asyncio.create_task(answer(engine)) for _ in range(4)]
            await asyncio.sleep(0)
            await engine.unload("m")
            assert await asyncio.gather(*calls) == [3, 3, 3, 3]

    asyncio.run(scenario())


def test_folders_that_claim_one_version_are_refused_together(tmp_path):
    keep(tmp_path, "m", 1, "1")
    put(tmp_path, "twin", name="m", parameters={"version": "1"})

    async def scenario():
        async with running(tmp_path) as engine:
            with pytest.raises(FailedPrecondition, match=r"model 'm' version '1' is claimed by .*/m/1 and .*/twin"):
                await engine.load("m")

    asyncio.run(scenario())


@pytest.fixture
def made():
    """The models that `two_inputs` made."""
    return []


@pytest.fixture
def two_inputs(tmp_path, made):
    """Starts an engine with a model a FP64 [-1, 2], b INT64 [-1, -1] -> y, z."""

    class Sum(Fake):
        def __init__(self, settings, folder):
            super().__init__(settings.name)
            made.append(self)
            self.inputs, self.outputs = settings.inputs, settings.outputs

        def run(self, arrays, parameters=NOTHING):
            self.batches.append(arrays["b"])
            return {"y": arrays["a"] + arrays["b"].sum(axis=1, keepdims=True), "z": -arrays["a"]}

    put(
        tmp_path,
        "m",
        inputs=[tensor("a", "FP64", -1, 2), tensor("b", "INT64", -1, -1)],
        outputs=[tensor("y", "FP64", -1, 2), tensor("z", "FP64", -1, 2)],
    )
    return lambda: running(tmp_path, Sum)


A, B = np.array([[1.0, 2.0]]), np.array([[3]])


@pytest.mark.parametrize("raw", [True, False])
def test_a_response_has_the_requests_id_and_form(two_inputs, raw):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            response = await engine.infer(request(a=A, b=B, raw=raw))
            assert (response.model_name, response.model_version, response.id) == ("m", "", "7")
            assert [output.name for output in response.outputs] == ["y", "z"]
            assert bool(response.raw_output_contents) == raw
            assert outputs_of(response)["y"].tolist() == [[4, 5]]

    asyncio.run(scenario())


def test_only_the_outputs_asked_for_come_and_in_that_order(two_inputs):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            asked = request(a=A, b=B)
            asked.outputs.add(name="z")
            other = request(a=A, b=B)
            other.parameters["unit"].string_param = "u-1"
            only, both = await asyncio.gather(engine.infer(asked), engine.infer(other))
            assert [output.name for output in only.outputs] == ["z"]
            assert [output.name for output in both.outputs] == ["y", "z"]
            asked.outputs.add(name="z")
            with pytest.raises(InvalidArgument, match="output 'z' is asked for twice"):
                await engine.infer(asked)
            asked.outputs[1].name = "w"
            with pytest.raises(InvalidArgument, match="output 'w' is not one of the model's: 'y', 'z'"):
                await engine.infer(asked)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": A}, "input 'b' is missing; the model takes 'a', 'b'"),
        ({"a": A, "b": B, "c": B}, "input 'c' is unexpected; the model takes 'a', 'b'"),
        ({"a": A, "c": B}, "input 'b' is missing; input 'c' is unexpected"),
        ({"a": A.astype("f4"), "b": B}, r"input 'a' is declared FP64 \[-1, 2\]; the request has FP32 \[1, 2\]"),
        ({"a": A[0], "b": B}, r"input 'a' is declared FP64 \[-1, 2\]; the request has FP64 \[2\]"),
        ({"a": A[:, :1], "b": B}, r"input 'a' is declared FP64 \[-1, 2\]; the request has FP64 \[1, 1\]"),
        ({"a": A, "b": np.array([[b"3"]], object)}, r"input 'b' is declared INT64 .* has BYTES \[1, 1\]"),
        ({"a": np.ones((2, 2)), "b": B}, "the inputs differ in their number of rows: 'a' 2, 'b' 1"),
    ],
)
def test_inputs_that_are_not_the_declared_ones_are_refused(two_inputs, arrays, says):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            with pytest.raises(InvalidArgument, match=says):
                await engine.infer(request(**arrays))

    asyncio.run(scenario())


def test_rows_of_different_sizes_do_not_share_a_batch(two_inputs, made):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            (model,) = made
            model.batches.clear()
            widths = [np.full((1, width), width) for width in (1, 2, 1, 3)]
            answers = await asyncio.gather(*(engine.infer(request(a=A, b=b)) for b in widths))
            assert [outputs_of(each)["y"][0, 0] for each in answers] == [2, 5, 2, 10]
            assert [batch.shape for batch in model.batches] == [(2, 1), (1, 2), (1, 3)]

    asyncio.run(scenario())


def test_rows_come_and_go_by_any_number(two_inputs):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            for count in (0, 1, 200):
                response = await engine.infer(request(a=np.ones((count, 2)), b=np.ones((count, 1), int)))
                assert outputs_of(response)["y"].tolist() == [[2, 2]] * count

    asyncio.run(scenario())


def test_what_is_not_a_number_is_answered_as_it_is(two_inputs):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            for raw in (True, False):
                response = await engine.infer(request(a=np.array([[np.nan, np.inf]]), b=B, raw=raw))
                np.testing.assert_array_equal(outputs_of(response)["y"], [[np.nan, np.inf]])

    asyncio.run(scenario())


def test_a_deadline_that_passed_is_told_and_counted(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        registry = CollectorRegistry()
        engine = Engine(Repository(tmp_path), Metrics(registry), load=Loader())
        await engine.load("m")
        with pytest.raises(DeadlineExceeded):
            await engine.infer(request(), deadline=asyncio.get_running_loop().time() - 1)
        gone = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        with pytest.raises(Internal):
            await engine.infer(request(x=np.array([[-1.0, 0.0]])))
        with pytest.raises(InvalidArgument):
            await engine.infer(request(y=A))
        with pytest.raises(NotFound):
            await engine.infer(request("nobody's"))

        def counted(code):
            return registry.get_sample_value("runtime_requests_total", {"model": "m", "version": "", "code": code})

        codes = ("DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL", "INVALID_ARGUMENT")
        assert [counted(code) for code in codes] == [1, 1, 1, 1]
        assert registry.get_sample_value("runtime_unknown_model_requests_total") == 1
        assert registry.get_sample_value("runtime_requests_in_flight", {"model": "m", "version": ""}) == 0
        await engine.unload("m")
        assert counted("INTERNAL") is None
        await engine.close()

    asyncio.run(scenario())


def test_loads_are_counted_by_their_outcome(tmp_path):
    """And not by the names that clients made up, nor by those of models that never served."""
    keep(tmp_path, "m", 1)
    keep(tmp_path, "bad", "broken")

    async def scenario():
        registry = CollectorRegistry()
        engine = Engine(Repository(tmp_path), Metrics(registry), load=Loader())
        await engine.load_all()
        await engine.load("m")
        keep(tmp_path, "m", "broken too")
        for name in ("m", "bad", "nobody's"):
            with pytest.raises((FailedPrecondition, NotFound)):
                await engine.load(name)
        outcomes = ("loaded", "unchanged", "failed")
        assert [registry.get_sample_value("runtime_loads_total", {"outcome": each}) for each in outcomes] == [1, 1, 3]
        labels = {"model": "m", "version": ""}
        assert (registry.get_sample_value("runtime_model_load_seconds", labels) or 0) > 0
        assert registry.get_sample_value("runtime_model_memory_bytes", labels) == 1000
        assert registry.get_sample_value("runtime_model_load_seconds", {"model": "bad", "version": ""}) is None
        await engine.unload("m")
        assert registry.get_sample_value("runtime_model_memory_bytes", labels) is None
        await engine.close()

    asyncio.run(scenario())


def test_of_models_that_are_gone_not_all_are_remembered(tmp_path, monkeypatch):
    """As when every generation of a model has a name of its own, and nobody asks for the index."""
    monkeypatch.setattr(catalogue, "REMEMBERED", 3)

    async def scenario():
        async with running(tmp_path) as engine:
            keep(tmp_path, "stays", 1)
            await engine.load("stays")
            for generation in range(6):
                name = f"m_{generation}"
                keep(tmp_path, name, 1)
                await engine.load(name)
                await engine.unload(name)
                shutil.rmtree(tmp_path / name)
            assert await answer(engine, "stays") == 1
            for generation in (3, 4, 5):
                with pytest.raises(NotFound, match=f"model 'm_{generation}' is not loaded: unloaded"):
                    await answer(engine, f"m_{generation}")
            with pytest.raises(NotFound, match="there is no model 'm_2'; loaded are 'stays'"):
                await answer(engine, "m_2")

    asyncio.run(scenario())


def test_settings_written_again_as_they_were_load_nothing(tmp_path):
    keep(tmp_path, "m", 1)

    async def scenario():
        load = Loader()
        async with running(tmp_path, load) as engine:
            await engine.load("m")
            settings = tmp_path / "m" / "model-settings.json"
            text = settings.read_bytes()
            settings.unlink()
            settings.write_bytes(text)
            await engine.load("m")
            assert len(load.models) == 1

    asyncio.run(scenario())


def test_what_changed_while_it_was_loaded_is_loaded_again(tmp_path, caplog):
    """Nobody knows which of both was read, and so it is like nothing else."""
    keep(tmp_path, "m", 1)

    class Changes(Loader):
        def __call__(self, settings, folder):
            model = super().__call__(settings, folder)
            if len(self.models) == 1:
                keep(tmp_path, "m", 2)
            return model

    async def scenario():
        load = Changes()
        async with running(tmp_path, load) as engine:
            prints = []
            for _ in range(3):
                await engine.load("m")
                (served,) = engine.all_served("m").values()
                prints.append(served.fingerprint)
            assert len(load.models) == len(set(prints)) == 2

    asyncio.run(scenario())
    assert "files of model 'm' changed during its load" in caplog.text


def test_a_full_queue_refuses_before_the_tensors_are_read(tmp_path):
    """A request that is refused is counted; that its tensors make no sense is nobody's business then."""
    keep(tmp_path, "m", 1)
    put(tmp_path, "m", parameters={"extra": {"max_queue": 2}})

    async def scenario():
        registry = CollectorRegistry()
        engine = Engine(Repository(tmp_path), Metrics(registry), load=Loader())
        await engine.load("m")
        engine.admit("m", "")
        calls = [asyncio.create_task(engine.infer(request())) for _ in range(2)]
        await asyncio.sleep(0)
        nonsense = request(unexpected=A)
        with pytest.raises(ResourceExhausted, match="2 calls already wait for model 'm'"):
            await engine.infer(nonsense)
        with pytest.raises(ResourceExhausted):
            engine.admit("m", "")
        with pytest.raises(NotFound):
            engine.admit("x", "")
        labels = {"model": "m", "version": "", "code": "RESOURCE_EXHAUSTED"}
        assert registry.get_sample_value("runtime_requests_total", labels) == 2
        assert registry.get_sample_value("runtime_unknown_model_requests_total") == 1
        await asyncio.gather(*calls)
        engine.admit("m", "")
        await engine.close()

    asyncio.run(scenario())


def test_metadata_is_what_the_settings_declare(two_inputs):
    async def scenario():
        async with two_inputs() as engine:
            await engine.load("m")
            told = engine.metadata("m", "")
            assert (told.name, told.platform, list(told.versions)) == ("m", "fake", [])
            assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
                ("a", "FP64", [-1, 2]),
                ("b", "INT64", [-1, -1]),
            ]
            assert [each.name for each in told.outputs] == ["y", "z"]
            with pytest.raises(NotFound):
                engine.metadata("x", "")
            with pytest.raises(NotFound):
                engine.is_ready("x", "")

    asyncio.run(scenario())


@pytest.mark.parametrize(("answered", "served"), [(2.0, True), (3.0, False)])
def test_a_model_that_no_longer_answers_as_its_sample_says_is_refused(tmp_path, answered, served):
    keep(tmp_path, "m", 2)
    x = np.ones((1, 2))
    Sample({"x": x}, {"y": answered * x}).write(tmp_path / "m" / "warm-up.npz")

    async def scenario():
        async with running(tmp_path) as engine:
            if served:
                await engine.load("m")
                return
            with pytest.raises(FailedPrecondition, match="sample"):
                await engine.load("m")

    asyncio.run(scenario())
