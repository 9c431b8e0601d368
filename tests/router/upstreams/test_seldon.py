"""A Seldon mesh: it goes by a header, and says which version answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from protos.errors import Code, UpstreamError
from tests.router.fakes import FakeUpstream, call_of
from tests.router.serving import serving
from tests.router.upstreams.servers import MODEL, Mesh, answer, upstream_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def mesh() -> AsyncIterator[tuple[Mesh, str]]:
    mesh = Mesh(FakeUpstream())
    async with serving(mesh) as address:
        yield mesh, address


@pytest.mark.parametrize("client", ["http2", "grpc"])
async def test_which_version_answered_is_told_in_the_reply(mesh: tuple[Mesh, str], client: str):
    _, address = mesh
    async with upstream_of(model=MODEL, target=address, kind="seldon", client=client) as upstream:
        reply = await upstream(call_of("credit", id="r1"))
        assert answer(reply).id == "r1"
        assert reply.metadata == [(b"x-seldon-route", b":double_7:")]


async def test_every_call_carries_the_model_and_no_route_of_the_clients(mesh: tuple[Mesh, str]):
    """A route that the mesh does not know any more is answered with 404."""
    there, address = mesh
    async with upstream_of(model=MODEL, target=address, kind="seldon", headers={"x-tenant": "fx"}) as upstream:
        call = call_of("credit")
        call.metadata = {"x-seldon-route": ":old_1:", "seldon-model": "mine", "seldon-internal-model": "mine_1"}
        await upstream(call)
        await upstream.metadata()
        assert await upstream.ready()
    assert [seen["seldon-model"] for seen in there.seen] == [MODEL] * 3
    assert [seen["x-tenant"] for seen in there.seen] == ["fx"] * 3
    assert not any("x-seldon-route" in seen or "seldon-internal-model" in seen for seen in there.seen)


async def test_a_model_that_the_mesh_does_not_have_is_the_arms_failure(mesh: tuple[Mesh, str]):
    _, address = mesh
    async with upstream_of(model="triple", target=address, kind="seldon") as upstream:
        with pytest.raises(UpstreamError, match=r"UNIMPLEMENTED for model 'triple'.*404") as failed:
            await upstream(call_of("credit"))
        assert failed.value.code is Code.INTERNAL
        assert not await upstream.ready()


async def test_versions_are_read_from_each_answer(mesh: tuple[Mesh, str]):
    _, address = mesh
    async with upstream_of(model=MODEL, target=address, kind="seldon") as upstream:
        replies = await asyncio.gather(*(upstream(call_of("credit")) for _ in range(5)))
        assert all(reply.metadata == [(b"x-seldon-route", b":double_7:")] for reply in replies)
