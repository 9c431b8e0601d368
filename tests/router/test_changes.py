from __future__ import annotations

from pathlib import Path

import pytest

from router.config import Change, Config, changes, parse_config

A = {"model": "m", "target": "h:1"}
ROUTES = {"r": {"arms": {"a": A}}}


def config(**more) -> Config:
    return parse_config({"routes": ROUTES, "store": "memory:", **more}, Path("routes.yaml"))


def changed(before: Config, after: Config) -> list[str]:
    return [each.what for each in changes(before, after)]


def test_nothing_changes_nothing():
    assert changes(config(), config()) == []


def test_each_key_that_differs_is_shown_with_both_values_and_the_route_that_it_is_about():
    after = config(routes={"r": {"arms": {"a": {**A, "target": ["h:1", "h:2"]}}, "floor": 0.05}}, request_log=True)
    assert changes(config(), after) == [
        Change('routes.r.arms.a.target: "h:1" -> ["h:1","h:2"]', "r"),
        Change("routes.r.floor: 0.0 -> 0.05", "r"),
        Change("request_log: false -> true"),
    ]


def test_of_what_comes_or_goes_there_is_what_the_file_says():
    more = config(routes={**ROUTES, "s": {"arms": {"b": A}, "policy": {"kind": "thompson", "alpha": 2}, "guard": {}}})
    said = [("arms.b.model", '"m"'), ("arms.b.target", '"h:1"'), ("policy.kind", '"thompson"'), ("policy.alpha", "2.0")]
    assert changes(config(), more) == [Change(f"routes.s.{key}: nothing -> {value}", "s") for key, value in said]
    assert changes(more, config()) == [Change(f"routes.s.{key}: {value} -> nothing", "s") for key, value in said]


def test_what_becomes_of_another_kind_is_shown_without_its_defaults():
    after = config(routes={"r": {"arms": {"a": A}, "policy": {"kind": "epsilon_greedy", "epsilon": 0.2}}})
    assert changed(config(), after) == [
        'routes.r.policy.kind: "split" -> "epsilon_greedy"',
        "routes.r.policy.epsilon: nothing -> 0.2",
    ]


def test_lists_are_compared_item_by_item():
    def stepped(share: float) -> Config:
        steps = [{"share": share, "calls": 10}]
        canary = {"arm": "b", "champion": "a", "objective": "guardrails", "steps": steps}
        guardrails = {"errors": {"watch": "errors", "action": "roll_back", "most": 0.05}}
        return config(routes={"r": {"arms": {"a": A, "b": A}, "canary": canary, "guardrails": guardrails}})

    assert changed(stepped(0.1), stepped(0.2)) == ["routes.r.canary.steps.0.share: 0.1 -> 0.2"]


@pytest.mark.parametrize("key", ["model", "version"])
def test_a_model_that_takes_the_place_of_another_is_warned_of(key: str):
    what, warning = changes(config(), config(routes={"r": {"arms": {"a": {**A, key: "2"}}}}))
    assert what.what.startswith(f"routes.r.arms.a.{key}: ")
    assert warning.route == "r"
    assert warning.what.startswith("routes.r.arms.a: what was learnt about it stays, and it is another model now")


def test_a_server_that_moves_is_no_other_model():
    moved = config(routes={"r": {"arms": {"a": {**A, "target": "h:2"}}}})
    assert changed(config(), moved) == ['routes.r.arms.a.target: "h:1" -> "h:2"']


def test_so_it_is_inside_an_ensemble():
    def both(**about: str) -> Config:
        inline = {"in": {**A, **about}}
        arms = {"a": A, "both": {"ensemble": {"members": {"a": 1, "in": 1}, "arms": inline}}}
        return config(routes={"r": {"arms": arms}})

    key = "routes.r.arms.both.ensemble.arms.in"
    assert changed(both(), both(target="h:2")) == [f'{key}.target: "h:1" -> "h:2"']
    what, warning = changed(both(), both(model="n"))
    assert what == f'{key}.model: "m" -> "n"'
    assert warning.startswith("routes.r.arms.both: what was learnt about it stays")


def test_a_file_that_was_renewed_is_told_without_its_digest(tmp_path: Path):
    secret = {"headers": {"authorization": {"file": "token"}}}

    def read(token: str) -> Config:
        (tmp_path / "token").write_text(token)
        return parse_config({"routes": {"r": {"arms": {"a": {**A, **secret}}}}}, tmp_path / "routes.yaml")

    assert changed(read("one"), read("two")) == ["routes.r.arms.a: a file that it names has changed"]


def test_what_identifies_a_client_is_not_shown():
    one, other = ({"desk": {"key_sha256": digit * 64}} for digit in "ab")
    assert changed(config(clients=one), config(clients=other)) == ["clients.desk.key_sha256: changed"]


def test_nor_is_it_where_a_client_comes_or_goes():
    desk = {"desk": {"key_sha256": "a" * 64, "roles": ["read"]}}
    assert changed(config(), config(clients=desk)) == [
        'clients.desk.roles: nothing -> ["read"]',
        "clients.desk.key_sha256: changed",
    ]
    assert "aaa" not in "".join(changed(config(clients=desk), config()))


def test_what_we_send_to_others_is_not_shown():
    secret = {"r": {"arms": {"a": {**A, "headers": {"authorization": "Bearer secret"}}}}}
    assert changed(config(), config(routes=secret)) == ["routes.r.arms.a.headers: changed"]
    assert "secret" not in "".join(changed(config(), config(routes={**ROUTES, "s": secret["r"]})))


def test_only_our_own_keys_are_secret_and_not_what_an_arm_is_called():
    more = {"r": {"arms": {"a": A, "headers": A}}}
    assert changed(config(), config(routes=more))[0] == 'routes.r.arms.headers.model: nothing -> "m"'


def test_the_order_of_roles_changes_nothing():
    one, other = (
        {"desk": {"key_sha256": "a" * 64, "roles": roles}} for roles in (["read", "infer"], ["infer", "read"])
    )
    assert changed(config(clients=one), config(clients=other)) == []
