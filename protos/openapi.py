"""What the REST API takes and answers: an OpenAPI document, made from the routes, and a page that shows it."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from protos.messages import ModelMetadataResponse
from protos.rest import answer
from protos.tensors import DATATYPES

Document = dict[str, Any]

_PAGE = (Path(__file__).parent / "docs.html").read_bytes()
_LONGEST_EXAMPLE = 1000  # elements


def docs_routes(
    title: str, version: str, routes: Sequence[Route], metadata: Callable[[str, str], Awaitable[ModelMetadataResponse]]
) -> list[Route]:
    """The endpoints that describe `routes`, themselves included: for all models, and for one with its own tensors."""

    async def docs(_request: Request) -> Response:
        """This page."""
        return Response(_PAGE, media_type="text/html")

    async def openapi(_request: Request) -> Response:
        """This description, for programs."""
        return answer(document(title, version, every))

    async def model_docs(request: Request) -> Response:
        """The page of a model."""
        await _described(request)
        return Response(_PAGE, media_type="text/html")

    async def model_openapi(request: Request) -> Response:
        """The description of a model, with a request that it takes."""
        told = await _described(request)
        return answer(of_model(document(title, version, every), told, request.path_params.get("version", "")))

    async def _described(request: Request) -> ModelMetadataResponse:
        return await metadata(request.path_params["model"], request.path_params.get("version", ""))

    own = [Route("/v2/docs", docs), Route("/v2/docs/dataplane.json", openapi)]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        own += [Route(f"{model}/docs", model_docs), Route(f"{model}/docs/dataplane.json", model_openapi)]
    every = [*routes, *own]
    return own


def document(title: str, version: str, routes: Sequence[Route]) -> Document:
    """The OpenAPI 3.1 document of some routes; an endpoint's docstring is its summary."""
    paths: dict[str, Any] = {}
    for route in routes:
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(route.path, {})[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": _SCHEMAS},
    }


def of_model(whole: Document, model: ModelMetadataResponse, version: str) -> Document:
    """The part of a document that is about one model, or one version of it, its name filled in."""
    paths = {}
    for path, operations in whole["paths"].items():
        if "{model}" not in path or ("{version}" in path) != bool(version):
            continue
        filled = {
            method: {key: value for key, value in operation.items() if key != "parameters"}
            for method, operation in operations.items()
        }
        if path.endswith(("/infer", "/infer_stream")) and (example := _example(model)):
            body = filled["post"]["requestBody"]["content"]["application/json"]
            filled["post"]["requestBody"] = {"content": {"application/json": {**body, "example": example}}}
        paths[path.replace("{model}", quote(model.name, "")).replace("{version}", quote(version, ""))] = filled
    title = f"{whole['info']['title']}: {model.name}" + (f", version {version}" if version else "")
    return {**whole, "info": {**whole["info"], "title": title}, "paths": paths}


def _operation(route: Route, method: str) -> Document:
    asked, answered = _BODIES.get(route.name, (None, None))
    summary = (inspect.getdoc(route.endpoint) or "").partition("\n")[0].rstrip(".")
    operation: Document = {
        "operationId": "_".join([method.lower(), *route.path.replace("{", "").replace("}", "").split("/")[1:]]),
        "summary": summary,
        "responses": {
            "200": {"description": "OK"} | _content(answered),
            "default": {"description": "What is wrong, in a sentence"} | _content("Error"),
        },
    }
    if route.param_convertors:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in route.param_convertors
        ]
    if asked is not None:
        operation["requestBody"] = _content(asked)
    return operation


def _content(schema: str | None) -> Document:
    if schema is None:
        return {}
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _example(model: ModelMetadataResponse) -> Document | None:
    """A request of one row of zeros; None where that would be long."""
    inputs = []
    for declared in model.inputs:
        shape = [abs(size) for size in declared.shape]
        if prod(shape) > _LONGEST_EXAMPLE or declared.datatype not in DATATYPES:
            return None
        zero: Any = {"BOOL": False, "BYTES": ""}.get(declared.datatype, 0)
        data = [zero] * prod(shape)
        inputs.append({"name": declared.name, "datatype": declared.datatype, "shape": shape, "data": data})
    return {"inputs": inputs}


