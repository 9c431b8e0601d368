from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.errors import DeadlineExceeded, Internal, InvalidArgument, ResourceExhausted, Unavailable
from runtime import worker
from runtime.batcher import Batcher
from runtime.metrics import ModelMetrics
from runtime.model import NOTHING
from tests.runtime.models import Fake

LONG = 3600.0


def batcher(model, **limits):
    usual = {"max_rows": 64, "max_wait": 0.0, "max_queue": 1024, "quick_rows": 64, "thread": None}
    return Batcher(model, ModelMetrics(), **usual | limits)


def rows(*values, width=1):
    return {"x": np.repeat(np.array(values, float)[:, None], width, axis=1)}


def submit(to, *values, **options):
    return to.submit(rows(*values), len(values), **options)


class Gated(Fake):
    """Runs when it is let."""

    def __init__(self):
        super().__init__()
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def run(self, arrays, parameters=NOTHING):
        self.started.release()
        assert self.gate.acquire(timeout=60)
        return super().run(arrays)


async def in_thread(semaphore):
    assert await asyncio.to_thread(semaphore.acquire, timeout=60)


def test_calls_of_one_turn_of_the_loop_share_a_batch():
    async def scenario():
        model = Fake()
        to = batcher(model)
        answers = await asyncio.gather(submit(to, 1), submit(to, 2, 3), submit(to, 4))
        assert [answer["y"].ravel().tolist() for answer in answers] == [[3], [5, 7], [9]]
        assert [batch.ravel().tolist() for batch in model.batches] == [[1, 2, 3, 4]]

    asyncio.run(scenario())


def test_calls_that_come_while_a_batch_runs_are_the_next():
    async def scenario():
        model = Gated()
        to = batcher(model, quick_rows=0)
        first = submit(to, 1)
        await in_thread(model.started)
        others = [submit(to, 2), submit(to, 3)]
        await asyncio.sleep(0)
        others.append(submit(to, 4))
        model.gate.release(2)
        await asyncio.gather(first, *others)
        assert [batch.ravel().tolist() for batch in model.batches] == [[1], [2, 3, 4]]
        await to.close()

    asyncio.run(scenario())


def test_a_batch_of_one_is_the_callers_own_arrays():
    async def scenario():
        model = Fake()
        given = rows(1)
        await batcher(model).submit(given, 1)
        assert model.batches[0] is given["x"]

    asyncio.run(scenario())


def test_the_limit_counts_rows_and_a_larger_call_runs_alone():
    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=4)
        await asyncio.gather(submit(to, 1, 2), submit(to, 3, 4), submit(to, 5), submit(to, *range(9)), submit(to, 6))
        assert [len(batch) for batch in model.batches] == [4, 1, 9, 1]

    asyncio.run(scenario())


def test_a_model_that_is_not_batched_runs_call_by_call():
    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=1)
        await asyncio.gather(*(submit(to, i) for i in range(3)))
        assert [batch.ravel().tolist() for batch in model.batches] == [[0], [1], [2]]

    asyncio.run(scenario())


def test_calls_with_different_keys_take_turns():
    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=2)
        narrow = [to.submit(rows(i), 1, "narrow") for i in range(4)]
        wide = to.submit(rows(9, width=2), 1, "wide")
        await asyncio.gather(*narrow, wide)
        assert [batch[:, 0].tolist() for batch in model.batches] == [[0, 1], [9], [2, 3]]

    asyncio.run(scenario())


