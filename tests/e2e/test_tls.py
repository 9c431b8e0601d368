"""A router that speaks TLS and asks who comes: our clients, our commands, and what it says to try."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess

import grpc
import pytest

from protos.errors import Code, FailedPrecondition
from router import AsyncClient, Client, Trust
from router.__main__ import main
from tests.certificates import Authority
from tests.e2e.calls import refusal
from tests.process import Router, write_config

REMOTE = {"arms": {"a": {"model": "a", "target": "127.0.0.1:1"}}}
ALL = ["infer", "feedback", "read", "operate"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def desk(authority):
    """A client that the router knows by its certificate."""
    certificate, key = map(str, authority.sign("desk"))
    return Trust(ca=str(authority.certificate), certificate=certificate, key=key)


@pytest.fixture(scope="module")
def router(authority, tmp_path_factory):
    """One that lets in whoever shows a certificate of the authority, and knows one of them."""
    certificate, key = map(str, authority.sign("router"))
    tls = {"certificate": certificate, "key": key, "client_ca": str(authority.certificate)}
    clients = {"desk": {"certificate": "CN=desk", "roles": ALL}, "robot": {"key_sha256": "0" * 64, "roles": ALL}}
    config = write_config(tmp_path_factory.mktemp("tls"), {"r": REMOTE}, tls=tls, admin_tls=tls, clients=clients)
    with Router(config) as router:
        assert router.address
        yield router
        assert router.stop() == 0


def test_our_clients_show_who_they_are(router, desk):
    with Client(router.address, tls=desk) as client:
        assert client.routes() == ["r"]
        assert client.reward(client.decide("r").decision_id, 1.0).arm == "a"

    async def talk():
        async with AsyncClient(router.address, tls=desk) as client:
            assert (await client.reward((await client.decide("r")).decision_id, 1.0)).arm == "a"

    asyncio.run(talk())


def test_whoever_does_not_trust_the_router_does_not_ask_it(router, desk, tmp_path):
    stranger = str(Authority(tmp_path).certificate)
    for tls in (None, Trust(), Trust(ca=stranger, certificate=desk.certificate, key=desk.key), Trust(ca=desk.ca)):
        with Client(router.address, tls=tls) as client, pytest.raises(grpc.RpcError) as failed:
            client.routes()
        assert refusal(failed.value).code is Code.UNAVAILABLE
    with pytest.raises(FailedPrecondition, match=r"tls\.ca: /nowhere cannot be read"):
        Client(router.address, tls=Trust(ca="/nowhere"))


def test_what_it_says_to_try_works(router, desk, capsys):
    """Once CA.pem, YOU.pem and YOU.key are the files of a client."""
    said = router.says(r"^try: (curl .*)   or: croupier (.*)$")
    curl, report = (
        shlex.split(each.replace("CA.pem", desk.ca).replace("YOU.pem", desk.certificate).replace("YOU.key", desk.key))
        for each in said.groups()
    )
    assert shutil.which("curl"), "this test needs curl, which every user of REST has"
    answer = subprocess.run([*curl, "--silent", "--max-time", "30"], capture_output=True, text=True, check=True)
    # Its one upstream is away, which is told to those who are let in.
    assert "127.0.0.1:1" in json.loads(answer.stdout)["error"]
    assert main(report) == 0
    assert "r: split" in capsys.readouterr().out
    assert router.says(r"^dashboard: (https)://")
    assert main([*report, "--server-name", "localhost"]) == 0
    assert main([*report, "--server-name", "elsewhere"]) == 1


def test_a_command_says_what_it_lacks(router, desk, authority, capsys):
    certificate, key = map(str, authority.sign("nobody"))
    plain = ["events", "r", "--server", router.address]
    for argv, said in (
        (plain, f"nobody answers at {router.address}: start it, name it with --server, or give --ca where it speaks"),
        ([*plain, "--ca", desk.ca], f"nobody answers at {router.address} over TLS: --ca must have signed its certif"),
        ([*plain[:-1], f"https://{router.address}"], f"nobody answers at https://{router.address} over TLS: --ca"),
        (
            [*plain, "--ca", desk.ca, "--certificate", certificate, "--key", key],
            rf"{router.address} answered: who asks\? send .*; put the key into the environment variable CROUPIER_KEY",
        ),
    ):
        assert main(argv) == 1
        complained = capsys.readouterr().err
        assert re.match(f"croupier: {said}", complained), complained


def test_the_key_of_another_certificate_keeps_it_from_starting(authority, tmp_path, capsys):
    certificate, _ = authority.sign("router")
    _, key = authority.sign("other")
    config = write_config(tmp_path, {"r": REMOTE}, tls={"certificate": str(certificate), "key": str(key)})
    assert main(["serve", str(config)]) == 1
    assert capsys.readouterr().err == f"croupier: {config}: tls.key: {key} is the key of another certificate\n"
