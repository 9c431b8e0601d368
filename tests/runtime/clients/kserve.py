"""Asks with KServe's own clients, over gRPC and REST; a process of its own, with libraries that clash with others.

python -m tests.runtime.clients.kserve ADDRESS: exits with 0 when every answer is right.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable
from typing import Any

import grpc
import numpy as np
import pytest
from httpx import HTTPStatusError
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

ROWS = np.array([[1.5, np.nan, -2.0], [4.0, np.inf, 0.1]], np.float32)
FINITE = np.nan_to_num(ROWS, posinf=7)


def request(model: str, array: Any, datatype: str, *, binary: bool, **options: Any) -> InferRequest:
    x = InferInput("x", list(array.shape), datatype)
    x.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(model_name=model, infer_inputs=[x], request_id="7", **options)


async def over_grpc(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("fp32")
        assert not await client.is_model_ready("nobody")
        for binary, rows in ((True, ROWS), (False, FINITE)):
            answer = await client.infer(request("fp32", rows, "FP32", binary=binary))
            assert (answer.model_name, answer.id) == ("fp32", "7")
            np.testing.assert_array_equal(answer.outputs[0].as_numpy(), rows)
        await refused(client.infer(request("nobody", ROWS, "FP32", binary=True)), grpc.StatusCode.NOT_FOUND)


async def over_rest(address: str) -> None:
    url = f"http://{address}"
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "fp32")
    assert not await client.is_model_ready(url, "nobody")
    for binary_in, binary_out in np.ndindex(2, 2):
        rows = ROWS if binary_in and binary_out else FINITE
        wanted = [RequestedOutput("y", parameters={"binary_data": bool(binary_out)})]
        asked = request("fp32", rows, "FP32", binary=bool(binary_in), request_outputs=wanted)
        answer = await client.infer(url, asked, model_name="fp32")
        assert (answer.model_name, answer.id) == ("fp32", "7")
        np.testing.assert_array_equal(answer.outputs[0].as_numpy(), rows)
    halves = ROWS.astype(np.float16)
    answer = await client.infer(url, request("fp16", halves, "FP16", binary=True), model_name="fp16")
    # It asks for JSON, which has no infinity either.
    expected = np.where(np.isinf(halves), np.float16(np.nan), halves)
    np.testing.assert_array_equal(answer.outputs[0].as_numpy(), expected)
    await refused(client.infer(url, request("nobody", ROWS, "FP32", binary=True), model_name="nobody"), 404)
    await client.close()


async def refused(asked: Awaitable[Any], expected: Any) -> None:
    with pytest.raises((grpc.aio.AioRpcError, HTTPStatusError)) as refusal:
        await asked
    error: Any = refusal.value
    assert (error.response.status_code if isinstance(error, HTTPStatusError) else error.code()) == expected


async def main(address: str) -> None:
    await over_grpc(address)
    await over_rest(address)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
