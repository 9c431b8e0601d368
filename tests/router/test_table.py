from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from protos.errors import FailedPrecondition, ResourceExhausted, Unavailable
from router.call import REWARD, Feedback
from router.config import parse_config, read_config
from router.errors import ConfigError, UnknownRoute
from router.safety.switches import Switch, switch
from router.stores import StoreError
from tests.router.bench import p_of
from tests.router.fakes import NOW, SOON, FakeRouter, FlakyStore, call_of, router, settled

pytestmark = pytest.mark.anyio

CREDIT = """
routes:
  credit:
    policy: {kind: epsilon_greedy, epsilon: 0}
    arms: {a: {model: forest}, b: {model: linear}}
"""
MOMENTUM = """
  momentum:
    arms: {slow: {model: linear}, fast: {model: quick}}
"""


async def reload(fake: FakeRouter, text: str) -> None:
    fake.write(text)
    await asyncio.wait_for(fake.reload(), SOON)


def outcome(fake: FakeRouter, name: str) -> float | None:
    return fake.metric("croupier_reloads_total", outcome=name)


async def test_a_configuration_becomes_routes_that_answer(tmp_path: Path):
    async with router(tmp_path, CREDIT + MOMENTUM, "forest", "linear", "quick") as fake:
        assert list(fake.routes.current) == list(fake.table.handlers) == ["credit", "momentum"]
        assert (await fake.infer("momentum")).parameters["arm"].string_param in {"slow", "fast"}
        route = fake.routes.current["credit"]
        assert p_of(route) == [0.5, 0.5]
        assert route.allowed.tolist() == [True, True]


GUARDED = """
routes:
  credit:
    arms: {a: {model: forest}, b: {model: linear}}
    guardrails: {errors: {watch: errors, action: eject, most: 0.05}}
"""
CANARY = (
    GUARDED.replace("eject", "roll_back")
    + """
    canary: {arm: b, champion: a, objective: guardrails, steps: [{share: 0.5, calls: 10}]}
"""
)


@pytest.mark.parametrize(("text", "watched", "said"), [(GUARDED, "ab", []), (CANARY, "b", ["canary_began"])])
async def test_the_first_call_counts_for_guardrails_and_canaries(
    tmp_path: Path, text: str, watched: str, said: list[str]
):
    fake = FakeRouter(tmp_path)
    fake.has("forest", "linear")
    for n in (1, 2):  # a start and a reload; no learner runs, so nobody has looked since
        await fake.load(text + f"    max_in_flight: {n}\n")
        for _ in range(10):
            await fake.infer("credit")
        route = fake.routes.current["credit"]
        assert route.tally is not None
        calls = {add.arm: add.row.tolist() for add in route.tally.drain()}
        asked = {"a": fake.models.upstreams["forest"].calls, "b": fake.models.upstreams["linear"].calls}
        assert calls == {arm: [len(asked[arm]), 0.0] for arm in watched}
        for each in asked.values():
            each.clear()
    assert [each.kind for each in fake.store.events("credit")] == said
    fake.learner.close()


async def test_a_route_that_comes_into_service_is_as_the_switches_are_then(tmp_path: Path):
    fake = FakeRouter(tmp_path)
    fake.has("forest", "linear")
    await fake.load(CREDIT)
    fake.write(CREDIT + "    max_in_flight: 5\n")
    await fake.table.prepare(read_config(fake.path))
    switch(fake.store, "credit", "b", Switch("off", "jane", "it is slow", NOW))
    await fake.learner.look()
    await fake.table.switch()
    assert fake.routes.current["credit"].switched_on.tolist() == [True, False]
    fake.learner.close()


