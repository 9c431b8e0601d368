"""Reloads in place: the old model is gone before the new one is loaded, and calls wait for it. GPUs are pretended."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from protos.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from protos.tensors import outputs_of
from runtime import batched, formats
from runtime.catalogue import Entry, State
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.model import NOTHING
from runtime.repository import Repository
from runtime.sample import Sample
from runtime.settings import FILE
from tests.runtime.models import Fake, Mlp, put, tensor
from tests.runtime.test_cuda import pretending
from tests.runtime.test_engine import answer, request, told
from tests.runtime.test_ensemble import chain, ensemble

SOON = 60  # seconds, within which everything here ends
TOO_LARGE = "too large"  # a factor that loads on the CPU only


class Placed(Fake):
    """y = factor * x, with the tensors that its settings declare, on the device that they name."""

    def __init__(self, settings, text, gpu):
        super().__init__(settings.name, settings.version)
        self.inputs, self.outputs = settings.inputs, settings.outputs
        self.device = settings.options.device
        if text == TOO_LARGE and self.device != "cpu":
            raise MemoryError("no room on the GPU")
        self.factor = 1.0 if text == TOO_LARGE else float(text)
        self.gpu = gpu
        gpu.begins(self)

    def run(self, arrays, parameters=NOTHING):
        assert not self.closed
        ((_, x),) = arrays.items()
        self.batches.append(x)
        if (x == self.gpu.stops_at).any():
            self.gpu.running.release()
            assert self.gpu.go_on.wait(SOON)
        return {self.outputs[0].name: self.factor * x}

    def close(self):
        super().close()
        self.gpu.ends(self)


class Gpu:
    """Loads models, and knows how many lay on one GPU at once. Loading on it can be held up, and so can a run."""

    def __init__(self):
        self.models = []
        self.alive = set()
        self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.stops_at = None
        self.running = threading.Semaphore(0)
        self.go_on = threading.Event()

    def __call__(self, settings, folder):
        text = (folder / "factor").read_text()
        if settings.options.device != "cpu":
            self.entered.release()
            assert self.gate.wait(SOON)
        return Placed(settings, text, self)

    def begins(self, model):
        self.models.append(model)
        if model.device != "cpu":
            self.alive.add(model)
            self.most = max(self.most, len(self.alive))

    def ends(self, model):
        self.alive.discard(model)

    def devices(self):
        return [model.device for model in self.models]

    def seen(self):
        """Every number that a model on the GPU was asked about, but those of its warm-up."""
        return [x for model in self.models if model.device != "cpu" for each in model.batches for x in each[:, 0]]


def keep(root, factor, name="m", version="", device="cuda", shape=(-1, -1), **extra):
    """Puts a model into the repository, or changes it."""
    folder = put(
        root,
        name,
        version=version,
        parameters={"extra": {"device": device, **extra}},
        inputs=[tensor("x", "FP64", *shape)],
        outputs=[tensor("y", "FP64", *shape)],
    )
    (folder / "factor").write_text(str(factor))


@asynccontextmanager
async def running(root, load=None, registry=None):
    engine = Engine(Repository(root), Metrics(registry or CollectorRegistry()), load=load or Gpu())
    try:
        yield engine
    finally:
        await asyncio.wait_for(engine.close(), SOON)


@asynccontextmanager
async def serving(root, **how):
    """An engine with the model "m" in service, whose factor is 1, and the GPU that it lies on."""
    keep(root, 1, **how)
    gpu = Gpu()
    async with running(root, gpu) as engine:
        await engine.load("m")
        yield engine, gpu


@asynccontextmanager
async def swapping(engine, gpu, name="m"):
    """A reload of a model that was changed, stopped where the old one is gone and the new one is not there."""
    while gpu.entered.acquire(blocking=False):
        pass
    gpu.gate.clear()
    loading = asyncio.create_task(engine.load(name))
    try:
        await asyncio.to_thread(gpu.entered.acquire)
        yield loading
    finally:
        gpu.gate.set()
        await asyncio.wait([loading], timeout=SOON)


def ask(engine, **how):
    return asyncio.create_task(answer(engine, **how))


async def settle():
    """Lets calls go as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(scenario):
    asyncio.run(asyncio.wait_for(scenario(), 2 * SOON))