def test_a_wait_is_for_company_and_ends_when_the_batch_is_full():
    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=2, max_wait=LONG)
        first = submit(to, 1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert model.batches == []
        await asyncio.gather(first, submit(to, 2))
        assert [len(batch) for batch in model.batches] == [2]

    asyncio.run(scenario())


def test_a_wait_that_is_over_ends_without_company():
    async def scenario():
        model = Fake()
        await submit(batcher(model, max_wait=1e-3), 1)
        assert [len(batch) for batch in model.batches] == [1]

    asyncio.run(scenario())


def test_closing_does_not_wait_for_company():
    async def scenario():
        to = batcher(Fake(), max_wait=LONG)
        call = submit(to, 1)
        await to.close()
        assert call.result()["y"].tolist() == [[3]]

    asyncio.run(scenario())


def test_closing_answers_what_is_queued():
    async def scenario():
        model = Gated()
        to = batcher(model, max_rows=1, quick_rows=0)
        calls = [submit(to, i) for i in range(3)]
        await in_thread(model.started)
        closing = asyncio.create_task(to.close())
        model.gate.release(3)
        await closing
        assert [call.result()["y"].item() for call in calls] == [1, 3, 5]

    asyncio.run(scenario())


@pytest.mark.parametrize("quick_rows", [64, 0])
def test_one_bad_call_does_not_spoil_the_others(quick_rows, caplog):
    async def scenario():
        to = batcher(Fake("tender"), quick_rows=quick_rows)
        good, bad, other = submit(to, 1), submit(to, -1), submit(to, 2)
        await asyncio.wait([good, bad, other])
        assert good.result()["y"].tolist() == [[3]]
        assert str(bad.exception()) == "model 'tender' failed: ValueError: negative"
        assert other.result()["y"].tolist() == [[5]]
        await to.close()

    asyncio.run(scenario())
    (said,) = caplog.messages  # which its caller is told; the log is not, as it may hold what the caller sent
    assert re.fullmatch(r"model 'tender' failed: ValueError at .*models\.py:\d+", said)


@pytest.mark.parametrize("quick_rows", [64, 0])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_model_that_would_end_the_process_ends_its_own_call(quick_rows, kind):
    class Leaves(Fake):
        def run(self, arrays, parameters=NOTHING):
            if (arrays["x"] < 0).any():
                raise kind(3)
            return super().run(arrays)

    async def scenario():
        to = batcher(Leaves("leaves"), quick_rows=quick_rows)
        good, bad = submit(to, 1), submit(to, -1)
        await asyncio.wait([good, bad], timeout=60)
        assert str(bad.exception()) == f"model 'leaves' failed: {kind.__name__}: 3"
        assert [(await each)["y"].item() for each in (good, submit(to, 2))] == [3, 5]
        await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [InvalidArgument, ResourceExhausted, Unavailable])
def test_a_model_may_say_whose_fault_it_is(kind):
    class Strict(Fake):
        def run(self, arrays, parameters=NOTHING):
            if (arrays["x"] > 1).any():
                raise kind("input 'x' is too large")
            return super().run(arrays)

    async def scenario():
        to = batcher(Strict())
        good, bad = submit(to, 1), submit(to, 2)
        with pytest.raises(kind, match="input 'x' is too large"):
            await bad
        assert (await good)["y"].item() == 3

    asyncio.run(scenario())


def test_outputs_that_lose_rows_are_not_dealt_out(caplog):
    class Short(Fake):
        def run(self, arrays, parameters=NOTHING):
            return {"y": arrays["x"][:1]}

    async def scenario():
        to = batcher(Short())
        with pytest.raises(Internal, match="output 'y' has 1 rows for a batch of 2 rows"):
            await submit(to, 1, 2)

    asyncio.run(scenario())


@pytest.mark.parametrize("quick_rows", [64, 0])
def test_an_answer_that_is_not_as_declared_is_its_callers_alone(quick_rows):
    """The others of its batch get their own, as they were declared."""

    class Odd(Fake):
        def run(self, arrays, parameters=NOTHING):
            x = arrays["x"]
            if (x == 9).any():
                return {"y": x.astype(np.int64)}
            return {"y": x[:, :, None] if (x == 8).any() else 2 * x + 1}

    async def scenario():
        to = batcher(Odd("odd"), quick_rows=quick_rows)
        calls = [submit(to, each) for each in (1.5, 9, 8, 2.5)]
        await asyncio.wait(calls, timeout=60)
        assert [calls[place].result()["y"].tolist() for place in (0, 3)] == [[[4]], [[6]]]
        said = "model 'odd' failed: output 'y' is declared FP64 [-1, -1]; the model returns"
        assert [str(calls[place].exception()) for place in (1, 2)] == [f"{said} INT64 [1, 1]", f"{said} FP64 [1, 1, 1]"]
        await to.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("quick_rows", [64, 0])
