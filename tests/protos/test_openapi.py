"""The description of the REST API: of every route that there is, and of nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from starlette.responses import Response
from starlette.routing import Route

from protos.messages import ModelConfig, ModelMetadataResponse, ModelStatisticsResponse
from protos.openapi import docs_routes
from protos.rest import rest_app, v2_routes
from tests.protos.echo import Echo
from tests.protos.http import ask_app, refusal


class Triton:
    async def model_config(self, name, version):
        return ModelConfig(name=name)

    async def statistics(self, name, version):
        told = ModelStatisticsResponse()
        told.model_stats.add(name=name, version=version).inference_stats.success.count = 7
        return told

    async def load_as(self, name, config):
        pass


async def metrics(_request):
    """What is counted."""
    return Response(b"")


@pytest.fixture(scope="module")
def routes():
    echo = Echo()
    those = [*v2_routes(echo, Triton()), Route("/metrics", metrics)]
    return [*those, *docs_routes("echo", "1", those, echo.model_metadata)]


@pytest.fixture(scope="module")
def app(routes):
    return rest_app(routes, max_body=1000)


@pytest.fixture(scope="module")
def document(app):
    return ask_app(app, "GET", "/v2/docs/dataplane.json").json()


def test_every_route_is_described_and_nothing_else(routes, document):
    there = {(route.path, method.lower()) for route in routes for method in route.methods if method != "HEAD"}
    described = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert described == there
    assert ("/v2/models/{model}/versions/{version}/infer", "post") in described


def test_bodies_are_described_wherever_there_are_some(document):
    unasked = {path for path, each in document["paths"].items() if "post" in each and "requestBody" not in each["post"]}
    assert unasked == set()
    silent = {
        path
        for path, each in document["paths"].items()
        if "get" in each and "content" not in each["get"]["responses"]["200"]
    }
    assert silent == {path for path in document["paths"] if "/docs" in path or path == "/metrics"}


def test_it_is_an_openapi_document(document):
    assert document["openapi"] == "3.1.0"
    assert set(document) == {"openapi", "info", "paths", "components"}
    assert {"title", "version"} <= set(document["info"])
    ids = []
    for path, operations in document["paths"].items():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert operation["summary"]
            assert all("description" in response for response in operation["responses"].values())
            parameters = {each["name"] for each in operation.get("parameters", [])}
            assert parameters == set(re.findall(r"{(\w+)}", path))
            assert all(each["in"] == "path" and each["required"] for each in operation.get("parameters", []))
    assert len(ids) == len(set(ids))


def test_every_schema_that_is_named_is_there_and_every_schema_is_named(document):
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named == set(document["components"]["schemas"])


def test_answers_are_as_their_schemas_say(app, document):
    """Every field of an answer is described, and every one that is promised is there."""
    for path, operations in document["paths"].items():
        schema = operations.get("get", {}).get("responses", {}).get("200", {}).get("content")
        if schema is None:
            continue
        answer = ask_app(app, "GET", path.format(model="echo", version="1")).json()
        check(answer, schema["application/json"]["schema"], document, path)


def check(value, schema, document, where):
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if schema.get("type") == "array":
        for each in value:
            check(each, schema.get("items", {}), document, where)
    if "properties" in schema:
        assert set(schema.get("required", [])) <= set(value), where
        # A configuration has more than is worth a schema.
        assert set(value) <= set(schema["properties"]) or where.endswith("/config"), where
        for name, each in value.items():
            check(each, schema["properties"].get(name, {}), document, where)


@pytest.mark.parametrize("path", ["/v2/models/echo", "/v2/models/echo/versions/1"])
def test_a_model_is_described_with_a_request_that_it_takes(app, path):
    told = ask_app(app, "GET", f"{path}/docs/dataplane.json").json()
    assert f"{path}/infer" in told["paths"]
    assert all("/echo" in each and "{" not in each for each in told["paths"])
    example = told["paths"][f"{path}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert example["inputs"][0]["shape"] == [1, 20]
    assert ask_app(app, "POST", f"{path}/infer", json=example).status_code == 200


def test_an_unknown_model_has_no_description(app):
    for path in ("/v2/models/nobody/docs", "/v2/models/nobody/docs/dataplane.json"):
        assert refusal(ask_app(app, "GET", path), 404) == "there is no model 'nobody'"


@pytest.mark.parametrize("path", ["/v2/docs", "/v2/models/echo/docs", "/v2/models/echo/versions/1/docs"])
def test_the_page_needs_nothing_from_elsewhere(app, path):
    page = ask_app(app, "GET", path)
    assert page.headers["content-type"].startswith("text/html")
    assert not re.findall(r"(?:src|href)=|//\w|@import|url\(", page.text)


def test_an_example_that_would_be_long_is_left_out():
    echo: Any = Echo()

    async def wide(name, version):
        told = ModelMetadataResponse(name=name)
        told.inputs.add(name="x", datatype="FP32", shape=[-1, 1001])
        return told

    echo.model_metadata = wide
    those = v2_routes(echo)
    app = rest_app([*those, *docs_routes("echo", "1", those, echo.model_metadata)], max_body=1000)
    told = ask_app(app, "GET", "/v2/models/echo/docs/dataplane.json").json()
    body = told["paths"]["/v2/models/echo/infer"]["post"]["requestBody"]["content"]["application/json"]
    assert list(body) == ["schema"]