def test_the_old_model_is_gone_before_the_new_one_comes_and_calls_wait_for_it(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2)
            async with swapping(engine, gpu) as loading:
                assert not gpu.alive
                calls = [ask(engine) for _ in range(5)]
                await settle()
                assert not any(call.done() for call in calls)
                assert engine.is_ready("m", "")
                assert engine.ready()
                assert await told(engine) == [Entry("m", "", State.READY)]
                assert [each.name for each in engine.metadata("m", "").inputs] == ["x"]
                assert list(engine.metadata("m", "").versions) == list(engine.metadata("m", "").versions) == []
            await loading
            assert await asyncio.gather(*calls) == [2] * 5
            assert gpu.devices() == ["cuda", "cpu", "cuda"]
            assert [model.closed for model in gpu.models] == [1, 1, 0]
            assert gpu.most == 1

    run(scenario)


def test_calls_that_were_there_before_are_answered_by_the_old_model(tmp_path, monkeypatch):
    monkeypatch.setattr(batched, "QUICK", 0.0)  # it gets a thread
    keep(tmp_path, 1)

    async def scenario():
        gpu = Gpu()
        gpu.stops_at = 7.0
        async with running(tmp_path, gpu) as engine:
            await engine.load("m")
            first = asyncio.create_task(engine.infer(request(x=np.full((1, 2), 7.0))))
            await asyncio.to_thread(gpu.running.acquire)
            queued = ask(engine)
            await settle()
            keep(tmp_path, 2)
            loading = asyncio.create_task(engine.load("m"))
            while len(gpu.models) < 2 or not gpu.models[1].closed:  # the rehearsal
                await asyncio.sleep(0.001)
            later = ask(engine)
            await settle()
            assert gpu.devices() == ["cuda", "cpu"]
            gpu.go_on.set()
            await loading
            assert outputs_of(await first)["y"][0, 0] == 7
            assert await queued == 1
            assert await later in (1, 2)
            assert gpu.most == 1

    run(scenario)


def test_held_calls_run_in_the_order_in_which_they_came(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2)
            async with swapping(engine, gpu) as loading:
                calls = [asyncio.create_task(engine.infer(request(x=np.full((1, 2), 100.0 + i)))) for i in range(50)]
                await settle()
                calls[10].cancel()
            await loading
            with pytest.raises(asyncio.CancelledError):
                await calls.pop(10)
            answers = await asyncio.gather(*calls)
            order = [100 + i for i in range(50) if i != 10]
            assert [outputs_of(each)["y"][0, 0] / 2 for each in answers] == order
            assert [x for x in gpu.seen() if x >= 100] == order

    run(scenario)


@pytest.mark.parametrize("seed", range(6))
def test_in_a_storm_of_calls_and_reloads_each_call_ends_and_rightly(tmp_path, seed, monkeypatch):
    """By its own number times the factor of a model that was there in its time, or by its own end."""
    if seed % 2:
        monkeypatch.setattr(batched, "QUICK", 0.0)
    keep(tmp_path, 1)
    chance = random.Random(seed)

    async def scenario():
        gpu = Gpu()
        loop = asyncio.get_running_loop()
        async with running(tmp_path, gpu) as engine:
            await engine.load("m")
            served, expired, cancelled = 1, [], []

            async def call(number):
                least = served
                late = number % 10 == 3
                asked = request(x=np.full((1, 1), 1000.0 + number))
                try:
                    response = await engine.infer(asked, deadline=loop.time() - 1 if late else loop.time() + SOON)
                except DeadlineExceeded:
                    assert late
                    expired.append(1000.0 + number)
                    return None
                factor = outputs_of(response)["y"][0, 0] / (1000 + number)
                assert least <= factor <= least + 1
                return factor

            async def reload():
                nonlocal served
                for factor in range(2, 7):
                    keep(tmp_path, factor)
                    await engine.load("m")
                    served = factor

            calls: list[asyncio.Task[float | None]] = []

            def come(count):
                calls.extend(asyncio.create_task(call(len(calls) + i)) for i in range(count))

            come(20)
            await settle()
            reloads = asyncio.create_task(reload())
            while not reloads.done():
                come(chance.randrange(4))
                if chance.random() < 0.1:
                    victim = chance.choice(calls)
                    if victim.cancel():
                        cancelled.append(victim)
                await asyncio.sleep(chance.choice((0, 0, 0.001)))
            await reloads
            come(20)
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(each, float | None | asyncio.CancelledError) for each in answers)
            assert sum(isinstance(each, asyncio.CancelledError) for each in answers) <= len(cancelled)
            assert answers.count(None) == len(expired) > 0
            assert not set(expired) & set(gpu.seen())
            assert {each for each in answers if isinstance(each, float)} >= {1.0, 6.0}
            assert gpu.most == 1

    run(scenario)


