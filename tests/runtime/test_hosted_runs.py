"""How models written for MLServer are loaded, run and unloaded: in a thread of their own, where they may block."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from textwrap import dedent

import pytest
from prometheus_client import CollectorRegistry

from protos.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
)
from protos.tensors import outputs_of
from runtime.engine import Engine
from runtime.formats import load
from runtime.metrics import Metrics
from runtime.repository import Repository
from tests.process import ROOT, until
from tests.runtime.hosted import ECHO, answers, request, running, written

pytest.importorskip("mlserver", reason="the extra mlserver is not installed; it ends at Python 3.12")


def refusal(root):
    async def scenario():
        engine = Engine(Repository(root), Metrics(CollectorRegistry()))
        (failed,) = await engine.load_all()
        await engine.close()
        return failed.reason

    return asyncio.run(scenario())


LOADS = """
    from pathlib import Path
    from mlserver import MLModel

    class Model(MLModel):
        async def load(self):
            {load}

        async def unload(self):
            (Path(__file__).parent / "unloaded").touch()
            return True
"""


@pytest.mark.parametrize(
    ("load", "says"),
    [
        ("return False", "Model.load() does not return True: the model is not ready"),
        ("pass", "Model.load() does not return True: the model is not ready"),
        ("return 1 / 0", "models.py, line 7: ZeroDivisionError: division by zero"),
        ("raise __import__('mlserver').errors.InvalidModelURI('m')", "line 7: InvalidModelURI: Invalid URI specified"),
    ],
)
def test_a_model_that_is_not_ready_is_refused_and_unloaded(tmp_path, load, says):
    folder = written(tmp_path, LOADS.format(load=load))
    threads = threading.active_count()
    assert says in refusal(tmp_path)
    assert (folder / "unloaded").exists()
    until(lambda: threading.active_count() <= threads + 1)  # and its loop goes on no longer


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"parameters": {"environment_tarball": "./x.tar.gz"}}, "models share this server's environment"),
        ({"cache_enabled": "perhaps"}, "cache_enabled: Input should be a valid boolean"),
        ({"implementation": "mlserver_nobody.Model"}, "no module 'mlserver_nobody' is installed; MLServer and its"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(tmp_path, settings, says):
    written(tmp_path, ECHO, **settings)
    assert says in refusal(tmp_path)


def test_a_model_of_theirs_does_not_run_on_arrays_and_is_unloaded(tmp_path):
    folder = written(tmp_path, LOADS.format(load="return True"))
    (found,) = Repository(tmp_path).scan()
    assert found.settings
    with pytest.raises(FailedPrecondition, match=r"'models\.Model' does not run on arrays"):
        load(found.settings, found.folder)
    assert (folder / "unloaded").exists()


def test_what_extends_our_class_for_their_server_is_refused(tmp_path):
    """It would load itself again, and that wait for the import that is under way."""
    written(tmp_path, "import runtime\n\n\nclass Model(runtime.TorchScriptModel):\n    pass\n")
    says = 'implementation: Model extends a class that is there for a stock MLServer; name that itself, as "runtime.'
    assert says in refusal(tmp_path)


class Gate:
    """Holds a model up, and counts what entered; the models of these tests find it by importing this module."""

    def __init__(self):
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()
        self.runs = 0


gate = Gate()

GATED = """
    from pathlib import Path
    from mlserver import MLModel
    from mlserver.types import InferenceResponse
    from tests.runtime import test_hosted_runs

    class Model(MLModel):
        async def predict(self, payload):
            gate = test_hosted_runs.gate
            gate.runs += 1
            gate.entered.release()
            assert gate.open.wait(60)
            return InferenceResponse(model_name=self.name, outputs=[])

        async def unload(self):
            (Path(__file__).parent / "unloaded").touch()
            return True
