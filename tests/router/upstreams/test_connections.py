"""Upstreams are opened once, and closed when nobody needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.config import Arm
from router.config.arm import File
from router.upstreams.connections import Connections
from tests.router.fakes import FakeModels, FakeUpstream

pytestmark = pytest.mark.anyio


async def test_an_upstream_is_opened_once_for_equal_arms():
    models = FakeModels()
    models.upstreams = {"double": FakeUpstream()}
    connections = Connections(models)  # type: ignore[arg-type]  # a fake
    one = await connections.upstream(Arm(model="double"))
    assert await connections.upstream(Arm(model="double")) is one
    assert models.opened == ["double"]


@pytest.mark.parametrize(
    "other",
    [
        {"target": "127.0.0.1:2"},
        {"version": "1"},
        {"target": ("127.0.0.1:1", "127.0.0.1:2")},
        {"client": "grpc"},
        {"connections": 2},
        {"retries": 0},
        {"timeout_seconds": 1.0},
        {"headers": {"x-tenant": "fx"}},
        {"kind": "seldon"},
    ],
)
async def test_arms_that_differ_are_two_upstreams(other: dict[str, Any]):
    connections = Connections(None)
    settings: dict[str, Any] = {"model": "m", "target": "127.0.0.1:1"}
    one = await connections.upstream(Arm(**settings))
    assert await connections.upstream(Arm(**settings | other)) is not one
    assert await connections.upstream(Arm(**settings)) is one
    await connections.close()


async def test_what_nobody_needs_is_closed_and_opened_anew_when_it_is():
    models = FakeModels()
    models.upstreams = {name: FakeUpstream(name) for name in ("one", "two")}
    connections = Connections(models)  # type: ignore[arg-type]  # a fake
    for name in ("one", "two"):
        await connections.upstream(Arm(model=name))
    await connections.keep_only([Arm(model="two"), Arm(model="three")])
    assert models.upstreams["one"].is_closed
    assert not models.upstreams["two"].is_closed
    await connections.upstream(Arm(model="one"))
    assert models.opened == ["one", "two", "one"]
    await connections.close()
    assert models.upstreams["two"].is_closed


async def test_a_file_that_was_renewed_makes_a_new_connection(tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("old")
    arm = Arm(model="m", target="127.0.0.1:1", headers={"authorization": File(file="token")})
    connections = Connections(None)
    served = arm.at(tmp_path)
    one = await connections.upstream(served)
    assert await connections.upstream(arm.at(tmp_path)) is one
    token.write_text("new")
    renewed = arm.at(tmp_path)
    two = await connections.upstream(renewed)
    assert two is not one
    await connections.keep_only([served])  # the reload was refused
    assert await connections.upstream(served) is one
    assert await connections.upstream(renewed) is not two
    await connections.close()


async def test_what_an_arm_costs_is_nothing_to_its_connection():
    connections = Connections(None)
    one = await connections.upstream(Arm(model="m", target="127.0.0.1:1"))
    assert await connections.upstream(Arm(model="m", target="127.0.0.1:1", cost=0.5)) is one
    await connections.close()