def test_a_held_call_whose_deadline_passes_is_told_at_once_and_never_runs(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2)
            async with swapping(engine, gpu) as loading:
                for patience in (-1, 0.01):
                    deadline = asyncio.get_running_loop().time() + patience
                    with pytest.raises(DeadlineExceeded, match="while the model was loaded anew"):
                        await engine.infer(request(x=np.full((1, 1), 9.0)), deadline=deadline)
                assert not loading.done()
            await loading
            assert await answer(engine) == 2
            assert 9.0 not in gpu.seen()

    run(scenario)


def test_no_more_calls_are_held_than_may_wait_and_those_that_leave_make_room(tmp_path):
    keep(tmp_path, 1, max_queue=2)

    async def scenario():
        gpu, registry = Gpu(), CollectorRegistry()

        def counted(name, **labels):
            return registry.get_sample_value(f"runtime_{name}", {"model": "m", "version": "", **labels})

        async with running(tmp_path, gpu, registry) as engine:
            await engine.load("m")
            keep(tmp_path, 2, max_queue=2)
            async with swapping(engine, gpu) as loading:
                calls = [ask(engine) for _ in range(2)]
                await settle()
                assert counted("requests_in_flight") == 2
                with pytest.raises(ResourceExhausted, match="2 calls already wait while model 'm' is loaded anew"):
                    await answer(engine)
                with pytest.raises(ResourceExhausted):
                    engine.admit("m", "")
                calls.pop().cancel()
                await settle()
                engine.admit("m", "")
                calls.append(ask(engine))
                await settle()
            await loading
            assert await asyncio.gather(*calls) == [2, 2]
            assert counted("requests_total", code="RESOURCE_EXHAUSTED") == 2
            assert counted("requests_total", code="CANCELLED") == 1
            assert counted("requests_total", code="OK") == 2
            assert counted("requests_in_flight") == 0
            assert counted("model_memory_bytes") == 1000
            assert counted("model_loaded") == 1

    run(scenario)


@pytest.mark.parametrize("wrong", ["broken", "sample", "settings"])
def test_what_would_not_work_is_refused_while_the_old_model_serves_on(tmp_path, wrong):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, "broken" if wrong == "broken" else 2)
            says = "could not convert string to float: 'broken'"
            if wrong == "sample":
                x = np.ones((1, 2))
                Sample({"x": x}, {"y": 3 * x}).write(tmp_path / "m" / "warm-up.npz")
                says = "warm-up sample .* found on the CPU, .* the one on cuda:0 is let go: .* parameters.extra.overlap"
            if wrong == "settings":
                keep(tmp_path, 2, shape=(-1, 4), cuda_graphs=True, warm_up_size=1)
                settings = tmp_path / "m" / FILE
                settings.write_text(settings.read_text().replace("[-1, 4]", "[4]", 1))
                says = "m/model-settings.json: parameters.extra.cuda_graphs: 'x' is FP64"
            with pytest.raises(FailedPrecondition, match=says):
                await engine.load("m")
            assert await answer(engine) == 1
            (entry,) = await told(engine)
            assert entry.state is State.READY
            assert entry.reason
            assert len(gpu.alive) == gpu.most == 1
            assert all(model.closed for model in gpu.models[1:])

    run(scenario)


