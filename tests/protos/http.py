"""Asks an application of REST endpoints without a server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from protos.rest import rest_app, v2_routes

MAX_BODY = 100_000


def ask(service: Any, method: str, path: str, **arguments: Any) -> httpx.Response:
    """What a V2 service answers."""
    return ask_app(rest_app(v2_routes(service), max_body=MAX_BODY), method, path, **arguments)


def ask_app(app: Any, method: str, path: str, **arguments: Any) -> httpx.Response:
    async def exchange() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            return await client.request(method, path, **arguments)

    return asyncio.run(exchange())


def refusal(response: httpx.Response, status: int = 422) -> str:
    """The sentence of a refusal. Fails when it is none, or has another status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert list(response.json()) == ["error"]
    sentence: str = response.json()["error"]
    return sentence


def tensor(**parts: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]} | parts