def test_answers_are_taken_before_the_next_run_may_write_over_them(quick_rows):
    class Reuses(Fake):
        def __init__(self):
            super().__init__()
            self.out = np.empty((1, 1))

        def run(self, arrays, parameters=NOTHING):
            return {"y": np.multiply(arrays["x"], 2, out=self.out)}

    async def scenario():
        to = batcher(Reuses(), max_rows=1, quick_rows=quick_rows)

        async def call(value):
            return (await submit(to, value))["y"].item()

        assert await asyncio.gather(*(call(value) for value in range(5))) == [0, 2, 4, 6, 8]
        await to.close()

    asyncio.run(scenario())


class Untold(Exception):
    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize("quick_rows", [64, 0])
@pytest.mark.parametrize("cause", [None, KeyError("x")])  # which was never raised itself
def test_a_failure_that_cannot_be_told_is_answered_all_the_same(quick_rows, cause, caplog):
    class Fails(Fake):
        def run(self, arrays, parameters=NOTHING):
            if (arrays["x"] < 0).any():
                raise Untold from cause
            return super().run(arrays)

    async def scenario():
        to = batcher(Fails("mute"), quick_rows=quick_rows)
        good, bad = submit(to, 1), submit(to, -1)
        await asyncio.wait([good, bad], timeout=60)
        assert str(bad.exception()) == "model 'mute' failed: Untold: and what it says cannot be told"
        assert [(await each)["y"].item() for each in (good, submit(to, 2))] == [3, 5]
        await to.close()

    asyncio.run(scenario())
    assert re.fullmatch(r"model 'mute' failed: Untold at .*test_batcher\.py:\d+", caplog.messages[-1])


def test_what_a_library_says_of_a_callers_values_is_not_logged(caplog):
    class Wrapped(Fake):
        def run(self, arrays, parameters=NOTHING):
            try:
                raise IndexError("index 471100815 is out of bounds")
            except IndexError as error:
                raise Internal(str(error)) from error

    async def scenario():
        with pytest.raises(Internal, match="model 'fake' failed: index 471100815 is out of bounds"):
            await submit(batcher(Wrapped()), 1)

    asyncio.run(scenario())
    (said,) = caplog.messages
    assert re.fullmatch(r"model 'fake' failed: IndexError at .*test_batcher\.py:\d+", said)


def test_a_call_of_no_rows_does_not_hold_up_the_event_loop():
    async def scenario():
        model = Watched("slow")
        to = batcher(model, quick_rows=0)
        assert (await submit(to))["y"].shape == (0, 1)
        await to.close()
        assert model.threads == ["model slow"]

    asyncio.run(scenario())


def test_a_full_batch_does_not_cut_short_what_others_wait_for():
    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=2, max_wait=LONG)
        waits = to.submit(rows(1), 1, "waits")
        await asyncio.gather(*(to.submit(rows(i, width=2), 1, "full") for i in range(2)))
        assert [batch.shape for batch in model.batches] == [(2, 2)]
        assert not waits.done()
        await asyncio.gather(waits, to.submit(rows(2), 1, "waits"))
        assert [batch.shape for batch in model.batches] == [(2, 2), (2, 1)]

    asyncio.run(scenario())


def test_a_cancelled_call_is_not_run():
    async def scenario():
        model = Fake()
        to = batcher(model)
        kept, left = submit(to, 1), submit(to, 2)
        left.cancel()
        await kept
        assert [batch.ravel().tolist() for batch in model.batches] == [[1]]

    asyncio.run(scenario())