def test_where_the_new_model_fails_when_the_old_one_is_gone_held_calls_are_told_why(tmp_path):
    keep(tmp_path, 1)

    async def scenario():
        gpu, registry = Gpu(), CollectorRegistry()
        async with running(tmp_path, gpu, registry) as engine:
            await engine.load("m")
            keep(tmp_path, TOO_LARGE)
            async with swapping(engine, gpu) as loading:
                calls = [ask(engine) for _ in range(3)]
                await settle()
            with pytest.raises(FailedPrecondition, match="MemoryError: no room on the GPU"):
                await loading
            for call in calls:
                with pytest.raises(Unavailable, match=r"'m' is served no more, .* anew: MemoryError: no"):
                    await call
            assert await told(engine) == [Entry("m", "", State.UNAVAILABLE, "MemoryError: no room on the GPU")]
            with pytest.raises(NotFound, match="model 'm' is not loaded: MemoryError"):
                await answer(engine)
            labels = {"model": "m", "version": ""}
            assert registry.get_sample_value("runtime_model_memory_bytes", labels) is None
            assert not gpu.alive
            keep(tmp_path, 3)
            await engine.load("m")
            assert await answer(engine) == 3

    run(scenario)


def test_a_held_call_that_does_not_fit_the_new_model_is_refused_by_it(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2, shape=(-1, 4))
            async with swapping(engine, gpu) as loading:
                calls = [ask(engine), asyncio.create_task(engine.infer(request(x=np.ones((1, 4)))))]
                await settle()
            await loading
            with pytest.raises(InvalidArgument, match=r"input 'x' is declared FP64 \[-1, 4\]; the request has FP64"):
                await calls[0]
            assert outputs_of(await calls[1])["y"].tolist() == [[2] * 4]

    run(scenario)


def test_ensembles_wait_for_a_part_that_is_swapped(tmp_path):
    keep(tmp_path, 1, "a")
    keep(tmp_path, 10, "b", device="cpu")
    ensemble(tmp_path, "mean", members={"a": 1, "b": 1})
    chain(tmp_path, "twice", "b", "a")
    ensemble(tmp_path, "nested", members={"twice": 1, "b": 1})
    put(tmp_path, "top", inputs=[tensor("a", "FP64", -1, -1)], outputs=[tensor("y", "FP64", -1, -1)])
    (tmp_path / "top" / "factor").write_text("5")
    ensemble(tmp_path, "stacked", combine="stack", members={"a": 1}, stacker="top")
    expected = {"mean": 6, "twice": 20, "nested": 15, "stacked": 10}

    async def scenario():
        gpu = Gpu()
        async with running(tmp_path, gpu) as engine:
            assert await engine.load_all() == []
            keep(tmp_path, 2, "a")
            async with swapping(engine, gpu, "a") as loading:
                calls = [ask(engine, name=name) for name in expected]
                await settle()
                assert not any(call.done() for call in calls)
                assert engine.metadata("stacked", "").inputs[0].name == "x"
            await loading
            assert await asyncio.gather(*calls) == list(expected.values())
            assert gpu.most == 1

    run(scenario)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x", "'a' as it is loaded now: it takes 'z'; there is 'x'"),
        ("y", "what is made of 'a' as it is loaded now: it takes 'y'; there is 'z'"),
    ],
)
def test_ensembles_are_told_that_a_part_has_other_tensors_now(tmp_path, name, says):
    keep(tmp_path, 1, "a")
    chain(tmp_path, "desk", "a")

    async def scenario():
        gpu = Gpu()
        async with running(tmp_path, gpu) as engine:
            await engine.load("desk")
            keep(tmp_path, 2, "a")
            settings = tmp_path / "a" / FILE
            settings.write_text(settings.read_text().replace(f'"{name}"', '"z"'))
            async with swapping(engine, gpu, "a") as loading:
                call = ask(engine, name="desk")
                await settle()
            await loading
            with pytest.raises(FailedPrecondition, match=says):
                await call

    run(scenario)


def test_an_ensemble_says_that_its_part_did_not_come_back(tmp_path):
    keep(tmp_path, 1, "a", max_queue=1)
    chain(tmp_path, "desk", "a")

    async def scenario():
        gpu = Gpu()
        async with running(tmp_path, gpu) as engine:
            await engine.load("desk")
            keep(tmp_path, TOO_LARGE, "a", max_queue=1)
            async with swapping(engine, gpu, "a") as loading:
                call = ask(engine, name="desk")
                await settle()
                with pytest.raises(ResourceExhausted, match="1 calls already wait while model 'a'"):
                    await answer(engine, "desk")
            with suppress(FailedPrecondition):
                await loading
            with pytest.raises(Unavailable, match="'a' is served no more"):
                await call

    run(scenario)


