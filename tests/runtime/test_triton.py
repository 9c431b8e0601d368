"""What Triton's clients are told about a model, and what they may change of it."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from protos.errors import CallError, FailedPrecondition, InvalidArgument, NotFound
from protos.grpc import Rpc
from protos.messages import ModelInferRequest, as_dict
from protos.tensors import add_inputs
from runtime.engine import Engine
from runtime.metrics import Metrics
from runtime.repository import Repository
from runtime.server import RuntimeService
from tests.runtime.models import Fake, put, tensor

FAKE: dict[str, Any] = {"inputs": [tensor("x", "FP64", -1, 2)], "outputs": [tensor("y", "FP64", -1, 2)]}


def fake(settings, folder):
    """What the engine loads: a model that claims to be as declared."""
    model = Fake(settings.name, settings.version)
    model.inputs, model.outputs = settings.inputs, settings.outputs
    return model


def serving(root, scenario, **options):
    """Runs `scenario(service)` beside a repository."""

    async def run():
        engine = Engine(Repository(root), Metrics(CollectorRegistry()), load=fake)
        await engine.load_all()
        try:
            return await scenario(RuntimeService(engine))
        finally:
            await engine.close()

    return asyncio.run(run())


async def infer(service, rows, model="m"):
    request = ModelInferRequest(model_name=model)
    add_inputs(request, {"x": np.asarray(rows, np.float64)}, raw=True)
    return await service.infer(request.SerializeToString(), Rpc([]))


# --------------------------------------------------------------------------------------------------- configuration


def test_a_model_that_shares_runs_is_told_without_its_rows(tmp_path):
    put(tmp_path, "m", **FAKE, max_batch_size=16, max_batch_time=0.002, parameters={"extra": {"threads": "3"}})

    async def scenario(service):
        return as_dict(await service.model_config("m", ""))

    config = serving(tmp_path, scenario)
    assert config["max_batch_size"] == 16
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP64", "dims": [2]}]
    assert config["output"] == [{"name": "y", "data_type": "TYPE_FP64", "dims": [2]}]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 2000
    assert config["parameters"]["threads"] == {"string_value": "3"}
    assert config["version_policy"] == {"all": {}}


@pytest.mark.parametrize("name", ["m", "desk"])
def test_a_model_that_runs_one_call_at_a_time_is_told_whole(tmp_path, name):
    put(tmp_path, "m", **FAKE, max_batch_size=0)
    made: dict[str, Any] = {"implementation": "runtime.Ensemble", "parameters": {"extra": {"members": {"m": 1}}}}
    put(tmp_path, "desk", inputs=None, outputs=None, **made, max_batch_size=16)  # whose parts may share runs

    async def scenario(service):
        return as_dict(await service.model_config(name, ""))

    config = serving(tmp_path, scenario)
    assert config["max_batch_size"] == 0
    assert config["input"][0]["dims"] == [-1, 2]
    assert "dynamic_batching" not in config


def test_what_a_users_class_keeps_in_its_settings_is_not_told(tmp_path):
    extra = {"password": "secret", "threads": 2}
    put(tmp_path, "m", **FAKE, implementation="theirs.Model", parameters={"extra": extra})

    async def scenario(service):
        return as_dict(await service.model_config("m", ""))

    config = serving(tmp_path, scenario)
    assert config["parameters"]["threads"] == {"string_value": "2"}
    assert "secret" not in json.dumps(config)


def test_a_configuration_overrides_the_settings_until_the_next_load(tmp_path):
    put(tmp_path, "m", **FAKE, max_batch_size=16)
    config = {
        "name": "m",
        "max_batch_size": 4,
        "dynamic_batching": {"max_queue_delay_microseconds": 500},
        "parameters": {"max_queue": {"string_value": "7"}},
        "platform": "ours",
    }

    async def scenario(service):
        found = []
        for load in (lambda: service.load_as("m", json.dumps(config)), lambda: service.load("m")):
            await load()
            settings = service._engine.served("m", "").settings
            found.append((settings.max_batch_size, settings.max_batch_time, settings.options.max_queue))
            found.append((await service.model_config("m", "")).max_batch_size)
        return found

    assert serving(tmp_path, scenario) == [(4, 0.0005, 7), 4, (16, 0.0, 1024), 16]


def test_a_configuration_can_be_sent_back_as_it_was_told(tmp_path):
    """Then nothing changes."""
    x = {**tensor("x", "FP64", -1, 2), "parameters": {"content_type": "np"}}
    put(tmp_path, "m", **{**FAKE, "inputs": [x]}, parameters={"extra": {"threads": 2, "max_batch_size": 8}})
    put(tmp_path, "alone", **FAKE, max_batch_size=1)

    async def scenario(service):
        for name in ("m", "alone"):
            told = await service.model_config(name, "")
            before, metadata = service._engine.served(name, "").settings, service._engine.metadata(name, "")
            await service.load_as(name, json.dumps(as_dict(told)))
            assert service._engine.metadata(name, "") == metadata
            assert await service.model_config(name, "") == told
            after = service._engine.served(name, "").settings
            assert (after.max_batch_size, after.options.threads) == (before.max_batch_size, before.options.threads)
            assert (after.inputs, after.outputs) == (before.inputs, before.outputs)

    serving(tmp_path, scenario)


ENSEMBLE: dict[str, Any] = {
    "implementation": "runtime.Ensemble",
    "inputs": None,
    "outputs": None,
    "parameters": {"extra": {"members": {"a": 1, "b": 3}}},
}


def test_an_ensemble_is_told_and_overridden_too(tmp_path):
    put(tmp_path, "a", **FAKE)
    put(tmp_path, "b", **FAKE)
    put(tmp_path, "both", **ENSEMBLE)

    async def scenario(service):
        told = as_dict(await service.model_config("both", ""))
        assert told["platform"] == "croupier_ensemble"
        assert json.loads(told["parameters"]["members"]["string_value"]) == {"a": 1.0, "b": 3.0}
        await service.load_as("both", json.dumps(told))
        assert as_dict(await service.model_config("both", "")) == told
        await service.load_as("both", '{"parameters": {"combine": {"string_value": "mean"}}}')
        await infer(service, [[1, 2]], "both")
        await infer(service, [[1, 2]], "both")
        (counted,) = (await service.statistics("both", "")).model_stats
        assert (counted.inference_count, counted.execution_count) == (2, 2)

    serving(tmp_path, scenario)


def test_no_batches_are_an_override_too(tmp_path):
    put(tmp_path, "m", **FAKE, max_batch_size=16)

    async def scenario(service):
        await service.load_as("m", '{"maxBatchSize": 0}')
        return await service.model_config("m", "")

    config = serving(tmp_path, scenario)
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [-1, 2])


X = '{"name": "x", "data_type": "TYPE_FP64", "dims": [2]}'
Z = '{"name": "z", "data_type": "TYPE_FP64", "dims": [2, -7]}'


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("", "config: "),
        ("[]", "config: "),
        ("{", "config: "),
        ('{"max_batch_size": "many"}', "config: Failed to parse max_batch_size"),
        ('{"backend": "onnxruntime"}', 'no field named "backend".* understood are: name, platform, '),
        ('{"name": "other"}', "config: name: it is 'other' for the model 'm'"),
        ('{"max_batch_size": -1}', "config: max_batch_size: Expected `int` >= 0"),
        ('{"parameters": {"max_queu": {"string_value": "7"}}}', "config: Object contains unknown field `max_queu`"),
        ('{"parameters": {"max_queue": {"string_value": "few"}}}', "config: max_queue: Expected `int`, got `str`"),
        ('{"input": [{"name": "x", "dims": [2]}]}', "config: 'x' has no data_type"),
        (f'{{"input": [{X}, {Z}]}}', r"config: input\[1\].dims: \[2, -7\]: a size is 0 or more, or -1 for any"),
        (f'{{"output": [{X}, {X}]}}', r"config: output\[1\].name: 'x' is declared twice"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(tmp_path, config, sentence):
    put(tmp_path, "m", **FAKE)

    async def scenario(service):
        with pytest.raises(InvalidArgument, match=sentence):
            await service.load_as("m", config)
        assert (await service.model_config("m", "")).max_batch_size == 64

    serving(tmp_path, scenario)


def test_a_configuration_that_the_model_does_not_fit_leaves_the_old_one_in_service(tmp_path):
    put(tmp_path, "m", **FAKE)
    config = {"max_batch_size": 4, "output": [{"name": "y", "data_type": "TYPE_INT8", "dims": [2]}]}

    async def scenario(service):
        with pytest.raises(FailedPrecondition, match=r"output 'y' is declared INT8 \[-1, 2\]; the model returns FP64"):
            await service.load_as("m", json.dumps(config))
        await infer(service, [[1, 2]])
        assert (await service.model_config("m", "")).max_batch_size == 64

    serving(tmp_path, scenario)


# ------------------------------------------------------------------------------------------------------ statistics


def test_statistics_count_rows_runs_and_failures(tmp_path):
    put(tmp_path, "m", **FAKE)

    async def scenario(service):
        before = time.time()
        await asyncio.gather(*(infer(service, [[1, 2], [3, 4]]) for _ in range(3)))
        await infer(service, [[5, 6]])
        with pytest.raises(CallError):
            await infer(service, [[1, 2, 3]])
        (told,) = (await service.statistics("m", "")).model_stats
        assert (told.name, told.version) == ("m", "")
        assert (told.inference_count, told.execution_count) == (7, 2)
        stats = told.inference_stats
        assert (stats.success.count, stats.fail.count) == (4, 1)
        assert (stats.queue.count, stats.compute_infer.count) == (4, 2)
        assert stats.success.ns > stats.compute_infer.ns > 0
        seconds = service._engine.served("m", "").metrics.request_seconds.sum
        assert stats.fail.ns > 0
        assert (stats.success.ns + stats.fail.ns) / 1e9 == pytest.approx(seconds)
        assert before - 1 <= told.last_inference / 1e3 <= time.time() + 1

    serving(tmp_path, scenario)


def test_statistics_are_of_one_version_of_all_versions_or_of_all_models(tmp_path):
    for version in ("2", "10"):
        put(tmp_path, "m", version=version, **FAKE)
    put(tmp_path, "other", **FAKE)

    async def scenario(service):
        async def named(*asked):
            return [(each.name, each.version) for each in (await service.statistics(*asked)).model_stats]

        assert await named("", "") == [("m", "2"), ("m", "10"), ("other", "")]
        assert await named("m", "") == [("m", "2"), ("m", "10")]
        assert await named("m", "2") == [("m", "2")]
        for unknown in (("nobody", ""), ("m", "3")):
            with pytest.raises(NotFound):
                await service.statistics(*unknown)
            with pytest.raises(NotFound):
                await service.model_config(*unknown)
        (never,) = (await service.statistics("other", "")).model_stats
        assert (never.last_inference, never.inference_count) == (0, 0)

    serving(tmp_path, scenario)
