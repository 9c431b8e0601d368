"""Sends every datatype through Triton's own clients; a process of its own, as their stubs clash with MLServer's.

python -m tests.runtime.clients.triton ADDRESS: exits with 0 when every answer is right.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

from protos.tensors import DATATYPES

SHAPE = (3, 5)
TEXTS = [b"", "é".encode(), b"\xff\x00", b"a" * 300, b"1"]
COMPRESSIONS = [None, "gzip", "deflate"]


def arrays() -> dict[str, np.ndarray[Any, Any]]:
    """Any bits: NaN payloads and infinities among the floats."""
    rng = np.random.default_rng(0)
    made: dict[str, Any] = {"BYTES": np.array(TEXTS * SHAPE[0], np.object_).reshape(SHAPE)}
    for name, dtype in DATATYPES.items():
        if name != "BYTES":
            bits = rng.bytes(int(np.prod(SHAPE)) * dtype.itemsize)
            made[name] = np.frombuffer(bits, dtype).reshape(SHAPE).copy()
    made["BOOL"] = rng.random(SHAPE) < 0.5
    for name in ("FP16", "BF16", "FP32", "FP64"):
        made[name].flat[:4] = [np.nan, np.inf, -np.inf, -0.0]
    return made


def same(got: Any, sent: Any) -> bool:
    if sent.dtype.hasobject:
        return bool(got.tolist() == sent.tolist())
    return bool(got.dtype == sent.dtype and got.shape == sent.shape and got.tobytes() == sent.tobytes())


def given(library: Any, name: str, datatype: str, array: Any, **options: Any) -> Any:
    tensor = library.InferInput(name, array.shape, datatype)
    tensor.set_data_from_numpy(array, **options)
    return tensor


def every_datatype(library: Any, address: str) -> None:
    """As bytes, which is what both clients send unless told otherwise."""
    with library.InferenceServerClient(address) as client:
        for datatype, array in arrays().items():
            for sent in (array, array[:0], np.asfortranarray(array)):
                result = client.infer(datatype.lower(), [given(library, "x", datatype, sent)])
                assert same(result.as_numpy("y"), np.ascontiguousarray(sent)), (library.__name__, datatype, sent.shape)


def half_in_json(address: str) -> None:
    """Inputs and outputs may each choose; tensors of one request differ in it."""
    library = tritonclient.http
    numbers, texts = np.array([[1.5, np.nan, 0.1]]), np.array([["é", ""]], np.object_)
    with library.InferenceServerClient(address) as client:
        for n, s, n_out, s_out in np.ndindex(2, 2, 2, 2):
            inputs = [
                given(library, "n", "FP64", np.nan_to_num(numbers), binary_data=bool(n)),
                given(library, "s", "BYTES", texts, binary_data=bool(s)),
            ]
            wanted = [
                library.InferRequestedOutput("s_out", binary_data=bool(s_out)),
                library.InferRequestedOutput("n_out", binary_data=bool(n_out)),
            ]
            result = client.infer("pair", inputs, outputs=wanted)
            assert result.as_numpy("n_out").tolist() == [[1.5, 0.0, 0.1]]
            assert [each if isinstance(each, str) else each.decode() for each in result.as_numpy("s_out")[0]] == [
                "é",
                "",
            ]
            sizes = [output.get("parameters") for output in result.get_response()["outputs"]]
            assert sizes == [{"binary_data_size": 10} if s_out else None, {"binary_data_size": 24} if n_out else None]
        # What JSON cannot say is null there, and NaN in an array.
        result = client.infer(
            "fp64",
            [given(library, "x", "FP64", numbers)],
            outputs=[library.InferRequestedOutput("y", binary_data=False)],
        )
        np.testing.assert_array_equal(result.as_numpy("y"), numbers)


def compressed(address: str) -> None:
    """Requests and answers, of all lengths, and refusals, which Triton's client takes plain only."""
    for width in (4, 4000, 40_000):
        sent = np.arange(width, dtype=np.float32)[None]
        for library in (tritonclient.grpc, tritonclient.http):
            with library.InferenceServerClient(address) as client:
                for way in COMPRESSIONS:
                    if library is tritonclient.grpc:
                        options: dict[str, Any] = {"compression_algorithm": way}
                    else:
                        options = {"request_compression_algorithm": way, "response_compression_algorithm": way}
                    ask = partial(client.infer, inputs=[given(library, "x", "FP32", sent)], **options)
                    assert same(ask("fp32").as_numpy("y"), sent), (library.__name__, way, width)
                    refused(lambda ask=ask: ask("nobody"), "there is no model 'nobody'")
                    refused(lambda ask=ask: ask("fp64"), "the request has FP32")


def many_at_once(address: str) -> None:
    """Each gets its own answer, with its id."""
    library = tritonclient.http
    with library.InferenceServerClient(address, concurrency=8) as client:
        asked = {
            i: client.async_infer(
                "fp32",
                [given(library, "x", "FP32", np.full((1 + i % 3, 2), i, np.float32))],
                request_id=str(i),
                priority=1,
                timeout=1_000_000,
                parameters={"note": "ignored", "weight": 0.5},
            )
            for i in range(100)
        }
        for i, waiting in asked.items():
            result = waiting.get_result()
            assert result.get_response()["id"] == str(i)
            assert same(result.as_numpy("y"), np.full((1 + i % 3, 2), i, np.float32))


def refused(ask: Any, sentence: str) -> None:
    with pytest.raises(InferenceServerException, match=sentence):
        ask()


def main(address: str) -> None:
    every_datatype(tritonclient.grpc, address)
    every_datatype(tritonclient.http, address)
    half_in_json(address)
    compressed(address)
    many_at_once(address)


if __name__ == "__main__":
    main(sys.argv[1])
