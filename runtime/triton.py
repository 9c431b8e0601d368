"""A model in Triton's terms: its configuration, what a configuration changes in its settings, its statistics."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import msgspec
from google.protobuf import json_format

from protos.errors import Code, InvalidArgument
from protos.messages import ModelConfig, ModelStatistics
from protos.tensors import DATATYPES
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING, TensorSpec
from runtime.naming import keyed
from runtime.served import Servable
from runtime.settings import ModelSettings

_TYPES = {"BYTES": "TYPE_STRING"}  # the others are named as in V2
_BATCHING = {"max_batch_size", "max_batch_time"}  # options that a configuration has fields for
_NS = 1e9
_LONGEST = 300  # characters of protobuf's own words


def config_of(settings: ModelSettings, servable: Servable) -> ModelConfig:
    """How a model is served. Of `parameters.extra` it tells what is ours: a user's class may keep its secrets there."""
    metadata, shared = servable.metadata(), servable.shares_runs
    config = ModelConfig(
        name=settings.name, platform=metadata.platform, max_batch_size=settings.max_batch_size if shared else 0
    )
    config.version_policy.all.SetInParent()
    for told, declared in ((config.input, metadata.inputs), (config.output, metadata.outputs)):
        for each in declared:
            data_type = _TYPES.get(each.datatype, f"TYPE_{each.datatype}")
            told.add(name=each.name, data_type=data_type, dims=each.shape[1:] if shared else each.shape)
    if shared:
        config.dynamic_batching.max_queue_delay_microseconds = round(settings.max_batch_time * 1e6)
        config.dynamic_batching.preserve_ordering = True
    for name, text in _options(settings).items():
        config.parameters[name].string_value = text
    return config


def parse_config(text: str) -> ModelConfig:
    """The configuration that a client sends along with a load. Raises InvalidArgument."""
    try:
        return json_format.ParseDict(msgspec.json.decode(text, type=dict[str, Any]), ModelConfig())
    except (json_format.ParseError, msgspec.DecodeError, OverflowError, RecursionError) as error:
        fields = ", ".join(field.name for field in ModelConfig.DESCRIPTOR.fields)
        raise InvalidArgument(f"config: {str(error).splitlines()[0][:_LONGEST]}; understood are: {fields}") from None


def overridden(settings: ModelSettings, config: ModelConfig) -> ModelSettings:
    """The settings, but with what a configuration says. Raises InvalidArgument naming the field."""
    if config.name not in {"", settings.name}:
        raise InvalidArgument(f"config: name: it is {config.name[:_LONGEST]!r} for the model {settings.name!r}")
    options = _options(settings)
    extra: dict[str, Any] = dict(settings.extra)
    extra |= {
        name: each.string_value
        for name, each in config.parameters.items()
        if options.get(name) != each.string_value  # as it is told back
    }
    if config.HasField("max_batch_size"):
        extra["max_batch_size"] = config.max_batch_size
    if config.HasField("dynamic_batching"):
        extra["max_batch_time"] = config.dynamic_batching.max_queue_delay_microseconds / 1e6
    try:
        changed = msgspec.convert(extra, type(settings.options), strict=False)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"config: {keyed(error)}") from None
    if changed.max_batch_size is not None:
        settings = replace(settings, max_batch_size=max(changed.max_batch_size, 1))
    if changed.max_batch_time is not None:
        settings = replace(settings, max_batch_time=changed.max_batch_time)
    rows = (-1,) if config.max_batch_size > 0 else ()
    return replace(
        settings,
        options=changed,
        extra=extra,
        platform=config.platform or settings.platform,
        inputs=_specs("input", config.input, rows, settings.inputs) or settings.inputs,
        outputs=_specs("output", config.output, rows, settings.outputs) or settings.outputs,
    )


def statistics_of(name: str, version: str, metrics: ModelMetrics) -> ModelStatistics:
    """What was counted since the version was first loaded. The run of a batch counts once, for all calls in it."""
    done = metrics.codes[Code.OK]
    told = ModelStatistics(
        name=name,
        version=version,
        # An ensemble runs nothing itself.
        inference_count=round(metrics.rows.sum) or done,
        execution_count=metrics.run_seconds.count or done,
    )
    if metrics.answered_at:
        told.last_inference = round((time.time() - time.perf_counter() + metrics.answered_at) * 1e3)
    stats, requests = told.inference_stats, metrics.request_seconds
    _fill(stats.success, done, requests.sum - metrics.failed_seconds)
    _fill(stats.fail, requests.count - done, metrics.failed_seconds)
    _fill(stats.queue, metrics.queue_seconds.count, metrics.queue_seconds.sum)
    _fill(stats.compute_infer, metrics.run_seconds.count, metrics.run_seconds.sum)
    for unknown in (stats.compute_input, stats.compute_output, stats.cache_hit, stats.cache_miss):
        _fill(unknown, 0, 0.0)
    return told


def _fill(duration: Any, count: int, seconds: float) -> None:
    duration.count = count
    duration.ns = max(round(seconds * _NS), 0)


def _options(settings: ModelSettings) -> dict[str, str]:
    """Those of our options that have a value, as text."""
    told = msgspec.structs.asdict(settings.options)
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in told.items()
        if value is not None and name not in _BATCHING
    }


def _specs(key: str, tensors: Any, rows: tuple[int, ...], declared: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    parameters = {spec.name: spec.parameters for spec in declared}  # which a configuration does not tell
    specs: dict[str, TensorSpec] = {}
    for i, each in enumerate(tensors):
        if any(size < -1 for size in each.dims):
            raise InvalidArgument(f"config: {key}[{i}].dims: {[*each.dims]}: a size is 0 or more, or -1 for any")
        if each.name in specs:
            raise InvalidArgument(f"config: {key}[{i}].name: {each.name!r} is declared twice")
        datatype = _datatype(each.name, each.data_type)
        specs[each.name] = TensorSpec(each.name, datatype, (*rows, *each.dims), parameters.get(each.name, NOTHING))
    return tuple(specs.values())


def _datatype(tensor: str, number: int) -> str:
    name = ModelConfig.DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[number].name
    for datatype in DATATYPES:
        if name == _TYPES.get(datatype, f"TYPE_{datatype}"):
            return datatype
    raise InvalidArgument(f"config: {tensor!r} has no data_type")
