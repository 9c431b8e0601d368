from __future__ import annotations

import json

import pytest

from protos.errors import FailedPrecondition
from runtime.model import TensorSpec
from runtime.options import ChainOptions, FormatOptions
from runtime.settings import MAX_BATCH_SIZE, read_settings

ENSEMBLE = {"implementation": "runtime.Ensemble"}
CHAIN = {"implementation": "runtime.Chain"}
PLAIN = {"implementation": "runtime.TorchScriptModel"}


@pytest.fixture
def read(tmp_path):
    path = tmp_path / "model-settings.json"

    def write_and_read(settings, **told):
        text = settings if isinstance(settings, str | bytes) else json.dumps(settings)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings(path, name="folder", version="3", **told)

    return write_and_read


def test_the_folder_names_what_the_file_does_not(read):
    settings = read(PLAIN)
    assert (settings.name, settings.version) == ("folder", "3")
    settings = read({**PLAIN, "name": "iris", "parameters": {"version": "v1", "uri": "./iris.pt"}})
    assert (settings.name, settings.version, settings.uri) == ("iris", "v1", "./iris.pt")


def test_inputs_and_outputs_are_read(read):
    settings = read(
        {
            **PLAIN,
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "parameters": {"content_type": "np"}}],
            "outputs": [{"name": "y", "datatype": "INT64", "shape": []}],
        }
    )
    assert settings.inputs == (TensorSpec("x", "FP32", (-1, 4)),)
    assert settings.outputs == (TensorSpec("y", "INT64", ()),)
    assert settings.inputs[0].parameters == {"content_type": "np"}


def test_keys_of_others_are_passed_over(read, caplog):
    read({**PLAIN, "versions": ["1"], "mine": 1, "cache_enabled": False, "parameters": {"content_type": "np"}})
    read({"implementation": "mine.Model", "parameters": {"device": "cuda", "uri": "./x"}})  # a class may read that
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"warm_workers": True}, "warm_workers has no effect: it is not supported here"),
        ({"max_batchsize": 4}, "max_batchsize has no effect: is max_batch_size meant?"),
        ({"device": "cuda"}, "device has no effect: write it as parameters.extra.device"),
        ({"cuda_graph": True}, "cuda_graph has no effect: is parameters.extra.cuda_graphs meant?"),
        ({"parameters": {"device": "cuda"}}, "parameters.device has no effect: write it as parameters.extra.device"),
        ({"parameters": {"environment_tarball": "x"}}, "environment_tarball has no effect: it is not supported here"),
    ],
)
def test_what_was_meant_and_has_no_effect_is_named_once(read, caplog, settings, says):
    read({**PLAIN, **settings})
    read({**PLAIN, **settings})
    (said,) = caplog.messages
    assert said.endswith(says)


def test_what_has_no_effect_on_a_chain_is_not_to_be_written_elsewhere(read, caplog):
    extra = {"steps": ["a"], "max_batch_size": None}
    assert read({**CHAIN, "device": "cuda", "parameters": {"extra": extra}}).options == ChainOptions(steps=["a"])
    assert caplog.messages == []


def test_options_may_be_strings_as_seldon_writes_them(read):
    extra = {"device": "cuda:1", "threads": "4", "max_batch_size": "8", "max_batch_time": "0.5", "max_queue": "10"}
    settings = read({**PLAIN, "parameters": {"extra": extra}})
    assert settings.options == FormatOptions(
        device="cuda:1", threads=4, max_batch_size=8, max_batch_time=0.5, max_queue=10, warm_up_size=1
    )
    assert (settings.max_batch_size, settings.max_batch_time) == (8, 0.5)


def test_numbers_outside_of_the_options_may_be_strings_as_for_mlserver(read):
    settings = read({**PLAIN, "max_batch_size": "16", "max_batch_time": "0.5"})
    assert (settings.max_batch_size, settings.max_batch_time) == (16, 0.5)


def test_a_uri_may_be_that_of_a_file(read):
    assert read({**PLAIN, "parameters": {"uri": "file:///models/model.pt"}}).uri == "/models/model.pt"


TOLD = {**PLAIN, "max_batch_size": "7", "parameters": {"version": "9", "extra": {"threads": "2", "device": "cuda"}}}


@pytest.mark.parametrize(
    ("file", "batch", "version", "threads"),
    [
        ({}, 7, "9", 2),
        ({"parameters": None}, 7, "9", 2),
        ({"max_batch_size": 8, "parameters": {"version": None, "extra": {"threads": 1}}}, 8, "3", 1),
    ],
)
def test_what_a_file_says_counts_before_what_is_told(read, file, batch, version, threads):
    settings = read(file, told=TOLD)
    assert (settings.max_batch_size, settings.version) == (batch, version)
    assert settings.options == FormatOptions(threads=threads, device="cuda")


def test_what_is_told_and_wrong_is_refused_with_both_places(read, tmp_path):
    with pytest.raises(FailedPrecondition) as refused:
        read({}, told={**PLAIN, "max_batch_size": "many"})
    path = f"{tmp_path}/model-settings.json and MLSERVER_MODEL_*"
    assert refused.value.message == f"{path}: max_batch_size: Expected `int | null`, got `str`"