def test_unload_and_another_load_wait_for_the_end_of_a_swap(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2)
            async with swapping(engine, gpu) as loading:
                held = [ask(engine) for _ in range(3)]
                await settle()
                keep(tmp_path, 3)
                again = asyncio.create_task(engine.load("m"))
                unloading = asyncio.create_task(engine.unload("m"))
                await settle()
            await asyncio.gather(loading, again, unloading)
            assert await asyncio.gather(*held) == [2] * 3
            with pytest.raises(NotFound, match="unloaded"):
                await answer(engine)
            assert not gpu.alive
            assert gpu.most == 1

    run(scenario)


def test_an_engine_that_closes_answers_what_is_held(tmp_path):
    async def scenario():
        async with serving(tmp_path) as (engine, gpu):
            keep(tmp_path, 2)
            async with swapping(engine, gpu):
                held = [ask(engine) for _ in range(3)]
                await settle()
                await asyncio.wait_for(engine.close(), SOON)
                for call in held:
                    with pytest.raises(Unavailable, match="the server stops"):
                        await call

    run(scenario)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_an_engine_that_closes_while_the_old_model_finishes_lets_it_finish(tmp_path, monkeypatch, device):
    monkeypatch.setattr(batched, "QUICK", 0.0)
    keep(tmp_path, 1, device=device)

    async def scenario():
        gpu = Gpu()
        gpu.stops_at = 7.0
        async with running(tmp_path, gpu) as engine:
            await engine.load("m")
            first = asyncio.create_task(engine.infer(request(x=np.full((1, 2), 7.0))))
            await asyncio.to_thread(gpu.running.acquire)
            keep(tmp_path, 2, device=device)
            loading = asyncio.create_task(engine.load("m"))
            before = engine.served("m", "").servable
            while engine.served("m", "").servable is before:
                await asyncio.sleep(0.001)
            await settle()
            closing = asyncio.create_task(engine.close())
            await settle()
            assert not closing.done()
            gpu.go_on.set()
            await closing
            assert outputs_of(await first)["y"][0, 0] == 7
            assert gpu.models[0].closed == 1
            await asyncio.wait([loading])

    run(scenario)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"device": "cpu"}, {"device": "cpu"}),
        ({"device": "cpu", "overlap": True}, {"device": "cpu", "overlap": True}),
        ({"device": "cuda"}, {"device": "cuda", "overlap": "true"}),
        ({"device": "cuda"}, {"device": "cuda:1"}),
        ({"device": "cuda:1"}, {"device": "cpu"}),
        ({"device": "cpu"}, {"device": "cuda"}),
    ],
)
def test_elsewhere_or_where_it_is_asked_for_both_are_there_and_no_call_waits(tmp_path, before, after):
    keep(tmp_path, 1, **before)

    async def scenario():
        gate = threading.Event()
        gate.set()
        entered = threading.Semaphore(0)
        gpu = Gpu()

        def load(settings, folder):
            entered.release()
            assert gate.wait(SOON)
            return gpu(settings, folder)

        async with running(tmp_path, load) as engine:
            await engine.load("m")
            entered.acquire(blocking=False)
            keep(tmp_path, 2, **after)
            gate.clear()
            loading = asyncio.create_task(engine.load("m"))
            await asyncio.to_thread(entered.acquire)
            assert await answer(engine) == 1
            assert not gpu.models[0].closed
            gate.set()
            await loading
            assert await answer(engine) == 2
            assert gpu.devices() == [before["device"], after["device"]]

    run(scenario)


