from __future__ import annotations

import json

import pytest

from protos.errors import FailedPrecondition
from protos.grpc import MAX_MESSAGE
from runtime.server_settings import ServerSettings, read_server_settings

ALL = ["http", "grpc", "metrics"]


def read(folder, file=None, **variables):
    if file is not None:
        text = file if isinstance(file, str | bytes) else json.dumps(file)
        (folder / "settings.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_server_settings(folder, {f"MLSERVER_{name}": value for name, value in variables.items()})


def test_without_a_word_all_is_on_one_port_of_this_machine(tmp_path):
    assert read(tmp_path) == ServerSettings()
    assert read(tmp_path).listeners() == [("127.0.0.1:8080", ALL)]


def test_the_file_counts_before_the_environment_and_the_log_says_so(tmp_path, caplog):
    told = read(tmp_path, {"http_port": 9000}, HTTP_PORT="9001", SERVER_NAME="ours")
    assert (told.http_port, told.server_name) == (9000, "ours")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/settings.json: http_port counts, and not MLSERVER_HTTP_PORT, as for MLServer"
    ]


def test_variables_are_read_as_what_they_stand_for_and_in_any_case(tmp_path):
    variables = {"MLSERVER_LOAD_MODELS_AT_STARTUP": "false", "mlserver_grpc_max_message_length": "1048576000"}
    told = read_server_settings(tmp_path, {**variables, "HTTP_PORT": "1"})
    assert not told.load_models_at_startup
    assert told.max_message == 1048576000
    assert told.http_port is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (text, text in {"true", "Yes", "y", "ON", "t", "1"})
        for text in ("true", "Yes", "y", "ON", "t", "1", "FALSE", "no", "n", "Off", "f", "0")
    ],
)
def test_true_and_false_have_mlservers_words(tmp_path, caplog, text, expected):
    assert read(tmp_path, GZIP_ENABLED=text).gzip_enabled is expected
    assert read(tmp_path, {"debug": text}, KAFKA_ENABLED=text).debug is expected
    assert len(caplog.records) == expected  # kafka's, which asks for nothing if it is false


def test_seldons_variables_make_three_listeners(tmp_path):
    told = read(tmp_path, HOST="0.0.0.0", HTTP_PORT="9000", GRPC_PORT="9500")
    assert told.listeners() == [("0.0.0.0:9000", ["http"]), ("0.0.0.0:9500", ["grpc"]), ("0.0.0.0:8082", ["metrics"])]


@pytest.mark.parametrize(
    ("file", "listeners"),
    [
        ({"grpc_port": 8080}, [("h:8080", ["http", "grpc"]), ("h:8082", ["metrics"])]),
        ({"grpc_port": 0, "metrics_port": 0}, [("h:8080", ["http"]), ("h:0", ["grpc"]), ("h:0", ["metrics"])]),
        ({"metrics_endpoint": None}, [("h:8080", ["http", "grpc"])]),
        ({"http_port": 1, "metrics_endpoint": None}, [("h:1", ["http"]), ("h:8081", ["grpc"])]),
        ({"host": "::1"}, [("[::1]:8080", ALL)]),
    ],
)
def test_equal_ports_are_one_listener(tmp_path, file, listeners):
    assert read(tmp_path, {"host": "h", **file}).listeners() == listeners


@pytest.mark.parametrize(
    ("told", "endpoint", "root"), [("/ml/", "/ml", "/ml"), ("/a/b//", "/a/b", "/a/b"), ("/", "/", ""), ("", "", "")]
)
def test_paths_end_without_a_slash(tmp_path, told, endpoint, root):
    """As those of requests do, with which they are compared."""
    settings = read(tmp_path, METRICS_ENDPOINT=told, ROOT_PATH=told)
    assert (settings.metrics_endpoint, settings.root_path) == (endpoint, root)


def test_messages_may_be_as_long_as_grpc_is_told(tmp_path):
    assert ServerSettings().max_message == MAX_MESSAGE
    assert ServerSettings(grpc_max_message_length=7).max_message == 7
    assert ServerSettings(grpc_max_message_length=-1).max_message == 2**31 - 1


@pytest.mark.parametrize(
    ("file", "variables", "says"),
    [
        ({"http_port": "soon"}, {}, "settings.json: http_port: Expected `int | null`, got `str`"),
        ({"http_port": 70000}, {}, "settings.json: http_port: Expected `int` <= 65535"),
        ({}, {"PARALLEL_WORKERS": "-1"}, "MLSERVER_PARALLEL_WORKERS: Expected `int` >= 0"),
        ({}, {"DEBUG": "perhaps"}, "MLSERVER_DEBUG: Expected `bool`, got `str`; write true or false"),
        (
            {},
            {"METRICS_ENDPOINT": "/v2/health/live"},
            "MLSERVER_METRICS_ENDPOINT: '/v2/health/live' is a path of the V2 protocol; write another, as /metrics",
        ),
        (
            {},
            {"METRICS_ENDPOINT": "/v2/"},
            "MLSERVER_METRICS_ENDPOINT: '/v2/' is a path of the V2 protocol; write another, as /metrics",
        ),
        ({}, {"METRICS_ENDPOINT": "m"}, "MLSERVER_METRICS_ENDPOINT: 'm' is no path; write \"/m\""),
        ({}, {"HOST": ""}, "MLSERVER_HOST: '' is no host; write an address of this machine, or 0.0.0.0 for all"),
        (
            {"host": "a..b"},
            {},
            "settings.json: host: 'a..b' is no host; write an address of this machine, or 0.0.0.0 for all",
        ),
        ({"root_path": "x"}, {}, "settings.json: root_path: 'x' is no path; write \"/x\""),
        ("[1]", {}, "settings.json: Expected `object`, got `array`"),
        ("{", {}, "settings.json: Input data was truncated"),
        (b'{"host": "\xff"}', {}, "settings.json: it is not UTF-8"),
        ('{"x": %s}' % ("[" * 5000), {}, "settings.json: it is nested too deeply"),
    ],
)
def test_what_cannot_be_understood_is_refused_by_name(tmp_path, file, variables, says):
    with pytest.raises(FailedPrecondition) as refused:
        read(tmp_path, file, **variables)
    assert refused.value.message.removeprefix(f"{tmp_path}/") == says


def test_what_mlserver_would_obey_and_we_do_not_is_named_once(tmp_path, caplog):
    read(tmp_path, {"cache_enabled": True, "cors_settings": {"allow_origins": ["*"]}}, KAFKA_ENABLED="true")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/settings.json: cache_enabled is not supported here, and has no effect",
        f"{tmp_path}/settings.json: cors_settings is not supported here, and has no effect",
        "MLSERVER_KAFKA_ENABLED is not supported here, and has no effect",
    ]


def test_a_misspelt_key_is_named_once(tmp_path, caplog):
    for _ in range(2):
        read(tmp_path, {"hots": "x", "cache_enable": False, "format": "y"})
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}/settings.json: hots has no effect: is host meant?",
        f"{tmp_path}/settings.json: cache_enable has no effect: is cache_enabled meant?",
    ]


def test_what_asks_for_nothing_or_nobody_knows_is_passed_over(tmp_path, caplog):
    read(tmp_path, {"cache_enabled": False, "gzip_enabled": True, "colour": "red"}, KAFKA_ENABLED="False", COLOUR="red")
    assert not caplog.records
