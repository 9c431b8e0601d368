"""A router in front of model servers of their own: one of them dies, is left out, comes back, and is used again."""

from __future__ import annotations

import shutil
import signal
import socket
from functools import partial

import grpc
import pytest

from protos.errors import Code
from router import Client
from tests.certificates import Authority
from tests.e2e.calls import ROWS, refusal
from tests.e2e.models import FACTORS
from tests.process import Router, Runtime, until, write_config

ROUTE = "remote"
GUARD = {"failures": 2, "seconds": 1.0, "longest_seconds": 2.0}


def serving(name, models, folder):
    """A server of one model, which may be killed."""
    shutil.copytree(models / name, folder / name / "models" / name)
    return Runtime(folder / name / "models", folder / name)


@pytest.fixture(scope="module")
def steady(models, tmp_path_factory):
    """The address of a server of all models, which stays."""
    folder = tmp_path_factory.mktemp("steady")
    for name in FACTORS:
        shutil.copytree(models / name, folder / "models" / name)
    with Runtime(folder / "models", folder) as runtime:
        yield runtime.address


def _says(client, sentence):
    return sentence in str(ask(client))


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


def test_a_dead_upstream_is_left_out_and_probed_back_in(steady, models, tmp_path):
    with serving("double", models, tmp_path) as double:
        address = double.address
        arms = {"double": {"model": "double", "target": address}, "triple": {"model": "triple", "target": steady}}
        config = write_config(tmp_path, {ROUTE: {"arms": arms, "guard": GUARD}})
        with Router(config, tmp_path / "router") as router, Client(router.address) as client:
            seen = [ask(client) for _ in range(50)]
            assert set(seen) == {"double", "triple"}
            double.kill()
            is_left_out(client, address)
            port = int(address.rpartition(":")[2])
            with Runtime(tmp_path / "double" / "models", tmp_path / "double again", port=port) as again:
                assert again.address == address
                until(lambda: ask(client) == "double")
                assert allowed(client) == {"double", "triple"}
                seen = [ask(client) for _ in range(50)]
                assert set(seen) == {"double", "triple"}
                client.close()
                assert router.stop() == 0
                assert "Traceback" not in router.complained, router.complained


def is_left_out(client, address):
    """The arm whose server, at this address, is away: after a few refusals it is only probed."""
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


def spread(targets, **settings):
    """A route with one arm behind several servers, and no guard or other arm to hide behind."""
    return {ROUTE: {"arms": {"double": {"model": "double", "target": targets, **settings}}}}


def test_a_server_that_is_killed_costs_the_calls_in_flight_and_no_more(steady, models, tmp_path):
    with serving("double", models, tmp_path) as mortal:
        config = write_config(tmp_path, spread([mortal.address, steady]))
        with Router(config, tmp_path / "router") as router, Client(router.address) as client:
            seen = [ask(client) for _ in range(20)]
            mortal.kill()  # with nothing in flight
            seen += [ask(client) for _ in range(100)]
            assert set(seen) == {"double"}, [each for each in seen if each != "double"][:3]


def test_a_router_that_asks_itself_notices_the_loop(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    routes = {ROUTE: {"arms": {"self": {"model": ROUTE, "target": address}}}}
    with Router(write_config(tmp_path, routes, listen=address)) as router, Client(router.address) as client:
        until(lambda: "UNAVAILABLE" not in (sentence := ask(client).sentence) and sentence)
        refused = ask(client)
        assert "FAILED_PRECONDITION" in refused.sentence
        assert "goes round in a loop" in refused.sentence


def test_an_arm_over_mutual_tls_with_a_token_from_a_file(models, tmp_path):
    """Paths start at the configuration; what stands in the files is never printed."""
    authority = Authority(tmp_path)
    authority.sign("server")
    authority.sign("client")
    (tmp_path / "token").write_text("Bearer very-secret\n")
    inner = write_config(
        tmp_path / "inner",
        {"double": {"arms": {"only": {"model": "double"}}}},
        models=str(models),
        tls={"certificate": "../server.pem", "key": "../server.key", "client_ca": "../ca.pem"},
    )
    with Router(inner) as upstream:
        arm = {
            "model": "double",
            "target": upstream.address,
            "tls": {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key", "server_name": "localhost"},
            "headers": {"authorization": {"file": "token"}},
        }
        config = write_config(tmp_path, {ROUTE: {"arms": {"double": arm}}})
        with Router(config, tmp_path / "router") as router, Client(router.address) as client:
            assert ask(client) == "double"
            for arms, sentence in (
                ({"tls": {"ca": "ca.pem"}}, "UNAVAILABLE"),
                ({"tls": {}}, "CERTIFICATE_VERIFY_FAILED"),
            ):
                write_config(tmp_path, {ROUTE: {"arms": {"double": arm | arms}}})
                router.signal(signal.SIGHUP)
                until(partial(_says, client, sentence))
            assert "very-secret" not in router.printed + router.complained


def test_arms_of_every_kind_answer_together(steady, models, tmp_path):
    arms = {
        "grpc": {"model": "double", "target": steady},
        "rest": {"model": "triple", "url": f"http://{steady}"},
        "local": {"model": "triple"},
        "all": {"ensemble": {"members": {"grpc": 2, "rest": 1, "local": 1}}},
    }
    policy = {"kind": "split", "weights": {"grpc": 0, "rest": 0, "local": 0, "all": 1}}
    config = write_config(tmp_path, {ROUTE: {"arms": arms, "policy": policy}}, models=str(models))
    with Router(config, tmp_path / "router") as router, Client(router.address) as client:
        answer = client.infer(ROUTE, {"x": ROWS})
        assert answer.arm == "all"
        assert answer.outputs["y"].tolist() == (ROWS * 2.5).tolist()
