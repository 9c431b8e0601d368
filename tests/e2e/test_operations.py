"""What operators do to a running server: reload it, look at its metrics, read its log, stop it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import httpx
import numpy as np
import pytest

from protos.errors import Code
from protos.messages import ModelInferRequest
from protos.tensors import add_inputs
from protos.v2 import SERVICE as V2
from router import AsyncClient, Client
from router.__main__ import main
from router.stores import open_store
from tests import plain_http
from tests.e2e.calls import ROWS, ask_rest, expect_answer, refusal
from tests.e2e.conftest import ARMS
from tests.process import Process, Router, until, write_config
from tests.runtime.models import BLOCKS, put

DOUBLE, TRIPLE = ({name: ARMS[name]} for name in ("double", "triple"))


# -------------------------------------------------------------------------------------------------------- reload


@pytest.fixture(scope="module")
def reloading(models, tmp_path_factory):
    """A running server, and a function that replaces its configuration."""
    folder = tmp_path_factory.mktemp("reloading")

    def write(routes, **settings):
        return write_config(folder, routes, models=str(models), **settings)

    with Router(write({"first": {"arms": ARMS}})) as router:
        assert router.address
        yield router, write
        assert router.stop() == 0
        assert "Traceback" not in router.complained, router.complained


@pytest.fixture
def reloaded(reloading):
    """The same, with the one route that it started with."""
    router, write = reloading
    write({"first": {"arms": ARMS}})
    plain_http.post(f"http://{router.admin}/reload").raise_for_status()
    return router, write


def test_reload_by_signal(reloaded):
    """A route more, an arm less; then a wrong file, which changes nothing and says why."""
    router, write = reloaded
    path = write({"first": {"arms": TRIPLE}, "second": {"arms": DOUBLE}})
    with Client(router.address) as client:
        assert client.routes() == ["first"]  # not before it is asked to
        router.signal(signal.SIGHUP)
        until(lambda: client.routes() == ["first", "second"])
        assert [arm.name for arm in client.describe("first").arms] == ["triple"]
    assert {expect_answer(router.address, "first") for _ in range(20)} == {"triple"}
    until(lambda: router.metric("croupier_arm_probability", route="first") == 1.0)  # the other arm's is gone
    assert expect_answer(router.address, "second") == "double"

    refused = router.metric("croupier_reloads_total", outcome="refused")
    write({"first": {"arms": {"absent": {"model": "absent"}}}, "third": {"arms": DOUBLE}})
    router.signal(signal.SIGHUP)
    until(lambda: f"not reloaded, nothing has changed: {path}: routes.first.arms.absent: " in router.complained)
    with Client(router.address) as client:
        assert client.routes() == ["first", "second"]
    assert expect_answer(router.address, "first") == "triple"
    assert router.metric("croupier_reloads_total", outcome="refused") == refused + 1


def test_reload_over_the_admin_port(reloaded):
    """Clients cannot; operators are told the outcome. What was learnt outlives it."""
    router, write = reloaded
    url = f"http://{router.admin}/reload"
    with Client(router.address) as client:
        answers = [client.infer("first", {"x": ROWS}) for _ in range(10)]
        for answer in answers:
            client.reward(answer.decision, 1.0 if answer.arm == "double" else 0.0)
        before = client.describe("first")

        path = write({"second": {"arms": DOUBLE}, "first": {"arms": ARMS, "policy": {"kind": "thompson"}}})
        changed = plain_http.post(url).json()["changed"]
        assert changed[0] == 'routes.first.policy.kind: "split" -> "thompson"'
        assert changed[-1] == 'routes.second.arms.double.model: nothing -> "double"'
        after = client.describe("first")
        assert [arm.reward for arm in after.arms] == [arm.reward for arm in before.arms]
        assert after.policy == "thompson"
        assert after.arms[0].probability > 0.5

        write({"first": {"arms": ARMS, "polcy": {}}})
        refused = plain_http.post(url)
        assert refused.status_code == 422
        assert refused.json()["error"].startswith(f"{path}: routes.first: ")
        assert "`polcy`" in refused.json()["error"]

        write({"first": {"arms": ARMS}}, flush_seconds=1.0)
        refused = plain_http.post(url)
        assert refused.status_code == 422
        assert refused.json()["error"] == f"{path}: flush_seconds: cannot change while running; restart to change it"

        assert client.routes() == ["second", "first"]
    assert plain_http.get(url).status_code == 405
    assert ask_rest(router.address, "/reload", b"").status_code == 404


def test_a_reload_loses_no_call(reloaded):
    """Customers ask and report on while the arms of their route come and go."""
    router, write = reloaded

    async def customer(client, enough):
        count = 0
        while not enough.is_set():
            answer = await client.infer("first", {"x": ROWS})
            await client.reward(answer.decision, 1.0)
            count += 1
        return count

    async def talk():
        enough = asyncio.Event()
        async with AsyncClient(router.address) as client, httpx.AsyncClient() as operator:
            customers = [asyncio.create_task(customer(client, enough)) for _ in range(8)]
            for arms in (TRIPLE, ARMS, DOUBLE, ARMS) * 3:
                write({"first": {"arms": arms}})
                (await operator.post(f"http://{router.admin}/reload")).raise_for_status()
            enough.set()
            return await asyncio.gather(*customers)

    assert min(asyncio.run(talk())) > 0


def test_what_is_learnt_during_a_reload_is_not_forgotten(reloaded):
    """The reload waits for an upstream that says nothing, and meanwhile rewards come in."""
    router, write = reloaded
    learning = {"arms": ARMS, "policy": {"kind": "thompson"}}

    async def talk():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            silent.setblocking(False)
            target = f"127.0.0.1:{silent.getsockname()[1]}"
            write({"learning": learning, "waiting": {"arms": {"silent": {"model": "silent", "target": target}}}})
            async with AsyncClient(router.address) as client, httpx.AsyncClient(timeout=30) as operator:
                reload = asyncio.create_task(operator.post(f"http://{router.admin}/reload"))
                connection, _ = await loop.sock_accept(silent)
                with connection:
                    answers = await asyncio.gather(*(client.infer("learning", {"x": ROWS}) for _ in range(20)))
                    for answer in answers:
                        await client.reward(answer.decision, 1.0 if answer.arm == "double" else 0.0)
                    assert not reload.done()
                    (await reload).raise_for_status()

    write({"learning": learning})
    plain_http.post(f"http://{router.admin}/reload").raise_for_status()
    asyncio.run(talk())
    with Client(router.address) as client:
        until(lambda: client.describe("learning").arms[0].probability > 0.9, seconds=3)


def test_the_admin_port_tells_health(server):
    assert plain_http.get(f"http://{server.admin}/live").text == "live\n"
    told = plain_http.get(f"http://{server.admin}/ready")
    assert told.status_code == 200
    assert told.json()["ready"]
    assert all(route["ready"] for route in told.json()["routes"].values())
    assert ask_rest(server.address, "/metrics", b"").status_code == 404


# ------------------------------------------------------------------------------------------------------- metrics


def test_metrics_count_what_happened(server):
    """By route and arm, against what this client alone did."""
    names = {
        "requests": "croupier_requests_total",
        "timed": "croupier_request_seconds_count",
        "decisions": "croupier_decisions_total",
        "rewards": "croupier_rewards_total",
    }

    def counts(arm):
        return {what: server.metric(name, route="multiply", arm=arm) for what, name in names.items()}

    with Client(server.address) as client:
        # Decisions are counted once committed: those of other tests may still be on their way.
        until(lambda: server.metric("croupier_decisions_waiting") == 0)
        before = {arm: counts(arm) for arm in ARMS}
        answers = [client.infer("multiply", {"x": ROWS}) for _ in range(20)]
        for answer in answers[:10]:
            client.reward(answer.decision, 0.5)

        def after():
            new = {arm: counts(arm) for arm in ARMS}
            return {arm: {what: new[arm][what] - before[arm][what] for what in names} for arm in ARMS}

        asked = {arm: sum(answer.arm == arm for answer in answers) for arm in ARMS}
        rewarded = {arm: sum(answer.arm == arm for answer in answers[:10]) for arm in ARMS}
        expected = {
            arm: {"requests": asked[arm], "timed": asked[arm], "decisions": asked[arm], "rewards": rewarded[arm]}
            for arm in ARMS
        }
        until(lambda: after() == expected)


def test_metrics_show_time_lag_and_errors(server):
    with Client(server.address) as client:
        client.reward(client.infer("multiply", {"x": ROWS}).decision, 1.0)
    until(lambda: "\ncroupier_mean_reward" in server.metrics_text())
    text = server.metrics_text()
    arm = 'arm="double",le="{}",route="multiply"'
    for bound in ("0.0001", "0.0002", "0.001", "0.01", "1.0", "+Inf"):
        assert f"croupier_request_seconds_bucket{{{arm.format(bound)}}}" in text
    first = text.index("croupier_request_seconds_bucket")
    assert text[first:].startswith("croupier_request_seconds_bucket{" + arm.format("0.0001"))
    for name in (
        "croupier_learner_lag_seconds",
        "croupier_decisions_waiting",
        "croupier_decisions_dropped_total",
        "croupier_store_errors_total",
        "croupier_arm_probability",
        "process_cpu_seconds_total",
    ):
        assert f"\n{name}" in text, name
    assert "_created" not in text, "of some counters and not of others"
    assert server.metric("croupier_store_errors_total") == 0
    assert server.metric("croupier_decisions_dropped_total") == 0
    until(lambda: server.metric("croupier_arm_probability", route="multiply") == pytest.approx(1.0))


def test_no_label_is_what_a_client_sent(server):
    """Neither a route that there is not, nor a unit, a decision, a metric, a tensor, or a header."""
    word = "chosen-by-a-client"
    request = ModelInferRequest(model_name="multiply", id=word)
    request.parameters["unit"].string_param = word
    add_inputs(request, {"x": ROWS}, raw=True)
    metadata = [("croupier-unit", word), ("x-request-id", word), ("user-agent", word)]
    with grpc.insecure_channel(server.address) as channel, Client(server.address) as client:
        channel.unary_unary(V2 + "ModelInfer")(request.SerializeToString(), metadata=metadata, timeout=30)
        channel.unary_unary(V2 + "ServerLive")(b"", metadata=metadata, timeout=30)
        for wrong in (
            lambda: client.infer(word, {"x": ROWS}, unit=word),
            lambda: client.infer("multiply", {word: ROWS}),
            lambda: client.decide(word, unit=word),
            lambda: client.describe(word),
            lambda: client.reward(word, 1.0),
            lambda: client.reward(client.decide("multiply").decision_id, 1.0, metrics={word: 1.0}),
            lambda: channel.unary_unary(f"/{word}/{word}")(b"", timeout=30),
        ):
            with pytest.raises(grpc.RpcError):
                wrong()
    assert ask_rest(server.address, f"/{word}", b"").status_code == 404
    assert word not in server.metrics_text()
    assert server.metric("croupier_unknown_route_requests_total") >= 1


def test_metrics_tell_that_the_store_is_away(models, tmp_path):
    """Requests are answered as ever, a reward is refused and may be sent again, and in the end nothing is missing."""
    config = write_config(tmp_path, {"first": {"arms": ARMS}}, models=str(models))
    with Router(config) as router, Client(router.address, timeout=30) as client:
        rewarded = client.infer("first", {"x": ROWS}).decision
        until(lambda: router.metric("croupier_decisions_total") == 1)
        with closing(sqlite3.connect(tmp_path / "croupier.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(10):
                client.infer("first", {"x": ROWS})
            with pytest.raises(grpc.RpcError) as refused:
                client.reward(rewarded, 1.0)
            assert refusal(refused.value).code is Code.UNAVAILABLE
            assert "nothing was recorded, send it again" in refusal(refused.value).sentence
            assert router.metric("croupier_store_errors_total") >= 1
            assert router.metric("croupier_decisions_waiting") == 10
            assert router.metric("croupier_learner_lag_seconds") > 1.0
            other.execute("ROLLBACK")
        until(lambda: router.metric("croupier_store_away_seconds") == 0.0)
        client.reward(rewarded, 1.0)
        until(lambda: router.metric("croupier_decisions_total") == 11)
        until(lambda: router.metric("croupier_learner_lag_seconds") == 0.0)
        assert sum(arm.reward.n for arm in client.describe("first").arms) == 1
        client.close()
        assert router.stop() == 0


# --------------------------------------------------------------------------------------------------------- drain


@pytest.mark.parametrize("workers", [1, 2])
def test_load_balancers_are_told_before_the_ports_close(models, tmp_path, workers):
    """After SIGTERM it says that it is not ready and answers as ever, until its time is over: here, until SIGINT."""
    settings = {"models": str(models), "linger_seconds": 100, "workers": workers}
    config = write_config(tmp_path, {"first": {"arms": ARMS}}, **settings)
    with Router(config) as router:
        ready = f"http://{router.admin}/ready"
        assert plain_http.get(ready).json()["draining"] is False
        router.signal(signal.SIGTERM)
        until(lambda: plain_http.get(ready).status_code == 503)
        assert plain_http.get(ready).json()["draining"] is True
        assert plain_http.get(f"http://{router.address}/v2/health/ready").status_code == 503
        expect_answer(router.address, "first")
        router.signal(signal.SIGINT)
        assert router.wait() == 0
        assert "Traceback" not in router.complained, router.complained


def test_calls_in_flight_are_finished_and_kept(models, tmp_path):
    """After SIGTERM all that came before is answered, and every decision is in the log when the process has ended.

    Only the end can have committed them: the next flush would come in an hour.
    """
    routes = {"patient": {"arms": {"patient": {"model": "patient"}}}, "first": {"arms": ARMS}}
    config = write_config(tmp_path, routes, models=str(models), flush_seconds=3600, refresh_seconds=3600)

    async def talk(router):
        async with AsyncClient(router.address, timeout=30) as client:
            before = await asyncio.gather(*(client.infer("first", {"x": ROWS}) for _ in range(10)))
            calls = [asyncio.create_task(client.infer("patient", {"x": ROWS})) for _ in range(20)]
            in_flight = "runtime_requests_in_flight"
            await asyncio.to_thread(until, lambda: router.metric(in_flight, model="patient") == 20)
            router.signal(signal.SIGTERM)
            answers = await asyncio.gather(*calls)
            for answer in answers:
                assert answer.outputs["y"].tolist() == ROWS.tolist()
            assert await asyncio.to_thread(router.wait) == 0
            with pytest.raises(grpc.aio.AioRpcError) as late:
                await client.infer("first", {"x": ROWS})
            assert refusal(late.value).code is Code.UNAVAILABLE
            return before, answers

    with Router(config) as router:
        before, answers = asyncio.run(talk(router))
        assert "Traceback" not in router.complained, router.complained
    with closing(open_store(f"sqlite:{tmp_path / 'croupier.db'}")) as store:
        for route, answered in (("first", before), ("patient", answers)):
            assert {decision.id for decision, _ in store.log(route)} == {answer.decision for answer in answered}


# --------------------------------------------------------------------------------------------------- request log


def lines(router):
    """What was printed behind the welcome."""
    return [line for line in router.printed.splitlines() if not line.startswith(("serving ", "dashboard: ", "try: "))]


def test_the_request_log_has_a_line_a_request(models, tmp_path):
    """It says where a request went and how it ended, and nothing of what it carried."""
    config = write_config(tmp_path, {"first": {"arms": ARMS}}, models=str(models), request_log=True)
    secret = np.array([[31415.75, 27182.25]], np.float32)
    with Router(config) as router, Client(router.address) as client:
        answers = [client.infer("first", {"x": secret}, unit="unit-31415.75") for _ in range(5)]
        with pytest.raises(grpc.RpcError):
            client.infer("first", {"secret-31415.75": secret})
        client.reward(answers[0].decision, 0.625, truth=31415.75)
        # A log that comes in blocks of eight kilobytes is of no use to whoever follows it.
        until(lambda: len(lines(router)) == 6)
        client.close()
        assert router.stop() == 0
        told = [json.loads(line) for line in lines(router)]
        complained = router.complained
    assert [line["route"] for line in told] == ["first"] * 6
    assert [line["code"] for line in told] == ["OK"] * 5 + ["INVALID_ARGUMENT"]
    assert [(line["decision"], line["arm"]) for line in told[:5]] == [(each.decision, each.arm) for each in answers]
    assert [line["propensity"] for line in told[:5]] == [each.propensity for each in answers]
    assert all(line["milliseconds"] > 0 and line["time"] > 0 for line in told)
    ours = {"time", "milliseconds", "decision", "propensity"}  # whose digits may be any
    assert all(line.keys() <= ours | {"route", "code", "arm"} for line in told)
    said = [value for line in told for key, value in line.items() if key not in ours]
    printed = "".join([*said, complained])
    for carried in ("31415", "27182", "62831", "94247", "0.625", "unit-"):
        assert carried not in printed


def test_no_request_is_logged_unless_asked_for(server):
    expect_answer(server.address, "multiply")
    assert lines(server) == []


# -------------------------------------------------------------------------------------------------------- report


def test_an_arm_is_switched_off_from_the_command_line(models, tmp_path, capsys):
    """Nobody is sent there once the command has ended, and the log says who did it and why."""
    config = write_config(tmp_path / "router", {"first": {"arms": ARMS}}, models=str(models))

    def croupier(*arguments):
        return main([*arguments, "--server", router.address]), *capsys.readouterr()

    with Router(config) as router, Client(router.address) as client:
        status, printed, _ = croupier("switch", "first", "double", "off", "--why", "prices are wrong", "--who", "Ada")
        assert (status, printed.splitlines()[0]) == (0, "Out: double.")
        assert {client.infer("first", {"x": ROWS}).arm for _ in range(50)} == {"triple"}
        assert "frozen" in croupier("freeze", "first", "--why", "a holiday", "--who", "Ada")[1]
        assert "frozen" not in croupier("thaw", "first", "--why", "it is over", "--who", "Ada")[1]
        printed = croupier("switch", "first", "double", "on", "--why", "right again", "--who", "Ada")[1]
        assert printed.startswith("No arm is out.")
        assert {client.infer("first", {"x": ROWS}).arm for _ in range(50)} == {"double", "triple"}
        assert [(each.kind, each.why) for each in client.events("first").events] == [
            ("switched_off", "Ada: prices are wrong"),
            ("frozen", "Ada: a holiday"),
            ("switched_on", "Ada: it is over"),
            ("switched_on", "Ada: right again"),
        ]
        status, _, complained = croupier("switch", "first", "nobody", "off", "--why", "a test")
        assert (status, "no arm 'nobody'; there are: double, triple" in complained) == (1, True)


def test_the_report_of_a_route(server, tmp_path, capsys):
    """For a person, on the command line; a question that has no answer ends with a sentence and status 1."""
    with Process("router", "report", "multiply", "--server", server.address, folder=tmp_path) as process:
        assert process.wait() == 0
        printed = process.printed
    assert printed.startswith("multiply: thompson")
    assert [line.split()[0] for line in printed.splitlines()[4 : 4 + len(ARMS)]] == list(ARMS)
    assert main(["report", "nobody", "--server", server.address]) == 1
    told = f"{server.address} answered: unknown route 'nobody'; there are: multiply, product, split"
    assert capsys.readouterr().err == f"croupier: {told}\n"


def test_the_end_waits_for_no_model_that_blocks_for_ever(tmp_path):
    """What was decided is in the log all the same, though only the end can have committed it."""
    x = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}
    folder = put(tmp_path / "models", "m", implementation="models.Model", inputs=[x], outputs=[{**x, "name": "y"}])
    (folder / "models.py").write_text(BLOCKS)
    routes = {"r": {"arms": {"a": {"model": "m"}}}}
    config = write_config(tmp_path, routes, models="models", flush_seconds=3600, refresh_seconds=3600)
    with Process("tests.stops_soon", "router", "serve", config, folder=tmp_path / "said") as router:
        address = router.says(r"^serving .* on (\S+:\d+) \(gRPC and REST\)")[1]
        with Client(address) as client, ThreadPoolExecutor(1) as pool:
            before = client.infer("r", {"x": ROWS})
            blocked = pool.submit(client.infer, "r", {"x": ROWS + 100})
            router.says("^it blocks$")
            assert router.stop() == 1
            assert isinstance(blocked.exception(), grpc.RpcError)
        assert "stopping took 1 s; given up: 'm'" in router.complained
    with closing(open_store(f"sqlite:{tmp_path / 'croupier.db'}")) as store:
        assert before.decision in {decision.id for decision, _ in store.log("r")}