_ABOUT = (
    "The V2 / Open Inference Protocol. Tensors travel in JSON, flat or nested, or as bytes behind it, as Triton's "
    "extension for binary tensors has it. Bodies may be gzip or deflate."
)
_TEXT, _FLAG, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer"}


def _object(required: str = "", **properties: Any) -> Document:
    told: Document = {"type": "object", "properties": properties}
    return told | {"required": required.split()} if required else told


def _list(items: Document) -> Document:
    return {"type": "array", "items": items}


def _ref(schema: str) -> Document:
    return {"$ref": f"#/components/schemas/{schema}"}


_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string", "null"]}}
_SHAPE = _list(_COUNT)
_DURATION = _object("count ns", count=_COUNT, ns=_COUNT)

_SCHEMAS: Document = {
    "Error": _object("error", error=_TEXT),
    "Parameters": _PARAMETERS,
    "Tensor": _object(
        "name datatype shape",
        name=_TEXT,
        datatype=_DATATYPE,
        shape=_SHAPE,
        data={"type": "array", "description": "flat or nested, row by row; absent where bytes follow the JSON"},
        parameters=_ref("Parameters"),
    ),
    "RequestedOutput": _object("name", name=_TEXT, parameters=_ref("Parameters")),
    "InferenceRequest": _object(
        "inputs",
        id=_TEXT,
        inputs=_list(_ref("Tensor")),
        outputs=_list(_ref("RequestedOutput")),
        parameters=_ref("Parameters"),
    ),
    "InferenceResponse": _object(
        "model_name outputs",
        model_name=_TEXT,
        model_version=_TEXT,
        id=_TEXT,
        outputs=_list(_ref("Tensor")),
        parameters=_ref("Parameters"),
    ),
    "Live": _object("live", live=_FLAG),
    "Ready": _object("ready", name=_TEXT, ready=_FLAG),
    "Server": _object("name version extensions", name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "TensorMetadata": _object(
        "name datatype shape", name=_TEXT, datatype=_DATATYPE, shape=_SHAPE, parameters=_ref("Parameters")
    ),
    "Model": _object(
        "name platform inputs outputs",
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_ref("TensorMetadata")),
        outputs=_list(_ref("TensorMetadata")),
        parameters=_ref("Parameters"),
    ),
    "IndexRequest": _object(ready=_FLAG),
    "Index": _list(_object("name version state reason", name=_TEXT, version=_TEXT, state=_TEXT, reason=_TEXT)),
    "RepositoryRequest": _object(parameters=_ref("Parameters")),
    "Configuration": _object("name", name=_TEXT, platform=_TEXT, max_batch_size=_COUNT),
    "Statistics": _object(
        "model_stats",
        model_stats=_list(
            _object(
                "name version inference_count execution_count",
                name=_TEXT,
                version=_TEXT,
                last_inference=_COUNT,
                inference_count=_COUNT,
                execution_count=_COUNT,
                inference_stats={"type": "object", "additionalProperties": _DURATION},
            )
        ),
    ),
}
_BODIES = {  # of a request and of its answer, by the name of the endpoint
    "infer": ("InferenceRequest", "InferenceResponse"),
    "infer_stream": ("InferenceRequest", None),
    "live": (None, "Live"),
    "ready": (None, "Ready"),
    "model_ready": (None, "Ready"),
    "server": (None, "Server"),
    "model": (None, "Model"),
    "index": ("IndexRequest", "Index"),
    "load": ("RepositoryRequest", None),
    "unload": ("RepositoryRequest", None),
    "config": (None, "Configuration"),
    "statistics": (None, "Statistics"),
}
