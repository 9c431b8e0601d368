"""Models written for MLServer, which both servers run as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import mlserver
from fastapi import HTTPException, Request
from fastapi.responses import StreamingResponse
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError, MLServerError, ModelParametersMissing
from mlserver.handlers import custom_handler
from mlserver.types import InferenceRequest, InferenceResponse, Parameters, ResponseOutput


class _Hosted(MLModel):  # type: ignore[misc]  # MLServer ships no types
    def answer(self, outputs: list[Any], **parameters: Any) -> InferenceResponse:
        told = Parameters(**parameters) if parameters else None
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs, parameters=told)


class Tells(_Hosted):
    """What reached it: the first input as its codec decoded it, and the request's parameters and headers."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        first = payload.inputs[0]
        match first.name:
            case "wrong":
                raise InferenceError("a wrong input")
            case "worse":
                raise ModelParametersMissing(self.name)
            case "worst":
                raise KeyError(first.name)
            case "forbidden":
                raise HTTPException(403, "not yours")
            case "teapot":
                raise MLServerError("a teapot", 418)
            case "missing":
                return self.answer([ResponseOutput(name="y", datatype="BYTES", shape=[2], data=["a", None])])
            case "letters":
                text = b'{"a": 1}'
                return self.answer([ResponseOutput(name="y", datatype="BYTES", shape=[len(text)], data=[text])])
            case "list":
                return self.answer([], list=[1], text="yes")
        decoded = self.decode(first, default_codec=NumpyCodec)
        parameters = payload.parameters.model_dump() if payload.parameters else {}
        headers = parameters.pop("headers", None) or {}
        told = {
            "kind": type(decoded).__name__,
            "values": repr(decoded.values.tolist() if hasattr(decoded, "values") else list(decoded)),
            "parameters": repr(sorted(parameters.items())),
            "id": "given" if payload.id else "none",
            "header": headers.get("x-told", ""),
        }
        outputs = [StringCodec.encode_output(name, [text]) for name, text in told.items()]
        return self.answer(outputs, flag=True, number=3, text="yes")


class Doubles(_Hosted):
    """y = 2 x, in basis points."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        mlserver.log(doubled=len(x))
        y = NumpyCodec.encode_output("y", 2 * x)
        y.parameters = Parameters(content_type="np", unit="bp")
        return self.answer([y])


class Special(Doubles):
    """What only MLServer's own server understands: a header, a stream of two answers, endpoints."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        doubled = await super().predict(payload)
        doubled.parameters = Parameters(headers={"x-told": "yes"})
        return doubled

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            for _ in range(2):
                yield await super().predict(payload)

    @custom_handler(rest_path="/v2/special", rest_method="GET")  # type: ignore[untyped-decorator]
    async def special(self) -> dict[str, str]:
        return {"special": self.name}

    @custom_handler(rest_path="/v2/special/sum")  # type: ignore[untyped-decorator]
    async def total(self, values: list[float]) -> float:
        return sum(values)

    @custom_handler(rest_path="/v2/special/{place}", rest_method="GET")  # type: ignore[untyped-decorator]
    def place(self, place: int, unit: str = "m", note: str | None = None) -> dict[str, Any]:
        return {"place": place, "unit": unit, "note": note}

    @custom_handler(rest_path="/v2/special/raw")  # type: ignore[untyped-decorator]
    async def raw(self, request: Request) -> StreamingResponse:
        body = await request.body()
        told = {"x-told": request.headers.get("x-told", ""), "x-size": str(len(body))}
        return StreamingResponse(iter([body, body]), 201, told, media_type="application/octet-stream")

    @custom_handler(rest_path="/v2/special/fail")  # type: ignore[untyped-decorator]
    async def fail(self, how: str) -> None:
        match how:
            case "refuse":
                raise InferenceError("a wrong input")
            case "status":
                raise HTTPException(418, "a teapot")
        raise KeyError(how)