async def test_routes_come_and_go(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        with pytest.raises(UnknownRoute, match="there are: credit"):
            await fake.infer("momentum")
        await reload(fake, CREDIT + MOMENTUM)
        await fake.infer("momentum")
        await reload(fake, "routes:\n" + MOMENTUM)
        with pytest.raises(UnknownRoute, match="there are: momentum"):
            await fake.infer("credit")
        assert outcome(fake, "served") == 2
        assert outcome(fake, "refused") is None


async def test_upstreams_are_opened_once_and_closed_when_nobody_needs_them(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        await reload(fake, CREDIT + MOMENTUM)
        assert fake.models.opened == ["forest", "linear", "quick"]
        await reload(fake, "routes:\n" + MOMENTUM)
        closed = {model for model, upstream in fake.models.upstreams.items() if upstream.is_closed}
        assert closed == {"forest"}
        await fake.connections.close()
        assert all(upstream.is_closed for upstream in fake.models.upstreams.values())


async def test_two_versions_of_a_model_are_two_upstreams(tmp_path: Path):
    arms = 'routes: {r: {arms: {old: {model: forest, version: "1"}, new: {model: forest, version: "2"}}}}'
    async with router(tmp_path, arms, "forest") as fake:
        assert fake.models.opened == ["forest", "forest"]


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("routes: [", "not YAML"),
        ("routes: {}", "at least one route is needed"),
        (CREDIT + "colour: red", "unknown field `colour`"),
        (
            CREDIT + MOMENTUM.replace("quick", "missing"),
            "routes.momentum.arms.fast: no model 'missing'",
        ),
    ],
)
async def test_a_bad_file_changes_nothing_and_says_why(tmp_path: Path, text: str, sentence: str):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        before, handlers = fake.routes.current["credit"], fake.table.handlers
        with pytest.raises(ConfigError, match=f"^{fake.path}: .*{sentence}"):
            await reload(fake, text)
        assert fake.routes.current["credit"] is before
        assert fake.table.handlers is handlers
        await fake.infer("credit")
        assert not any(upstream.is_closed for upstream in fake.models.upstreams.values())
        assert outcome(fake, "refused") == 1
        assert outcome(fake, "served") is None
        await reload(fake, CREDIT + MOMENTUM)
        await fake.infer("momentum")


