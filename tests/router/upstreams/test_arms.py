"""The arms that a configuration may have, and what is said about those that it may not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from router.config import parse_config
from router.config.arm import Arm, File
from router.errors import ConfigError

GRPC = {"model": "m", "target": "h:1"}
REST = {"model": "m", "url": "http://h:1"}
BOTH = {"ensemble": {"members": {"a": 1, "b": 2.5}}}


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"model": "m"}, "local"),
        ({"model": "m", "version": "2", "kind": "local"}, "local"),
        (GRPC, "grpc"),
        (GRPC | {"kind": "grpc", "version": "1", "client": "grpc", "connections": 4, "retries": 0}, "grpc"),
        (GRPC | {"target": ["h:1", "[::1]:2"]}, "grpc"),
        (GRPC | {"tls": {}}, "grpc"),
        (GRPC | {"tls": {"ca": "a", "certificate": "b", "key": "c", "server_name": "d"}}, "grpc"),
        (GRPC | {"headers": {"authorization": {"file": "token"}, "x-tenant": "fx"}}, "grpc"),
        (GRPC | {"kind": "seldon"}, "seldon"),
        (REST, "rest"),
        (REST | {"url": "https://h/models/eu", "kind": "rest", "tls": {"ca": "a"}}, "rest"),
        (BOTH, "ensemble"),
        ({"ensemble": {"members": {"a": 1}, "combine": "vote", "arms": {"a": {"model": "m"}}}}, "ensemble"),
    ],
)
def test_an_arm_is_of_one_kind(raw: Any, kind: str):
    assert msgspec.convert(raw, Arm).the_kind == kind


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({}, "arms.a.model: must not be empty"),
        ({"target": "h:1"}, "arms.a.model: must not be empty"),
        (GRPC | {"target": "h"}, "arms.a.target: expected HOST:PORT, got 'h'"),
        (GRPC | {"target": []}, "arms.a.target: at least one HOST:PORT is needed"),
        (GRPC | {"target": ["h:1", "h:1"]}, "arms.a.target: an address is given twice; for several connections"),
        (GRPC | {"url": "http://h:1"}, "arms.a.target: an arm behind a url has none; it takes connections, headers"),
        (BOTH | {"model": "m"}, "arms.a.model: an ensemble has none; it takes ensemble"),
        ({"model": "m", "retries": 3}, "arms.a.retries: an arm in this process has none; it takes model, version"),
        ({"model": "m", "kind": "seldon"}, "arms.a.kind: seldon needs the mesh for a target, HOST:PORT"),
        ({"model": "m", "kind": "rest"}, "arms.a.kind: rest needs a url, such as http://HOST:PORT"),
        ({"model": "m", "kind": "ensemble"}, "arms.a.kind: ensemble needs an ensemble, with its members"),
        (GRPC | {"kind": "local"}, "arms.a.kind: local is a model in this process, without target"),
        (GRPC | {"kind": "grcp"}, "arms.a.kind: Invalid enum value 'grcp'"),
        (GRPC | {"kind": "seldon", "version": "1"}, "arms.a.version: an arm in a Seldon mesh has none"),
        (GRPC | {"connections": 0}, "arms.a.connections: must lie between 1 and 100, got 0"),
        (GRPC | {"retries": 11}, "arms.a.retries: must lie between 0 and 10, got 11"),
        (GRPC | {"timeout_seconds": 0}, "arms.a.timeout_seconds: must be above 0, got 0.0"),
        (GRPC | {"tls": {"certificate": "c"}}, "arms.a.tls.key: a certificate and its key go together"),
        (GRPC | {"headers": {"Authorization": "x"}}, "arms.a.headers: 'Authorization' cannot be set"),
        (GRPC | {"headers": {"grpc-timeout": "1S"}}, "arms.a.headers: 'grpc-timeout' cannot be set"),
        (REST | {"url": "h:1"}, "arms.a.url: expected http://HOST:PORT or https://HOST:PORT"),
        (REST | {"url": "http://h:x"}, "arms.a.url: expected http://HOST:PORT or https://HOST:PORT"),
        (REST | {"url": "http://h/?a=b"}, "arms.a.url: expected http://HOST:PORT or https://HOST:PORT"),
        (REST | {"tls": {}}, "arms.a.tls: the url says http; write https"),
        (GRPC | {"tls": {"ca": "missing.pem"}}, r"arms.a.tls.ca: .*/missing.pem is not a file"),
        (GRPC | {"headers": {"x-key": {"file": "missing"}}}, r"arms.a.headers.x-key.file: .*/missing is not a file"),
        ({"ensemble": {"members": {}}}, "arms.a.ensemble.members: at least one member is needed"),
        ({"ensemble": {"members": {"b": 0}}}, "arms.a.ensemble.members.b: must be above 0, got 0.0"),
        ({"ensemble": {"members": {"c": 1}}}, r"arms: a: c cannot be a member; members are arms of the route.*\(b\)"),
        ({"ensemble": {"members": {"a": 1}}}, "arms: a: a cannot be a member"),
        (
            {"ensemble": {"members": {"b": 1}, "arms": {"b": {"model": "m"}}}},
            "arms: a: b is an arm of the route; an inline one needs another name",
        ),
        (
            {"ensemble": {"members": {"b": 1}, "arms": {"c": {"model": "m"}}}},
            "arms.a.ensemble.arms: c counts for nothing; give it a weight in members",
        ),
        (
            {"ensemble": {"members": {"c": 1}, "arms": {"c": BOTH}}},
            "arms.a.ensemble.arms: an ensemble has no ensembles among its members",
        ),
        (
            {"ensemble": {"members": {"c": 1}, "arms": {"c": {"model": "m"}}}},
            r"models: a folder of models is needed.*r\.a",
        ),
    ],
)
def test_a_wrong_arm_is_refused_in_a_sentence(raw: Any, sentence: str, tmp_path: Path):
    with pytest.raises(ConfigError) as refused:
        parse_config({"routes": {"r": {"arms": {"a": raw, "b": GRPC}}}}, tmp_path / "c.yaml")
    # What is not wrong with an arm alone is said of the whole.
    assert re.search(rf"c.yaml: (routes\.r\.)?{sentence}", str(refused.value)), str(refused.value)


def test_files_are_found_from_the_configuration_and_their_contents_count(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("a")
    (tmp_path / "token").write_text("b")
    inline = GRPC | {"tls": {"ca": "ca.pem"}, "headers": {"x-key": {"file": "token"}}}
    raw = {"a": inline, "e": {"ensemble": {"members": {"a": 1, "c": 1}, "arms": {"c": inline}}}}

    def arms() -> dict[str, Arm]:
        return parse_config({"routes": {"r": {"arms": raw}}}, tmp_path / "c.yaml").routes["r"].arms

    before = arms()
    for arm in (before["a"], before["e"].inline["c"]):
        assert arm.tls is not None
        assert arm.tls.ca == str(tmp_path / "ca.pem")
        assert arm.headers["x-key"] == File(file=str(tmp_path / "token"))
    assert arms() == before
    (tmp_path / "token").write_text("c")
    assert arms()["a"] != before["a"]
    assert arms()["e"] != before["e"]