@pytest.mark.parametrize(
    ("extra", "gpu", "overlap"),
    [
        ({}, "", False),
        ({"device": "cpu", "overlap": "true"}, "", True),
        ({"device": "cuda"}, "cuda:0", False),
        ({"device": "cuda:1", "overlap": True}, "cuda:1", True),
    ],
)
def test_a_model_of_ours_says_on_which_gpu_it_lies(read, extra, gpu, overlap):
    options = read({**PLAIN, "parameters": {"extra": extra}}).options
    assert isinstance(options, FormatOptions)
    assert (options.gpu, options.overlap) == (gpu, overlap)


def test_of_a_users_class_nobody_else_knows_where_it_lies(read):
    options = read({"implementation": "mine.Model", "parameters": {"extra": {"device": "cuda", "overlap": 3}}}).options
    assert options.gpu == ""


def test_nulls_are_as_good_as_nothing(read):
    parameters = dict.fromkeys(["uri", "version", "extra", "format"])
    settings = read({**PLAIN, "name": None, "max_batch_size": None, "max_batch_time": None, "parameters": parameters})
    assert settings.name == "folder"
    assert settings.options == FormatOptions()


@pytest.mark.parametrize(
    ("outside", "extra", "expected"),
    [(None, None, MAX_BATCH_SIZE), (0, None, 1), (1, None, 1), (16, None, 16), (16, "4", 4), (16, 0, 1)],
)
def test_batches_are_limited_by_our_option_then_by_the_key_then_by_default(read, outside, extra, expected):
    settings = read({**PLAIN, "max_batch_size": outside, "parameters": {"extra": {"max_batch_size": extra}}})
    assert settings.max_batch_size == expected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("{", "model-settings.json: Input data was truncated"),
        (b'{"implementation":"\xff"}', "model-settings.json: it is not UTF-8"),
        ('{"x": %s}' % ("[" * 5000), "model-settings.json: it is nested too deeply"),
        ("[]", "model-settings.json: Expected `object`, got `array`"),
        ({}, "missing required field `implementation`"),
        ({**PLAIN, "name": 3}, "model-settings.json: name: Expected `str | null`, got `int`"),
        ({**PLAIN, "parameters": {"version": 1}}, "parameters.version: Expected `str | null`, got `int`"),
        ({**PLAIN, "max_batch_size": -1}, "max_batch_size: Expected `int` >= 0"),
        ({**PLAIN, "max_batch_time": 1e9}, "max_batch_time: Expected `float` <= 60.0"),
        ({**PLAIN, "parameters": {"extra": {"max_batch_time": "inf"}}}, "extra.max_batch_time: Expected `float` <= 60"),
        (
            {**PLAIN, "inputs": [{"name": "x", "datatype": "FP32", "shape": [-2]}]},
            "inputs[0].shape[0]: Expected `int` >= -1",
        ),
        ({**PLAIN, "inputs": [{"name": "x", "datatype": "FP32"}]}, "inputs[0]: Object missing required field `shape`"),
        (
            {**PLAIN, "outputs": [{"name": "y", "datatype": "float32", "shape": [1]}]},
            "outputs[0].datatype: 'float32' is none of BOOL, UINT8",
        ),
        (
            {**PLAIN, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}] * 2},
            "inputs[1].name: 'x' is declared twice",
        ),
        ({**PLAIN, "parameters": {"extra": {"treads": 2}}}, "unknown field `treads`; there are device, threads, max_"),
        ({**PLAIN, "parameters": {"extra": {"explain": {"step": 2}}}}, "field `step`; there are baseline, steps, max_"),
        (
            {**ENSEMBLE, "parameters": {"extra": {"members": {"a": 1}, "device": "cuda"}}},
            "parameters.extra.device: it has no effect on runtime.Ensemble, which runs nothing itself; set it for the",
        ),
        (
            {**CHAIN, "parameters": {"extra": {"steps": ["a"], "max_batch_size": "8"}}},
            "parameters.extra.max_batch_size: it has no effect on runtime.Chain, which",
        ),
        ({**CHAIN, "parameters": {"extra": {"step": ["a"]}}}, "unknown field `step`; there are steps"),
        (
            {**ENSEMBLE, "parameters": {"extra": {"members": {"a": 1}, "combine": "weighted"}}},
            "'weighted'; write mean,",
        ),
        ({**ENSEMBLE, "parameters": {"extra": {"members": {"a": 1, "b": 0}}}}, "Expected `float` > 0.0; it is 'b'"),
        ({**PLAIN, "parameters": {"extra": {"threads": "two"}}}, "parameters.extra.threads: Expected `int`, got `str`"),
        ({**PLAIN, "parameters": {"extra": {"threads": 0}}}, "parameters.extra.threads: Expected `int` >= 1"),
        ({**PLAIN, "parameters": {"extra": []}}, "parameters.extra: Expected `object | null`, got `array`"),
    ],
)
def test_a_bad_file_is_refused_with_its_path_and_the_key(read, tmp_path, settings, says):
    with pytest.raises(FailedPrecondition) as refused:
        read(settings)
    assert refused.value.message.startswith(f"{tmp_path}/model-settings.json: ")
    assert says in refused.value.message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FailedPrecondition, match="cannot be read: Is a directory"):
        read_settings(tmp_path, name="", version="")