@pytest.mark.parametrize("factor", [2, TOO_LARGE])
def test_a_version_comes_in_the_place_of_one_that_left_the_disk(tmp_path, factor):
    keep(tmp_path, 1, version="1")

    async def scenario():
        gpu, registry = Gpu(), CollectorRegistry()
        async with running(tmp_path, gpu, registry) as engine:
            await engine.load("m")
            shutil.rmtree(tmp_path / "m" / "1")
            keep(tmp_path, factor, version="2")
            async with swapping(engine, gpu) as loading:
                calls = [ask(engine), ask(engine, version="2")]
                await settle()
                with pytest.raises(NotFound, match="version '1' is not loaded: it is being unloaded"):
                    await answer(engine, version="1")
            await asyncio.wait([loading])
            if factor == TOO_LARGE:
                assert isinstance(loading.exception(), FailedPrecondition)
                for call in calls:
                    with pytest.raises(Unavailable, match="no room on the GPU"):
                        await call
                assert {each.state for each in await told(engine)} == {State.UNAVAILABLE}
            else:
                assert await asyncio.gather(*calls) == [2, 2]
                assert await told(engine) == [Entry("m", "2", State.READY)]
            assert engine.ready()
            assert gpu.most == 1
            labels = {"model": "m", "version": "1"}
            assert registry.get_sample_value("runtime_requests_in_flight", labels) is None

    run(scenario)


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_two_spellings_of_a_gpu_are_one(tmp_path, device):
    async def scenario():
        async with serving(tmp_path, device="cuda") as (engine, gpu):
            keep(tmp_path, 2, device=device)
            await engine.load("m")
            assert gpu.devices() == ["cuda", "cpu", device]
            assert gpu.most == 1

    run(scenario)


def test_of_several_models_that_are_swapped_none_keeps_the_others_calls_waiting_for_a_thread(tmp_path):
    """A model is not let go of before there is a thread to load the new one in."""
    names = [f"m{i}" for i in range(6)]
    for name in names:
        keep(tmp_path, 1, name)

    async def scenario():
        gpu = Gpu()
        async with running(tmp_path, gpu) as engine:
            await engine.load_all()
            for name in names:
                keep(tmp_path, 2, name)
            async with swapping(engine, gpu, names[0]) as loading:
                others = [asyncio.create_task(engine.load(name)) for name in names[1:]]
                await asyncio.to_thread(gpu.entered.acquire)
                await settle()
                calls = {name: ask(engine, name=name) for name in names}
                while len(left := [call for call in calls.values() if not call.done()]) > 2:
                    await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                await settle()
                assert sum(not call.done() for call in calls.values()) == 2
            await asyncio.gather(loading, *others)
            assert set(await asyncio.gather(*calls.values())) == {1, 2}
            assert [await answer(engine, name) for name in names] == [2] * 6

    run(scenario)


GPU = {"parameters": {"extra": {"device": "cuda", "cuda_graphs": True, "explain": True}}, "max_batch_size": 8}


def test_real_archives_are_tried_out_swapped_and_explained(tmp_path):
    pytest.importorskip("captum")
    put(tmp_path, "m", Mlp(0), **GPU)

    async def scenario():
        gate, entered = threading.Event(), threading.Semaphore(0)
        devices = []

        def load(settings, folder):
            devices.append(settings.options.device)
            if len(devices) > 2 and devices[-1] == "cuda":
                entered.release()
                assert gate.wait(SOON)
            return formats.load(settings, folder)

        async with running(tmp_path, load) as engine:
            await engine.load("m")
            put(tmp_path, "m", b"no archive", **GPU)
            x = np.ones((2, 4), np.float32)
            with pytest.raises(FailedPrecondition, match=r"model.pt is not a TorchScript archive.* found on the CPU"):
                await engine.load("m")
            first = outputs_of(await engine.infer(request(x=x)))["y"]
            put(tmp_path, "m", Mlp(1), **GPU)
            loading = asyncio.create_task(engine.load("m"))
            await asyncio.to_thread(entered.acquire)
            asked = request(x=x)
            asked.parameters["explain"].bool_param = True
            call = asyncio.create_task(engine.infer(asked))
            await settle()
            gate.set()
            await loading
            answers = outputs_of(await call)
            with torch.no_grad():
                np.testing.assert_allclose(first, Mlp(0)(torch.from_numpy(x)).numpy(), rtol=1e-5)
                np.testing.assert_allclose(answers["y"], Mlp(1)(torch.from_numpy(x)).numpy(), rtol=1e-5)
            total = answers["explain.x"].sum(axis=1) + answers["explain.baseline"] - answers["explain.delta"]
            np.testing.assert_allclose(total, answers["y"][:, 0], rtol=1e-4, atol=1e-5)
            assert devices == ["cuda", "cpu", "cpu", "cuda"]

    with pretending(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.formats.integrated_gradients.device_of", lambda _: torch.device("cpu"))
        run(scenario)