"""


@pytest.fixture
def blocked(tmp_path, monkeypatch):
    """Runs a scenario with an engine whose model is held up in its first call."""
    monkeypatch.setattr(sys.modules[__name__], "gate", Gate())

    def run(scenario, **options):
        folder = written(tmp_path, GATED, parameters={"extra": options})

        async def whole():
            async with running(tmp_path) as engine:
                first = asyncio.create_task(engine.infer(request()))
                await asyncio.to_thread(gate.entered.acquire)
                try:
                    await scenario(engine, first, folder)
                finally:
                    gate.open.set()

        asyncio.run(whole())

    return run


def test_a_model_that_blocks_holds_up_nobody_else(blocked):
    async def scenario(_engine, first, _folder):
        gate.open.set()  # by the event loop of the server, which has a turn though the model waits
        assert (await asyncio.wait_for(first, 60)).id == "7"

    blocked(scenario)


def test_unloading_waits_for_the_calls_that_are_there(blocked):
    async def scenario(engine, first, folder):
        second = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        unloading = asyncio.create_task(engine.unload("m"))
        await asyncio.sleep(0)
        assert not (folder / "unloaded").exists()
        gate.open.set()
        await asyncio.wait_for(unloading, 60)
        assert first.done()
        assert (await second).id == "7"
        assert (folder / "unloaded").exists()

    blocked(scenario)


def test_a_call_whose_deadline_passed_in_the_queue_is_not_run(blocked):
    async def scenario(engine, first, _folder):
        late = asyncio.create_task(engine.infer(request(), deadline=asyncio.get_running_loop().time()))
        await asyncio.sleep(0)
        gate.open.set()
        with pytest.raises(DeadlineExceeded, match="the deadline passed while the call waited for its turn"):
            await late
        await first
        assert gate.runs == 1

    blocked(scenario)


def test_a_cancelled_call_is_not_run_and_harms_no_other(blocked):
    async def scenario(engine, first, _folder):
        calls = [asyncio.create_task(engine.infer(request())) for _ in range(3)]
        await asyncio.sleep(0)
        calls[1].cancel()
        await asyncio.wait([calls[1]])
        gate.open.set()
        assert [(await each).id for each in (first, calls[0], calls[2])] == ["7", "7", "7"]
        assert gate.runs == 3

    blocked(scenario)


def test_a_full_queue_refuses(blocked):
    async def scenario(engine, first, _folder):
        waiting = asyncio.create_task(engine.infer(request()))
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted, match="1 calls already wait for model 'm', as many as may"):
            await engine.infer(request())
        gate.open.set()
        await asyncio.gather(first, waiting)

    blocked(scenario, max_queue=1)


def test_calls_whose_callers_left_stand_in_the_queue_until_their_turn(blocked):
    async def scenario(engine, first, _folder):
        for _ in range(3):
            left = asyncio.create_task(engine.infer(request()))
            await asyncio.sleep(0)
            left.cancel()
            await asyncio.wait([left])
        with pytest.raises(ResourceExhausted, match="2 calls already wait for model 'm', as many as may"):
            await engine.infer(request())
        gate.open.set()
        await first
        assert (await engine.infer(request())).id == "7"

    blocked(scenario, max_queue=2)


def test_a_failure_is_logged_by_its_type_and_place(tmp_path, caplog):
    code = """
        from mlserver import MLModel

        class Model(MLModel):
            async def predict(self, payload):
                raise KeyError("account 4711")
    """

    async def scenario():
        written(tmp_path, code)
        async with running(tmp_path) as engine:
            with pytest.raises(Internal, match="model 'm' failed: KeyError: 'account 4711'"):
                await engine.infer(request())

    asyncio.run(scenario())
    said = [each.getMessage() for each in caplog.records if each.name == "runtime.failure"]
    assert len(said) == 1
    assert re.fullmatch(r"model 'm' failed: KeyError at .*models\.py:6", said[0])


def test_a_model_that_awaits_answers_calls_at_once(tmp_path):
    code = """
        import asyncio
        from mlserver import MLModel
        from mlserver.types import InferenceResponse

        class Model(MLModel):
            async def load(self):
                self.both = asyncio.Barrier(2)
                return True

            async def predict(self, payload):
                await self.both.wait()
                return InferenceResponse(model_name=self.name, outputs=[])
    """
    written(tmp_path, code)

    async def scenario():
        async with running(tmp_path) as engine:
            await asyncio.wait_for(asyncio.gather(engine.infer(request()), engine.infer(request())), 60)

    asyncio.run(scenario())


def test_a_reload_takes_the_new_code(tmp_path):
    written(tmp_path, answers("[1, 2]"))

    async def scenario():
        async with running(tmp_path) as engine:
            assert outputs_of(await engine.infer(request()))["y"].tolist() == [1, 2]
            written(tmp_path, answers("[3, 4]"))
            await engine.load("m")
            assert outputs_of(await engine.infer(request()))["y"].tolist() == [3, 4]

    asyncio.run(scenario())


def test_nobody_else_pays_for_mlserver(tmp_path):
    """It is imported when the first model of its kind is loaded."""
    code = """
        import sys
        from pathlib import Path
        import runtime.__main__
        from runtime.formats import load_any
        from runtime.repository import Repository

        assert "mlserver" not in sys.modules
        for each in Repository(Path(sys.argv[1])).scan():
            load_any(each.settings, each.folder)
            print(each.name, "mlserver" in sys.modules)
    """
    plain = "class Model:\n    def predict(self, inputs):\n        return inputs"
    x = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
    written(tmp_path, plain, name="a-plain", inputs=x, outputs=x)
    written(tmp_path, ECHO, name="b-hosted")
    command = [sys.executable, "-c", dedent(code), str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert told.stdout.split() == ["a-plain", "False", "b-hosted", "True"], told.stderr


LEAVES = """
    import sys
    from asyncio import ensure_future, sleep
    from mlserver import MLModel
    from mlserver.types import InferenceResponse

    class Model(MLModel):
        async def load(self):
            self.leave("load")
            return True

        async def unload(self):
            self.leave("unload")
            return True

        async def predict(self, payload):
            self.leave(payload.id)
            if self.settings.parameters.extra["when"] == "task":
                ensure_future(self.later())
                await sleep(0)
            return InferenceResponse(model_name=self.name, outputs=[])

        async def predict_stream(self, payloads):
            async for payload in payloads:
                self.leave(payload.id)
                yield InferenceResponse(model_name=self.name, outputs=[])

        async def later(self):
            sys.exit(3)

        def leave(self, when):
            if when == self.settings.parameters.extra["when"]:
                sys.exit(3)
