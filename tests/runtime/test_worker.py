from __future__ import annotations

import asyncio
import os
import sys
import threading
from functools import partial

import pytest

from runtime.worker import NICENESS, Worker


def test_jobs_are_done_in_order_and_their_results_come_back_to_the_loop():
    async def scenario():
        loop = asyncio.get_running_loop()
        worker = Worker(loop, "m")
        done: asyncio.Future[None] = loop.create_future()
        seen = []

        def job(number):
            where = threading.get_ident()

            def then():
                seen.append((number, where != threading.get_ident()))
                if number == 2:
                    done.set_result(None)

            return then

        for number in range(3):
            worker.do(partial(job, number))
        await done
        worker.stop()
        assert seen == [(0, True), (1, True), (2, True)]

    asyncio.run(scenario())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_a_model_lets_the_event_loop_go_first():
    async def scenario():
        loop = asyncio.get_running_loop()
        worker = Worker(loop, "m")
        priority: asyncio.Future[int] = loop.create_future()

        def job():
            found = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            return lambda: priority.set_result(found)

        worker.do(job)
        before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert await priority == min(before + NICENESS, 19)
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before
        worker.stop()

    asyncio.run(scenario())