async def test_what_a_refused_file_had_opened_is_closed_again(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        with pytest.raises(ConfigError):
            await reload(fake, CREDIT + "  x: {arms: {q: {model: quick}, m: {model: missing}}}")
        assert fake.models.upstreams["quick"].is_closed
        assert not fake.models.upstreams["linear"].is_closed


async def test_a_model_that_does_not_load_is_named_with_its_arm(tmp_path: Path):
    fake = FakeRouter(tmp_path)
    fake.models.fault = FailedPrecondition("forest.pt is not a TorchScript archive")
    with pytest.raises(ConfigError, match=r"routes.credit.arms.a: forest.pt is not a TorchScript archive"):
        await fake.load(CREDIT)
    assert fake.routes.current == {}


@pytest.mark.parametrize(
    "line",
    [
        "listen: 127.0.0.1:9999",
        "admin: 127.0.0.1:9999",
        "store: sqlite:other.db",
        "flush_seconds: 3",
        "refresh_seconds: 3",
        "linger_seconds: 3",
        "workers: 3",
    ],
)
async def test_what_a_running_process_cannot_change_is_refused(tmp_path: Path, line: str):
    async with router(tmp_path, CREDIT, "forest", "linear") as fake:
        key = line.partition(":")[0]
        with pytest.raises(ConfigError, match=f"^{fake.path}: {key}: cannot change while running; restart"):
            await reload(fake, f"{CREDIT}{line}")
        assert outcome(fake, "refused") == 1


async def test_the_folder_of_models_cannot_change_either(tmp_path: Path):
    (tmp_path / "others").mkdir()
    async with router(tmp_path, CREDIT, "forest", "linear") as fake:
        fake.path.write_text(f"models: others\n{CREDIT}flush_seconds: 2")
        with pytest.raises(ConfigError, match="models, flush_seconds: cannot change"):
            await fake.reload()


async def test_arms_that_take_different_inputs_are_refused(tmp_path: Path):
    fake = FakeRouter(tmp_path)
    fake.has("forest", "linear")
    fake.models.upstreams["linear"].inputs = [("x", "FP32", [-1])]
    with pytest.raises(
        ConfigError, match=r"routes.credit.arms: b takes .*FP32.*, but a takes .*FP64.* the same inputs"
    ):
        await fake.load(CREDIT)
    assert fake.models.upstreams["forest"].is_closed


async def test_inputs_may_stand_in_any_order(tmp_path: Path):
    fake = FakeRouter(tmp_path)
    fake.has("forest", "linear")
    fake.models.upstreams["forest"].inputs = [("x", "FP64", [-1]), ("z", "BOOL", [2])]
    fake.models.upstreams["linear"].inputs = [("z", "BOOL", [2]), ("x", "FP64", [-1])]
    await fake.load(CREDIT)


async def test_an_arm_that_is_away_is_not_compared(tmp_path: Path):
    fake = FakeRouter(tmp_path)
    fake.has("forest", "linear")
    fake.models.upstreams["linear"].inputs = [("x", "FP32", [-1])]
    fake.models.upstreams["linear"].away = Unavailable("nobody answers")
    await fake.load(CREDIT)
    assert list(fake.routes.current) == ["credit"]


async def test_a_store_that_does_not_answer_is_said_and_changes_nothing(tmp_path: Path):
    store = FlakyStore()
    async with router(tmp_path, CREDIT, "forest", "linear", "quick", store=store) as fake:
        store.down = True
        with pytest.raises(ConfigError, match=r"routes.credit: the disk is full") as refused:
            await reload(fake, CREDIT + MOMENTUM)
        assert not isinstance(refused.value, StoreError)
        assert list(fake.routes.current) == ["credit"]
        assert outcome(fake, "refused") == 1
        store.down = False
        await reload(fake, CREDIT + MOMENTUM)


# -------------------------------------------------------------------------------------------------- while it serves


async def test_what_a_reload_changed_is_in_the_logs_of_the_routes_that_it_changed(tmp_path: Path):
    async with router(tmp_path, CREDIT + MOMENTUM, "forest", "linear", "quick") as fake:
        await reload(fake, CREDIT + MOMENTUM)
        assert not fake.store.events("credit")
        fake.write(CREDIT.replace("linear", "quick") + "    floor: 0.1\n" + MOMENTUM + "request_log: true\n")
        sentences = await fake.reload()
        (said,) = fake.store.events("credit")
        assert (said.kind, said.arm, said.time) == ("reloaded", "", fake.clock())
        assert said.why == "; ".join(sentences[:-1])
        assert sentences[0] == 'routes.credit.arms.b.model: "linear" -> "quick"'
        assert any(each.startswith("routes.credit.arms.b: what was learnt about it stays") for each in sentences)
        assert sentences[-1] == "request_log: false -> true"
        assert not fake.store.events("momentum")


async def test_a_reload_whose_event_cannot_be_written_is_served_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = FlakyStore()
    fake = FakeRouter(tmp_path, store)  # nobody learns meanwhile
    fake.has("forest", "linear")
    await fake.load(CREDIT)
    changed = await fake.table.load(parse_config(yaml.safe_load(f"models: .\n{CREDIT}    floor: 0.1"), fake.path))
    store.down = True
    await fake.table.write_down(changed, fake.clock())
    assert fake.routes.current["credit"].settings.floor == 0.1
    assert "nobody has written down what that changed: the disk is full" in caplog.text
    fake.learner.close()


async def test_what_was_learnt_is_known_after_a_reload(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        decisions = [fake.routes.current["credit"].decide(call_of("credit"))[0] for _ in range(20)]
        for decision in decisions:
            fake.learner.journal.record(decision)
        await fake.learner.journal.feedback(
            [Feedback(decision.id, 0.0, float(decision.arm == "b")) for decision in decisions]
        )
        await settled(fake.learner)
        before = fake.routes.current["credit"]
        assert p_of(before) == [0.0, 1.0]
        await reload(fake, CREDIT + MOMENTUM)
        after = fake.routes.current["credit"]
        assert after is not before
        assert after.version == before.version
        assert p_of(after) == [0.0, 1.0]
        assert fake.store.sums("credit")[REWARD, "b"][0] > 0


async def test_a_request_under_way_is_answered_by_the_route_that_it_came_to(tmp_path: Path):
    async with router(tmp_path, "routes: {r: {arms: {a: {model: forest}}}}", "forest", "linear", "quick") as fake:
        held = fake.models.upstreams["forest"].hold()
        asked = asyncio.create_task(fake.infer("r"))
        await asyncio.wait_for(held.arrived.wait(), SOON)
        await reload(fake, "routes:\n" + MOMENTUM)
        held.release()
        assert (await asyncio.wait_for(asked, SOON)).model_name == "r"


async def test_two_reloads_at_once_are_one_after_the_other(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick", "slow") as fake:
        one = "routes: {one: {arms: {a: {model: quick}, b: {model: forest}}}}"
        other = "routes: {other: {arms: {a: {model: linear}, b: {model: slow}}}}"
        await asyncio.gather(fake.load(one), fake.load(other))
        assert list(fake.routes.current) == ["other"]
        closed = {model for model, upstream in fake.models.upstreams.items() if upstream.is_closed}
        assert closed == {"forest", "quick"}


async def test_what_is_prepared_is_served_by_a_switch_and_closed_when_dropped(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        fake.write(CREDIT + MOMENTUM)
        await fake.table.prepare(read_config(fake.path))
        assert list(fake.routes.current) == ["credit"]
        await fake.table.drop()
        assert fake.models.upstreams["quick"].is_closed
        assert not fake.models.upstreams["linear"].is_closed
        await fake.table.prepare(read_config(fake.path))
        changed = await fake.table.switch()
        assert {each.route for each in changed} == {"momentum"}
        assert [each.what for each in changed] == [
            'routes.momentum.arms.slow.model: nothing -> "linear"',
            'routes.momentum.arms.fast.model: nothing -> "quick"',
        ]
        assert list(fake.routes.current) == ["credit", "momentum"]
        await asyncio.wait_for(fake.table.prepare(read_config(fake.path)), SOON)
        assert await fake.table.switch() == []


async def test_the_only_arm_with_a_share_is_never_left_out(tmp_path: Path):
    text = CREDIT.replace("{kind: epsilon_greedy, epsilon: 0}", "{kind: split, weights: {a: 1, b: 0}}")
    async with router(tmp_path, text, "forest", "linear") as fake:
        fake.models.upstreams["forest"].fail(RuntimeError("broken"), times=10)
        for _ in range(10):
            with pytest.raises(RuntimeError):
                await fake.infer("credit")
        assert (await fake.infer("credit")).parameters["arm"].string_param == "a"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [(CREDIT + MOMENTUM, [False, True]), (CREDIT.replace("linear", "quick"), [True, True])],
    ids=["about another route", "about its arms"],
)
async def test_a_reload_keeps_an_arm_out_unless_it_is_about_its_arms(tmp_path: Path, text: str, allowed: list[bool]):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        guard = fake.routes.current["credit"].guard
        while not guard.failed(0, probe=False):
            pass
        fake.routes.guard_changed("credit")
        assert fake.routes.current["credit"].allowed.tolist() == [False, True]
        await reload(fake, text)
        assert fake.routes.current["credit"].allowed.tolist() == allowed


async def test_arms_that_are_gone_are_shown_no_more(tmp_path: Path):
    async with router(tmp_path, CREDIT, "forest", "linear", "quick") as fake:
        await settled(fake.learner)
        assert fake.metric("croupier_arm_probability", route="credit", arm="a") == 0.5
        await reload(fake, "routes:\n" + MOMENTUM)
        await settled(fake.learner)
        assert fake.metric("croupier_arm_probability", route="credit", arm="a") is None
        assert fake.metric("croupier_arm_probability", route="momentum", arm="slow") == 0.5


async def test_a_route_has_its_limit(tmp_path: Path):
    text = "routes: {r: {max_in_flight: 1, arms: {a: {model: forest}}}}"
    async with router(tmp_path, text, "forest") as fake:
        held = fake.models.upstreams["forest"].hold()
        asked = asyncio.create_task(fake.infer("r"))
        await held.arrived.wait()
        with pytest.raises(ResourceExhausted, match="'r' has 1 requests in flight already"):
            await fake.infer("r")
        held.release()
        await asked


async def test_requests_are_logged_when_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    async with router(tmp_path, CREDIT, "forest", "linear") as fake:
        await fake.infer("credit")
        assert capsys.readouterr().out == ""
        await reload(fake, CREDIT + "request_log: true")
        response = await fake.infer("credit")
        line = json.loads(capsys.readouterr().out)
        assert (line["route"], line["code"]) == ("credit", "OK")
        assert line["decision"] == response.parameters["decision_id"].string_param


async def test_the_answers_of_an_arm_are_counted_under_its_name(tmp_path: Path):
    async with router(tmp_path, "routes: {r: {arms: {a: {model: forest}}}}", "forest") as fake:
        for _ in range(3):
            await fake.infer("r")
        assert fake.metric("croupier_requests_total", route="r", arm="a", code="OK") == 3
