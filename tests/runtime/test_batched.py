"""A model shared by many: who may sit in one batch with whom."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protos.errors import InvalidArgument
from runtime.batched import QUICK, Batched, quick_rows
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, TensorSpec
from runtime.settings import FILE, read_settings
from tests.runtime.models import Fake

X = np.ones((1, 1))


class Shifted(Fake):
    """y = x + the parameter "by", which all of a batch must share."""

    def __init__(self):
        super().__init__(shape=(-1, -1))
        self.reads_parameters = True
        self.told = []

    def run(self, arrays, parameters=NOTHING):
        self.told.append((dict(parameters), len(arrays["x"])))
        return {"y": arrays["x"] + float(parameters.get("by", 0))}


class Two(Fake):
    """Two inputs."""

    inputs: Any

    def __init__(self):
        super().__init__()
        self.inputs = (TensorSpec("x", "FP64", (-1, 1)), TensorSpec("z", "FP64", (-1, 1)))


@pytest.fixture
def model_settings(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"implementation": "runtime.TorchScriptModel"}))
    return read_settings(tmp_path / FILE, name="m", version="")


def shared(model, model_settings):
    return Batched(model, model_settings, ModelMetrics(), {1: 0.0})


def test_only_calls_of_equal_parameters_share_a_batch(model_settings):
    async def scenario():
        model = Shifted()
        to = shared(model, model_settings)
        given = [{"by": 1}, {"by": 2}, {"by": 1}, {}, {"by": True}, {"by": 1.0}, {"by": "1"}]
        answers = await asyncio.gather(*(to.run({"x": X}, parameters) for parameters in given))
        assert [answer["y"].item() for answer in answers] == [2, 3, 2, 1, 2, 2, 2]
        assert [rows for _, rows in model.told] == [2, 1, 1, 1, 1, 1]
        assert [type(told.get("by")) for told, _ in model.told] == [int, int, type(None), bool, float, str]
        await to.close()

    asyncio.run(scenario())


def test_only_calls_of_one_shape_share_a_batch(model_settings):
    async def scenario():
        model = Shifted()
        to = shared(model, model_settings)
        given = [np.ones((2, 1)), np.ones((1, 3)), np.ones((3, 1))]
        answers = await asyncio.gather(*(to.run({"x": x}) for x in given))
        assert [answer["y"].shape for answer in answers] == [(2, 1), (1, 3), (3, 1)]
        assert [rows for _, rows in model.told] == [5, 1]
        await to.close()

    asyncio.run(scenario())


def test_inputs_of_different_numbers_of_rows_are_refused(model_settings):
    async def scenario():
        to = shared(Two(), model_settings)
        with pytest.raises(InvalidArgument, match="differ in their number of rows: 'x' 1, 'z' 2"):
            await to.run({"x": np.ones((1, 1)), "z": np.ones((2, 1))})
        await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("times", "rows"),
    [
        pytest.param({1: 0.5 * QUICK}, 1, id="one row, quick"),
        pytest.param({1: 2 * QUICK}, 0, id="one row, slow"),
        pytest.param({1: 0.1 * QUICK, 2: 0.1 * QUICK, 64: 0.9 * QUICK}, 64, id="quick with the most"),
        pytest.param({1: 1.5 * QUICK, 2: 1.5 * QUICK, 64: 2 * QUICK}, 0, id="slow with one"),
        pytest.param({1: 0.5 * QUICK, 2: 0.5 * QUICK, 12: 1.55 * QUICK}, 6, id="quick with some"),
        pytest.param({1: 0.5 * QUICK, 2: 600 * QUICK}, 1, id="too slow to be tried with the most"),
        pytest.param({1: 2 * QUICK, 2: 0.5 * QUICK, 3: 0.5 * QUICK}, 0, id="one slow run among quick ones"),
    ],
)
def test_a_batch_is_quick_by_the_times_of_the_warm_up(times, rows):
    assert quick_rows(times) == rows


@pytest.mark.parametrize(
    ("shape", "max_batch_size", "rows", "thread"),
    [
        pytest.param((-1, 1), 64, 64, "MainThread", id="as many rows as were timed"),
        pytest.param((-1, 1), 64, 65, "model fake", id="more rows"),
        pytest.param((-1, -1), 64, 1, "model fake", id="rows of any size"),
        pytest.param((-1, 1), 1, 1, "MainThread", id="one row, one call at a time"),
        pytest.param((-1, 1), 1, 2, "model fake", id="more rows, one call at a time"),
        pytest.param((1, 1), 64, 1, "MainThread", id="one size"),
    ],
)
def test_a_quick_model_runs_in_the_event_loop_as_far_as_it_was_timed(
    model_settings, shape, max_batch_size, rows, thread
):
    threads = []

    class Watched(Fake):
        def run(self, arrays, parameters=NOTHING):
            threads.append(threading.current_thread().name)
            return super().run(arrays)

    async def scenario():
        settings = replace(model_settings, max_batch_size=max_batch_size)
        to = Batched(Watched(shape=shape), settings, ModelMetrics(), {1: 1e-6, max_batch_size: 1e-6})
        await to.run({"x": np.ones((rows, 1))})
        await to.close()

    asyncio.run(scenario())
    assert threads == [thread]