"""


@pytest.mark.parametrize("when", ["predict", "task", "unload"])
def test_a_model_that_would_end_the_process_ends_its_own_call(tmp_path, when):
    written(tmp_path, LEAVES, parameters={"extra": {"when": when}})
    leaves = request()
    leaves.id = "predict"

    async def scenario():
        async with asyncio.timeout(60), running(tmp_path) as engine:
            if when == "predict":
                with pytest.raises(Internal, match="model 'm' failed: SystemExit: 3"):
                    await engine.infer(leaves)
            else:
                await engine.infer(leaves)
            for _ in range(3):
                await engine.infer(request())

    asyncio.run(scenario())


CANCELS = """
    import asyncio
    from mlserver import MLModel

    class Model(MLModel):
        async def load(self):
            self.task = asyncio.ensure_future(asyncio.sleep(60))
            if self.settings.parameters.extra["fails"]:
                raise ValueError("the real reason")
            return True

        async def unload(self):
            self.task.cancel()
            await self.task
            return True
"""


def test_a_model_that_awaits_what_it_cancels_is_unloaded(tmp_path, caplog):
    written(tmp_path, CANCELS, parameters={"extra": {"fails": False}})

    async def scenario():
        async with asyncio.timeout(60), running(tmp_path) as engine:
            threads = threading.active_count()
            await engine.unload("m")
            assert not engine.all_served()
            await asyncio.to_thread(until, lambda: threading.active_count() < threads)

    asyncio.run(scenario())
    assert "model 'm' was not unloaded: CancelledError" in caplog.messages


def test_why_a_model_does_not_load_is_told_though_it_does_not_unload_either(tmp_path):
    written(tmp_path, CANCELS, parameters={"extra": {"fails": True}})
    assert refusal(tmp_path).endswith("ValueError: the real reason")


def test_a_stream_whose_model_would_end_the_process_ends_alone(tmp_path):
    written(tmp_path, LEAVES, parameters={"extra": {"when": "7"}})

    async def none():
        return
        yield

    async def scenario():
        async with asyncio.timeout(60), running(tmp_path) as engine:
            with pytest.raises(Internal, match="model 'm' failed: SystemExit: 3"):
                async for _ in engine.served("m", "").servable.infer_stream(request(), none(), None):
                    pass
            other = request()
            other.id = "8"
            await engine.infer(other)

    asyncio.run(scenario())


@pytest.mark.parametrize("when", ["__init__", "load"])
def test_a_model_that_would_end_the_process_as_it_loads_is_refused(tmp_path, when):
    code = LEAVES.replace(
        "async def load", "def __init__(self, settings):\n            sys.exit(3)\n\n        async def load"
    )
    written(tmp_path, LEAVES if when == "load" else code, parameters={"extra": {"when": "load"}})

    async def scenario():
        async with asyncio.timeout(60):
            engine = Engine(Repository(tmp_path), Metrics(CollectorRegistry()))
            (failed,) = await engine.load_all()
            await engine.close()
            return failed.reason

    assert re.search(
        r"models\.py, line \d+: RuntimeError: it would end the process, by SystemExit: 3$", asyncio.run(scenario())
    )
