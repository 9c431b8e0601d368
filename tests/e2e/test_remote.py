"""A router in front of model servers of their own: one of them dies, is left out, comes back, and is used again."""

from __future__ import annotations

import shutil

import grpc
import pytest

from protos.errors import Code
from router import Client
from tests.e2e.calls import ROWS, refusal
from tests.e2e.models import FACTORS
from tests.process import Router, Runtime, until, write_config

ROUTE = "remote"
GUARD = {"failures": 2, "seconds": 1.0, "longest_seconds": 2.0}


@pytest.fixture
def upstreams(models, tmp_path):
    """A server for each model, by its name."""
    folders = {name: tmp_path / "models" / name for name in FACTORS}
    for name, folder in folders.items():
        shutil.copytree(models / name, folder / name)
    with (
        Runtime(folders["double"], tmp_path / "double") as double,
        Runtime(folders["triple"], tmp_path / "triple") as triple,
    ):
        yield {"double": double, "triple": triple}


@pytest.fixture
def client(upstreams, tmp_path):
    arms = {name: {"model": name, "target": upstream.address} for name, upstream in upstreams.items()}
    config = write_config(tmp_path, {ROUTE: {"arms": arms, "guard": GUARD}})
    with Router(config, tmp_path / "router") as router, Client(router.address) as client:
        yield client
        client.close()
        assert router.stop() == 0
        assert "Traceback" not in router.complained, router.complained


def ask(client, route=ROUTE):
    """The arm that answered, or how it was refused."""
    try:
        answer = client.infer(route, {"x": ROWS})
    except grpc.RpcError as error:
        return refusal(error)
    assert answer.outputs["y"].tolist() == (ROWS * FACTORS[answer.arm]).tolist()
    return answer.arm


def allowed(client):
    return {arm.name for arm in client.describe(ROUTE).arms if arm.allowed}


def test_a_dead_upstream_is_left_out_and_probed_back_in(upstreams, client, tmp_path):
    seen = [ask(client) for _ in range(50)]
    assert set(seen) == {"double", "triple"}

    address = upstreams["double"].address
    upstreams["double"].kill()
    seen = []

    def left_out():
        seen.append(ask(client))
        return allowed(client) == {"triple"}

    until(left_out)
    refusals = [each for each in seen if each != "triple"]
    assert len(refusals) >= GUARD["failures"]
    for refused in refusals:
        assert refused.code is Code.UNAVAILABLE
        assert address in refused.sentence
        assert "'double'" in refused.sentence

    # While it is away, what is refused is a probe: one, after one second, two, and two again.
    seen = [ask(client) for _ in range(100)]
    assert seen.count("triple") >= 95
    assert all(each == "triple" or address in each.sentence for each in seen)

    port = int(address.rpartition(":")[2])
    models = tmp_path / "models" / "double"
    with Runtime(models, tmp_path / "double again", port=port) as again:
        assert again.address == address
        until(lambda: ask(client) == "double")
        assert allowed(client) == {"double", "triple"}
        seen = [ask(client) for _ in range(50)]
        assert set(seen) == {"double", "triple"}


GONE = {"a": {"model": "a", "target": "127.0.0.1:1"}, "b": {"model": "b", "target": "127.0.0.1:2"}}
POLICIES = {
    "split": {"kind": "split"},
    "thompson": {"kind": "thompson"},
    "canary": {"kind": "split", "weights": {"a": 1, "b": 0}},
}


@pytest.fixture(scope="module")
def stranded(tmp_path_factory):
    """A client of a router that started although nobody answers for any of its arms."""
    routes = {name: {"arms": GONE, "guard": GUARD, "policy": policy} for name, policy in POLICIES.items()}
    with Router(write_config(tmp_path_factory.mktemp("stranded"), routes)) as router, Client(router.address) as client:
        yield client


@pytest.mark.parametrize("route", POLICIES)
def test_the_last_arm_is_never_left_out(stranded, route):
    """With everything away the upstream's own error says more than a refusal."""
    seen = [ask(stranded, route) for _ in range(20)]
    assert {each.code for each in seen} == {Code.UNAVAILABLE}, seen[-1]
    assert all("127.0.0.1:" in each.sentence for each in seen)
    assert any(arm.allowed for arm in stranded.describe(route).arms)
