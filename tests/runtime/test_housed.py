"""A user's code is at home in one thread: imported, loaded, tried out, run and closed there."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from protos.errors import FailedPrecondition, Internal
from runtime.batched import Batched
from runtime.formats import load
from runtime.metrics import ModelMetrics
from runtime.prepare import prepare
from runtime.repository import Repository
from tests.runtime.models import load_from, put, tensor

ROWS: dict[str, Any] = {"inputs": [tensor("x", "FP32", -1, 1)], "outputs": [tensor("y", "FP32", -1, 1)]}
X = {"x": np.ones((1, 1), np.float32)}

KEEPS = """
import asyncio
import decimal
import sqlite3
import threading

decimal.getcontext().prec = 4
here = threading.get_ident()

class Model:
    def load(self, folder):
        self.folder = folder
        self.local = threading.local()
        self.local.two = 2
        self.base = sqlite3.connect(":memory:")

    def predict(self, inputs):
        assert decimal.getcontext().prec == 4
        (two,) = self.base.execute("select ?", (self.local.two,)).fetchone()
        return {"y": asyncio.run(self.doubled(inputs["x"], two))}

    async def doubled(self, x, two):
        return x * two

    def close(self):
        self.base.close()
        (self.folder / "closed").write_text(str(threading.get_ident() == here))
"""


def threads(name):
    return [each for each in threading.enumerate() if each.name == f"model {name}"]


def written(root, name, code, **extra):
    """The folder of a model of that code, and its settings."""
    folder = put(root, name, implementation="models.Model", parameters={"extra": extra}, **ROWS)
    (folder / "models.py").write_text(code)
    (found,) = Repository(root).find(name)
    assert found.settings, found.reason
    return folder, found.settings


def test_what_a_thread_keeps_is_there_whoever_calls(tmp_path):
    folder, settings = written(tmp_path, "keeps", KEEPS)
    prepared = prepare(load, settings, folder)

    async def scenario():
        to = Batched(prepared.model, settings, ModelMetrics(), prepared.times)
        answers = await asyncio.gather(*(to.run(X) for _ in range(3)))
        assert [answer["y"].item() for answer in answers] == [2, 2, 2]
        await to.close()

    asyncio.run(scenario())
    assert (folder / "closed").read_text() == "True"
    prepared.model.close()  # a second time


def test_its_thread_ends_with_it(tmp_path):
    written(tmp_path, "ends", "class Model:\n    def predict(self, inputs):\n        return {'y': inputs['x']}\n")
    model = load_from(tmp_path, "ends")
    (thread,) = threads("ends")
    model.close()
    thread.join(60)
    assert not thread.is_alive()


def test_the_thread_of_one_that_does_not_load_ends(tmp_path):
    written(tmp_path, "fails", "1 / 0\n")
    with pytest.raises(FailedPrecondition, match=r"models.py, line 1: ZeroDivisionError: division by zero"):
        load_from(tmp_path, "fails")
    for thread in threads("fails"):
        thread.join(60)
        assert not thread.is_alive()


ENDS = """
import asyncio

class Stop(BaseException):
    pass

class Model:
    def load(self, folder, when, error):
        self.when, self.error = when, error
        self.now("load")

    def predict(self, inputs):
        self.now("predict")
        return {"y": inputs["x"]}

    def close(self):
        self.now("close")

    def now(self, when):
        if when == self.when:
            raise {"Stop": Stop, "KeyboardInterrupt": KeyboardInterrupt, "CancelledError": asyncio.CancelledError}[
                self.error
            ]("here")
"""


@pytest.mark.parametrize("error", ["Stop", "KeyboardInterrupt", "CancelledError"])
@pytest.mark.parametrize("when", ["load", "predict", "close"])
def test_what_would_end_a_process_or_a_task_ends_neither(tmp_path, when, error):
    name = f"{when} {error}"
    folder, settings = written(tmp_path, name, ENDS, when=when, error=error)
    if when == "close":
        model = prepare(load, settings, folder).model
        with suppress(Internal):
            model.close()
    else:
        with pytest.raises(FailedPrecondition, match=f"{error}: here"):
            prepare(load, settings, folder)
    for thread in threads(name):
        thread.join(60)
        assert not thread.is_alive()


WAITS = """
import time

class Model:
    def load(self, folder):
        self.folder = folder

    def predict(self, inputs):
        return {"y": inputs["x"]}

    def close(self):
        (self.folder / "begins").touch()
        end = time.monotonic() + 60
        while not (self.folder / "may end").exists() and time.monotonic() < end:
            time.sleep(0.001)
"""


def test_the_event_loop_goes_on_while_it_closes(tmp_path):
    folder, settings = written(tmp_path, "waits", WAITS)
    prepared = prepare(load, settings, folder)

    async def scenario():
        to = Batched(prepared.model, settings, ModelMetrics(), prepared.times)
        closing = asyncio.create_task(to.close())
        async with asyncio.timeout(60):
            while not (folder / "begins").exists():
                await asyncio.sleep(0.001)
        (folder / "may end").touch()
        await closing

    asyncio.run(scenario())


REUSES = """
import numpy as np

class Model:
    def load(self, folder):
        self.out = np.empty((64, 1), np.float32)

    def predict(self, inputs):
        x = inputs["x"]
        return {"y": np.multiply(x, 2, out=self.out[: len(x)])}
"""


def test_its_answer_stays_when_it_writes_the_next_one_in_the_same_place(tmp_path):
    written(tmp_path, "reuses", REUSES)
    model = load_from(tmp_path, "reuses")
    first = model.run(X)
    model.run({"x": 5 * X["x"]})
    assert first["y"].item() == 2
    model.close()


def test_a_text_output_that_holds_no_text_is_refused(tmp_path):
    outputs = [tensor("y", "BYTES", -1)]
    folder = put(tmp_path, "texts", implementation="models.Model", inputs=ROWS["inputs"], outputs=outputs)
    (folder / "models.py").write_text(
        "import numpy as np\n\n\nclass Model:\n    def predict(self, inputs):\n"
        "        return {'y': np.array([b'a', 'b', int(inputs['x'][0, 0])], object)}\n"
    )
    model = load_from(tmp_path, "texts")
    with pytest.raises(FailedPrecondition, match="output 'y' is BYTES; predict returns a int in it"):
        model.run(X)
    model.close()
