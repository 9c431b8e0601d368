from __future__ import annotations

from pathlib import Path

from router.config import Config, changes, parse_config

ROUTES = {"r": {"arms": {"a": {"model": "m", "target": "h:1"}}}}


def config(**more) -> Config:
    return parse_config({"routes": ROUTES, "store": "memory:", **more}, Path("routes.yaml"))


def test_nothing_changes_nothing():
    assert changes(config(), config()) == []


def test_each_key_that_differs_is_shown_with_both_values():
    after = {"r": {"arms": {"a": {"model": "n", "target": "h:1"}}, "floor": 0.05}, "s": ROUTES["r"]}
    added, *rest = sorted(changes(config(), config(routes=after)), key=lambda line: not line.startswith("routes.s"))
    assert added.startswith('routes.s: nothing -> {"arms":{"a":{"model":"m"')
    assert rest == ['routes.r.arms.a.model: "m" -> "n"', "routes.r.floor: 0.0 -> 0.05"]


def test_what_is_gone_is_shown_too():
    assert changes(config(request_log=True), config()) == ["request_log: true -> false"]
    (line,) = changes(config(routes={**ROUTES, "s": ROUTES["r"]}), config())
    assert line.startswith("routes.s: {")
    assert line.endswith("-> nothing")


def test_what_identifies_a_client_is_not_shown():
    one, other = ({"desk": {"key_sha256": digit * 64}} for digit in "ab")
    assert changes(config(clients=one), config(clients=other)) == ["clients.desk.key_sha256: changed"]


def test_nor_is_it_where_a_client_comes_or_goes():
    desk = {"desk": {"key_sha256": "a" * 64, "roles": ["read"]}}
    for before, after in ({}, desk), (desk, {}):
        (line,) = changes(config(clients=before), config(clients=after))
        assert "aaa" not in line
        assert '"roles":["read"]' in line


def test_what_we_send_to_others_is_not_shown():
    secret = {"r": {"arms": {"a": {"model": "m", "target": "h:1", "headers": {"authorization": "Bearer secret"}}}}}
    assert changes(config(), config(routes=secret)) == ["routes.r.arms.a.headers: changed"]
    (line,) = changes(config(), config(routes={**ROUTES, "s": secret["r"]}))
    assert "secret" not in line


def test_the_order_of_roles_changes_nothing():
    one, other = (
        {"desk": {"key_sha256": "a" * 64, "roles": roles}} for roles in (["read", "infer"], ["infer", "read"])
    )
    assert changes(config(clients=one), config(clients=other)) == []