def test_a_call_cancelled_while_it_runs_harms_nobody():
    async def scenario():
        model = Gated()
        to = batcher(model, quick_rows=0)
        running = submit(to, 0)
        await in_thread(model.started)
        left, kept = submit(to, 1), submit(to, 2)
        model.gate.release()
        await in_thread(model.started)
        left.cancel()
        model.gate.release()
        await running
        assert (await kept)["y"].tolist() == [[5]]
        assert [batch.ravel().tolist() for batch in model.batches] == [[0], [1, 2]]
        await to.close()

    asyncio.run(scenario())


def test_a_call_whose_deadline_passed_is_not_run():
    async def scenario():
        model = Fake()
        to = batcher(model)
        now = asyncio.get_running_loop().time()
        late, early = submit(to, 1, deadline=now - 1), submit(to, 2, deadline=now + LONG)
        with pytest.raises(DeadlineExceeded, match="while the call waited for its turn"):
            await late
        await early
        assert [batch.ravel().tolist() for batch in model.batches] == [[2]]

    asyncio.run(scenario())


def test_a_full_queue_refuses_at_once_and_then_recovers():
    async def scenario():
        to = batcher(Fake("busy"), max_queue=2)
        calls = [submit(to, 1), submit(to, 2)]
        with pytest.raises(ResourceExhausted, match="2 calls already wait for model 'busy'"):
            submit(to, 3)
        await asyncio.gather(*calls)
        await submit(to, 3)

    asyncio.run(scenario())


def test_calls_that_nobody_waits_for_leave_a_full_queue():
    async def scenario():
        model = Gated()
        to = batcher(model, max_queue=2, max_rows=1, quick_rows=0)
        running = submit(to, 0)
        await in_thread(model.started)
        for call in (submit(to, 1), submit(to, 2)):
            call.cancel()
        kept = submit(to, 3)
        model.gate.release(2)
        await asyncio.gather(running, kept)
        assert [batch.item() for batch in model.batches] == [0, 3]
        await to.close()

    asyncio.run(scenario())


def test_a_queue_swept_empty_is_no_trouble():
    async def scenario():
        model = Fake()
        to = batcher(model, max_queue=1)
        submit(to, 1).cancel()
        gone = submit(to, 2)
        gone.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await submit(to, 3)
        await to.close()
        assert [batch.item() for batch in model.batches] == [3]

    asyncio.run(scenario())


class Watched(Fake):
    """Notes in which threads it runs."""

    def __init__(self, name):
        super().__init__(name)
        self.threads = []

    def run(self, arrays, parameters=NOTHING):
        self.threads.append(threading.current_thread().name)
        return super().run(arrays)


def test_a_batch_of_few_rows_runs_in_the_event_loop_and_a_larger_one_in_a_thread():
    async def scenario():
        model = Watched("both")
        to = batcher(model, quick_rows=2)
        for calls in (2, 3, 1):
            await asyncio.gather(*(submit(to, i) for i in range(calls)))
        await to.close()
        assert [len(batch) for batch in model.batches] == [2, 3, 1]
        assert model.threads == ["MainThread", "model both", "MainThread"]

    asyncio.run(scenario())


def test_a_model_that_turns_out_slow_gets_a_thread_until_it_is_quick_again(monkeypatch):
    monkeypatch.setattr(worker, "SLOW", 0.0)
    monkeypatch.setattr(worker, "QUICK_RUNS", 1)
    model, slow = Watched("heavy"), int(worker.STRIKES)

    async def scenario():
        to = batcher(model)
        for i in range(slow + 1):
            await submit(to, i)
        monkeypatch.setattr(worker, "SLOW", 60.0)
        for i in range(slow + 1):
            await submit(to, i)
        await to.close()

    asyncio.run(scenario())
    assert model.threads == ["MainThread"] * slow + ["model heavy"] * (slow + 1) + ["MainThread"]


