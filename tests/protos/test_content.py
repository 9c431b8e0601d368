"""Bodies that travel compressed: requests within bounds, answers for those who take them so."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.routing import Route

from protos.content import TENSORS, Coding, accepted
from protos.rest import rest_app
from tests.protos.echo import Echo
from tests.protos.http import MAX_BODY, ask, ask_app, refusal, tensor

LONG = json.dumps({"inputs": [tensor(shape=[10_000], data=[1.5] * 10_000)]}).encode()


def gzipped(body):
    return gzip.compress(body, mtime=0)


PACK = {"gzip": gzipped, "deflate": zlib.compress}


@pytest.fixture
def echo():
    return Echo()


# -------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("coding", PACK)
def test_a_packed_body_is_unpacked_however_it_is_cut(echo, coding):
    body = PACK[coding](LONG)

    async def chunks():
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    for content in (body, chunks()):
        response = ask(echo, "POST", "/v2/models/echo/infer", content=content, headers={"Content-Encoding": coding})
        assert response.json()["outputs"][0]["data"] == [1.5] * 10_000


@pytest.mark.parametrize("coding", PACK)
def test_a_body_that_unpacks_to_too_much_is_refused(echo, coding):
    bomb = PACK[coding](bytes(50_000_000))
    assert len(bomb) < MAX_BODY
    response = ask(echo, "POST", "/v2/models/echo/infer", content=bomb, headers={"Content-Encoding": coding})
    assert refusal(response, 413) == f"the body has more than {MAX_BODY} bytes; that is the limit"


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda body: body[:-4], "the {} body is cut short"),
        (lambda _: b"", "the {} body is cut short"),
        (lambda _: b"{}", "the {} body cannot be read"),
        (lambda body: body + b"more", "4 bytes follow the {} body"),
    ],
)
def test_a_body_that_is_badly_packed_is_refused(echo, coding, spoil, sentence):
    body = spoil(PACK[coding](b"{}"))
    response = ask(echo, "POST", "/v2/models/echo/infer", content=body, headers={"Content-Encoding": coding})
    assert refusal(response).startswith(sentence.format(coding))


def test_another_coding_is_refused(echo):
    response = ask(echo, "POST", "/v2/repository/index", content=b"{}", headers={"Content-Encoding": "br"})
    assert refusal(response, 415) == "Content-Encoding 'br' is not supported; send identity, gzip or deflate"


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", None),
        (b"gzip", Coding("gzip", alone=True)),
        (b"deflate", Coding("deflate", alone=True)),
        (b"GZip ", Coding("gzip", alone=True)),
        (b"gzip, deflate", Coding("gzip", alone=False)),
        (b"deflate, gzip;q=0.5", Coding("deflate", alone=False)),
        (b"deflate, gzip;q=0", Coding("deflate", alone=True)),
        (b"gzip;q=0", None),
        (b"br, zstd", None),
        (b"gzip, br", Coding("gzip", alone=False)),
        (b"*", Coding("gzip", alone=False)),
        (b"*, gzip;q=0", Coding("deflate", alone=False)),
        (b"identity", None),
        (b"gzip;q=0.5, identity", None),
        (b"identity;q=0.5, gzip;q=0.2, deflate;q=0.6", Coding("deflate", alone=False)),
        (b"identity, gzip", Coding("gzip", alone=False)),
        (b"identity;q=0, gzip", Coding("gzip", alone=True)),
        (b"*;q=0.1, identity;q=0.5", None),
        (b"gzip;q=much", None),
    ],
)
def test_the_coding_that_a_client_likes_best(header, coding):
    assert accepted(header) == coding


@given(st.binary(max_size=40))
def test_any_header_is_read(header):
    coding = accepted(header)
    assert coding is None or coding.name in PACK


def answering(body, media_type="application/json", status=200):
    async def endpoint(_request):
        return Response(body, status, media_type=media_type)

    return rest_app([Route("/", endpoint)], max_body=0)


@pytest.mark.parametrize("coding", PACK)
@pytest.mark.parametrize("length", [5_000, 500_000])
def test_a_long_answer_is_packed_for_those_who_take_it(coding, length):
    response = ask_app(answering(b"a" * length), "GET", "/", headers={"Accept-Encoding": coding})
    assert response.headers["content-encoding"] == coding
    assert response.headers["vary"] == "accept-encoding"
    assert int(response.headers["content-length"]) < length / 10
    assert response.content == b"a" * length


@pytest.mark.parametrize(
    ("accepts", "answer"),
    [
        ("identity", answering(b"a" * 5000)),
        ("gzip", answering(b"a" * 500)),
        ("gzip", answering(b"a" * 5000, status=500)),  # Triton's client cannot read it
        ("gzip, deflate", answering(b"a" * 5000, TENSORS)),  # every HTTP library says so
    ],
)
def test_other_answers_are_sent_as_they_are(accepts, answer):
    response = ask_app(answer, "GET", "/", headers={"Accept-Encoding": accepts})
    assert "content-encoding" not in response.headers
    assert set(response.content) == set(b"a")


def test_bytes_of_tensors_are_packed_for_a_client_that_asks_for_just_that():
    response = ask_app(answering(b"a" * 5000, TENSORS), "GET", "/", headers={"Accept-Encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"


def test_packing_can_be_turned_off():
    async def endpoint(_request):
        return Response(b"a" * 5000)

    app = rest_app([Route("/", endpoint)], max_body=0, pack=False)
    assert "content-encoding" not in ask_app(app, "GET", "/", headers={"Accept-Encoding": "gzip"}).headers
