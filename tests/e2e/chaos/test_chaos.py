"""Processes are killed, the store goes away in every way it can, and nothing that was acknowledged is lost.

All scenarios are played side by side, each with routers, a store and customers of its own, so that half a minute
without a network is paid for once. Then each is held to the same promises.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from collections import Counter

import pytest

from protos.errors import Code
from router.call import REWARD
from router.stores import DECISIONS
from tests.e2e.chaos.customers import CUSTOMERS, earned, eventually
from tests.e2e.chaos.link import Link
from tests.e2e.chaos.scene import AWAY, WAITING, Played, Stage, said, scene
from tests.e2e.models import FACTORS
from tests.redis_server import PROGRAM, RedisServer

CUT_SECONDS = 30.0
TIMEOUT = 0.5  # seconds that a router waits for Redis, where answers are lost
LOSSES = [3 * TIMEOUT, 1.5 * TIMEOUT] * 5  # seconds for which they are: too long for one call, and not
COUNTS = b"watched:"  # in the commits that bear counts of calls
FULL_BYTES = 64 << 10  # of a file, beyond which the disk counts as full
WHILE = 3.0  # seconds that something else stays broken


async def replicas_killed(stage, played):
    """One after the other, each replaced by another process."""
    store = f"sqlite:{stage.folder / 'replicas.db'}"
    async with scene(stage, played, "replicas", [store] * 2, store, stage.arms()) as on:
        customers = on.customers
        for _ in range(2):
            victim, other = customers.replicas
            await victim.kill()
            customers.replicas = [other]
            customers.replicas = [other, await on.replica(store)]
            await customers.more(20)


async def upstream_killed(stage, played):
    """It dies, comes back, stops answering, and comes back again."""
    store = f"sqlite:{stage.folder / 'upstream.db'}"
    victim = stage.upstream("victim", "double")
    try:
        await victim.serving()
        async with scene(stage, played, "upstream", [store], store, stage.arms(double=victim)) as on:
            await on.customers.answered_by("double")
            victim.process.kill()
            await asyncio.sleep(WHILE)
            victim.start()
            await on.customers.answered_by("double")
            victim.process.signal(signal.SIGSTOP)
            await asyncio.sleep(WHILE)
            victim.process.signal(signal.SIGCONT)
            await on.customers.answered_by("double")
    finally:
        victim.process.kill()


async def redis_restarted(stage, played):
    """Killed and started again on its file; then it freezes."""
    with RedisServer(stage.folder / "restarted") as redis:
        async with scene(stage, played, "redis", [redis.url] * 2, redis.url, stage.arms()) as on:
            redis.kill()
            await asyncio.sleep(WHILE)
            await asyncio.to_thread(redis.start)
            await on.customers.more(20)
            redis.freeze()
            await asyncio.sleep(WHILE)
            redis.thaw()
            await on.customers.more(20)


async def network_cut(stage, played):
    """Half a minute without one replica. Meanwhile answers to the other one are lost again and again.

    What was asked is done then, counts of calls among it, and asked again: by the same call as long as the store has
    the patience, and then by another one.
    """
    with RedisServer(stage.folder / "cut") as redis:
        async with Link(redis.port) as one, Link(redis.port) as two:
            stores = [f"redis://127.0.0.1:{one.port}/0", f"redis://127.0.0.1:{two.port}/0?timeout={TIMEOUT}"]
            async with scene(stage, played, "network", stores, redis.url, stage.arms()) as on:
                cut_off = on.customers.replicas[0]
                stage.open.set()
                one.cut()
                ends = asyncio.get_running_loop().time() + CUT_SECONDS
                for seconds in LOSSES:
                    await two.lose_answers(COUNTS)
                    await asyncio.sleep(seconds)
                    two.heal()
                    await asyncio.sleep(1.0)
                played.said.append(await said(cut_off))
                await asyncio.sleep(ends - asyncio.get_running_loop().time())
                one.heal()
                await caught_up(cut_off)
                await on.customers.more(20)


async def disk_full(stage, played):
    """No file of the router may grow, as on a full disk; then there is room again."""
    store = f"sqlite:{stage.folder / 'full.db'}"
    log = stage.folder / "full.db-wal"
    async with scene(stage, played, "full", [store], store, stage.arms()) as on:
        (replica,) = on.customers.replicas
        await eventually(lambda: log.stat().st_size > FULL_BYTES)
        before = resource.prlimit(replica.process.id, resource.RLIMIT_FSIZE)
        resource.prlimit(replica.process.id, resource.RLIMIT_FSIZE, (FULL_BYTES, before[1]))
        await asyncio.sleep(WHILE)
        played.said.append(await said(replica))
        resource.prlimit(replica.process.id, resource.RLIMIT_FSIZE, before)
        await caught_up(replica)
        await on.customers.more(20)


async def caught_up(replica):
    """Returns once a replica has its store back, and nothing from before waits for it."""
    async with asyncio.timeout(30):
        while (await said(replica)).away_seconds:
            await asyncio.sleep(0.1)


_log = logging.getLogger(__name__)

SCENES = {play.__name__: play for play in (network_cut, replicas_killed, upstream_killed, redis_restarted, disk_full)}
WITHOUT_REDIS = [play for play in SCENES if play not in {"network_cut", "redis_restarted"}]


@pytest.fixture(scope="module")
def stories(models, tmp_path_factory):
    """What became of each scenario: played, and the error that ended it early, if one did."""
    names = list(SCENES) if PROGRAM else WITHOUT_REDIS
    played = {name: Played() for name in names}

    async def play():
        stage = Stage(models, tmp_path_factory.mktemp("chaos"))

        async def one(name):
            if name != "network_cut" and PROGRAM:
                await stage.open.wait()
            try:
                await SCENES[name](stage, played[name])
            finally:
                stage.open.set()

        try:
            return await asyncio.gather(*map(one, names), return_exceptions=True)
        finally:
            stage.steady.process.kill()

    errors = asyncio.run(play())
    for name in names:
        _log.info("%s: %s", name, played[name].told)
    return {name: (played[name], error) for name, error in zip(names, errors, strict=True)}


@pytest.fixture(params=SCENES)
def played(request, stories):
    if request.param not in stories:
        pytest.skip("redis-server is not installed")
    story, error = stories[request.param]
    if error:
        raise error
    return story


def test_no_request_fails_but_those_in_flight_on_a_killed_router(played):
    assert played.told.failed == []
    assert len(played.told.in_flight) <= 2 * CUSTOMERS
    assert len(played.told.answers) >= 50


def test_every_acknowledged_reward_is_there_with_its_value(played):
    rewarded = {id: of[REWARD].value for id, (_, of) in played.log.items() if REWARD in of}
    assert rewarded == {id: earned(id) for id in played.told.acknowledged}


def test_every_reward_was_acknowledged_in_the_end(played):
    """Unless the router that took the decision was killed before it was written down."""
    assert played.told.sent.keys() - played.told.acknowledged == played.told.unknown
    assert len(played.told.unknown) <= 2 * CUSTOMERS
    assert not played.told.unknown & played.log.keys()


def test_nothing_is_counted_twice(played):
    """The sum of the log is the sums, in each layout; and all that is sent once more is known already."""
    assert played.again == {Code.ALREADY_EXISTS: len(played.told.acknowledged)}
    decisions = Counter(decision.arm for decision, _ in played.log.values())
    (policy,) = {layout for layout, _ in played.sums if layout.startswith("policy:")}
    for arm in FACTORS:
        assert played.sums[DECISIONS, arm].tolist() == [decisions[arm]]
        rewarded = [(made, of[REWARD].value) for made, of in played.log.values() if REWARD in of and made.arm == arm]
        learnt = [value for made, value in rewarded if not made.failed]  # a policy does not learn from stand-ins
        for layout, values in ((REWARD, [value for _, value in rewarded]), (policy, learnt)):
            assert played.sums[layout, arm].tolist() == [len(values), sum(values), sum(value**2 for value in values)]


def test_the_log_says_what_customers_were_told(played):
    """And it has every answer, but for those of a killed router that were not written down."""
    answers = played.told.answers
    for id, (decision, _) in played.log.items():
        if id in answers:
            assert (decision.arm, decision.propensity) == (answers[id].arm, answers[id].propensity)
    assert answers.keys() - played.log.keys() == played.told.unknown
    assert len(played.log.keys() - answers.keys()) <= len(played.told.in_flight)


def test_routers_end_well(played):
    assert set(played.exits) == {0}
    for complaint in played.complaints:
        assert "Traceback" not in complaint, complaint


@pytest.mark.parametrize("name", ["network_cut", "redis_restarted", "disk_full"])
def test_calls_are_counted_once_however_often_a_commit_is_sent(stories, name):
    """They hang on no reward that could be claimed."""
    if name not in stories:
        pytest.skip("redis-server is not installed")
    story, _ = stories[name]
    failed = [len(decision.failed) for decision, _ in story.log.values()]  # that another arm stood in for
    calls = [row.tolist() for (layout, _), row in story.sums.items() if layout.encode().startswith(COUNTS)]
    assert [sum(column) for column in zip(*calls, strict=True)] == [len(failed) + sum(failed), sum(failed)]


@pytest.mark.parametrize("name", ["network_cut", "disk_full"])
def test_a_router_without_its_store_stays_ready_and_says_so(stories, name):
    if name not in stories:
        pytest.skip("redis-server is not installed")
    story, _ = stories[name]
    (said,) = story.said
    assert said.status == 200
    assert said.away_seconds > 1
    assert said.metrics[AWAY] > 1
    assert said.waiting > 0
    assert said.metrics[WAITING] > 0