@pytest.mark.parametrize(
    ("seconds", "cpu_seconds", "out"),
    [
        pytest.param(0.002, 0.002, True, id="computes"),
        pytest.param(0.002, 0.0001, False, id="waits for the interpreter's lock"),
        pytest.param(0.030, 0.0001, True, id="waits for something else"),
        pytest.param(0.0005, 0.0005, False, id="quick"),
    ],
)
def test_a_model_is_slow_by_what_it_does_and_not_by_what_others_do(seconds: float, cpu_seconds: float, out: bool):
    strikes = worker.Strikes()
    for _ in range(int(worker.STRIKES) - 1):
        strikes.hear(seconds, cpu_seconds)
    assert not strikes.out
    strikes.hear(seconds, cpu_seconds)
    assert strikes.out is out


@pytest.mark.parametrize(("quick_runs", "out"), [(5, True), (worker.QUICK_RUNS, False)])
def test_a_model_that_is_slow_now_and_then_gets_a_thread_and_one_that_was_once_does_not(quick_runs: int, out: bool):
    strikes = worker.Strikes()
    for _ in range(4 * int(worker.STRIKES)):
        strikes.hear(0.002, 0.002)
        for _ in range(quick_runs):
            strikes.hear(0.0001, 0.0001)
    assert strikes.out is out


@dataclass
class Step:
    """A call that is submitted, and what becomes of it."""

    rows: int
    width: int
    fate: str  # "fine", "fails", "cancelled", "late"
    turns: int  # of the loop before the next step


STEPS = st.lists(
    st.builds(
        Step,
        rows=st.integers(0, 4),
        width=st.integers(1, 3),
        fate=st.sampled_from(["fine", "fine", "fine", "fails", "cancelled", "late"]),
        turns=st.integers(0, 2),
    ),
    max_size=25,
)


@given(STEPS, st.integers(1, 6), st.integers(0, 6), st.sampled_from([0.0, 1e-3]))
@settings(max_examples=80, deadline=None)
def test_each_caller_gets_its_own_rows_or_its_own_error(steps, max_rows, quick_rows, max_wait):
    """For any arrivals, sizes, shapes, failures and departures; and nothing is run that should not be."""

    async def scenario():
        model = Fake()
        to = batcher(model, max_rows=max_rows, quick_rows=quick_rows, max_wait=max_wait)
        loop = asyncio.get_running_loop()
        calls = []
        for number, step in enumerate(steps, 1):
            values = [number + part / 10 for part in range(step.rows)]
            if step.fate == "fails" and values:
                values[-1] = -number
            arrays = rows(*values, width=step.width)
            late = step.fate == "late"
            deadline = loop.time() + (-1 if late else LONG) if late or number % 2 else None
            calls.append((step, arrays["x"], to.submit(arrays, step.rows, step.width, deadline)))
            if step.fate == "cancelled":
                calls[-1][2].cancel()
            for _ in range(step.turns):
                await asyncio.sleep(0)
        await asyncio.gather(*(future for _, _, future in calls), return_exceptions=True)
        await to.close()

        for step, x, future in calls:
            if step.fate == "cancelled":
                assert future.cancelled()
            elif step.fate == "late":
                assert isinstance(future.exception(), DeadlineExceeded)
            elif step.fate == "fails" and step.rows:
                assert isinstance(future.exception(), Internal)
            else:
                np.testing.assert_array_equal(future.result()["y"], 2 * x + 1)
        ran = [abs(value) for batch in model.batches for value in batch[:, 0]]
        unwanted = {int(number) for number, (step, _, _) in enumerate(calls, 1) if step.fate in ("cancelled", "late")}
        assert not unwanted & {int(value) for value in ran}
        for batch in model.batches:
            numbers = np.abs(batch[:, 0]).astype(int)
            assert (np.diff(numbers) >= 0).all(), "calls of one key keep their order"
            assert len(batch) <= max_rows or len(set(numbers)) == 1

    asyncio.run(scenario())
