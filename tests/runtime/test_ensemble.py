"""Models made of others: what they answer, and that what cannot fit is refused when it is loaded."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from protos.errors import FailedPrecondition, Internal, InvalidArgument, ResourceExhausted, Unavailable
from protos.tensors import DATATYPES, outputs_of
from runtime.catalogue import Entry, State
from runtime.formats import load
from runtime.model import NOTHING
from runtime.options import EnsembleOptions
from runtime.settings import FILE
from tests.runtime.models import Fake, Minus, Mlp, Times, put, tensor
from tests.runtime.test_engine import Loader, answer, keep, request, running, told

X = tensor("x", "FP64", -1, -1)
Y = tensor("y", "FP64", -1, -1)
Z = tensor("z", "FP64", -1, -1)


class Declared(Fake):
    """Its first input, times the parameter "factor" if it is called "reads", as what its settings declare."""

    def __init__(self, settings, _=None):
        super().__init__(settings.name)
        self.reads_parameters = settings.name == "reads"
        self.inputs = settings.inputs
        self.outputs = settings.outputs

    def run(self, arrays, parameters=NOTHING):
        x, *_ = arrays.values()
        self.batches.append(x)
        return {self.outputs[0].name: (x * float(parameters.get("factor", 1))).astype(x.dtype)}


class Class(Fake):
    """The class that its file names, for every row."""

    def __init__(self, settings, folder):
        super().__init__(settings.name)
        self.inputs = settings.inputs
        self.outputs = settings.outputs
        self.chosen = int((folder / "factor").read_text())

    def run(self, arrays, parameters=NOTHING):
        return {"y": np.full(len(arrays["x"]), self.chosen)}


def made(root, name, implementation, **extra):
    put(root, name, implementation=implementation, inputs=None, outputs=None, parameters={"extra": extra})


def ensemble(root, name="desk", **extra):
    made(root, name, "runtime.Ensemble", **extra)


def chain(root, name="desk", *steps):
    made(root, name, "runtime.Chain", steps=list(steps))


def ensemble_of(root, member):
    ensemble(root, members={member: 1})


def chain_of(root, step):
    chain(root, "desk", step)


def test_a_mean_is_weighted(tmp_path):
    keep(tmp_path, "a", 2)
    keep(tmp_path, "b", 6)
    ensemble(tmp_path, members={"a": 3, "b": 1})

    async def scenario():
        async with running(tmp_path) as engine:
            assert await engine.load_all() == []
            assert await answer(engine, "desk") == 3
            metadata = engine.metadata("desk", "")
            assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("x", "FP64", [-1, -1])]
            assert metadata.platform == "croupier_ensemble"

    asyncio.run(scenario())


def test_a_mean_of_bf16_is_bf16(tmp_path):
    for name in ("a", "b"):
        put(tmp_path, name, inputs=[tensor("x", "BF16", -1, 1)], outputs=[tensor("y", "BF16", -1, 1)])
    ensemble(tmp_path, members={"a": 3, "b": 1})

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            assert await engine.load_all() == []
            x = np.array([[1.5]], DATATYPES["BF16"])
            y = outputs_of(await engine.infer(request("desk", x=x)))["y"]
            assert (y.dtype, y.tolist()) == (x.dtype, [[1.5]])

    asyncio.run(scenario())


def test_loading_an_ensemble_loads_what_it_is_made_of(tmp_path):
    keep(tmp_path, "a", 2)
    keep(tmp_path, "b", 4)
    ensemble(tmp_path, members={"a": 1, "b": 1})

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("desk")
            assert await answer(engine, "desk") == 3
            await engine.unload("b")
            with pytest.raises(Unavailable, match="'b', which it is made of, is not loaded"):
                await answer(engine, "desk")
            await engine.load("desk")
            assert await answer(engine, "desk") == 3

    asyncio.run(scenario())


def test_a_reloaded_member_answers_in_the_ensemble(tmp_path):
    keep(tmp_path, "a", 2)
    ensemble(tmp_path, members={"a": 1})

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("desk")
            keep(tmp_path, "a", 20)
            await engine.load("a")
            assert await answer(engine, "desk") == 20

    asyncio.run(scenario())


@pytest.mark.parametrize("gone", ["a", "b"])
def test_what_is_made_of_a_model_that_is_gone_is_not_ready_and_says_why(tmp_path, gone):
    keep(tmp_path, "a", 2)
    keep(tmp_path, "b", 4)
    chain(tmp_path, "inner", "a", "b")
    ensemble(tmp_path, "outer", members={"inner": 1})
    ready = [Entry(name, "", State.READY) for name in ("a", "b", "inner", "outer")]

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("outer")
            assert await told(engine) == ready
            assert engine.is_ready("outer", "")
            await engine.unload(gone)
            entries = {entry.name: entry for entry in await told(engine)}
            for name in ("inner", "outer"):
                assert not engine.is_ready(name, "")
                assert entries[name].state is State.UNAVAILABLE
                assert entries[name].reason.startswith(f"'{gone}', which it is made of, is not loaded")
                with pytest.raises(Unavailable, match=entries[name].reason):
                    engine.admit(name, "")
            await engine.load(gone)
            assert await told(engine) == ready
            assert engine.is_ready("outer", "")

    asyncio.run(scenario())


def test_a_chain_refuses_a_call_that_a_later_step_would_refuse(tmp_path):
    keep(tmp_path, "a", 2)
    keep(tmp_path, "b", 4)
    put(tmp_path, "b", parameters={"extra": {"max_queue": 1}})
    chain(tmp_path, "desk", "a", "b")

    async def scenario():
        async with running(tmp_path) as engine:
            await engine.load("desk")
            waiting = asyncio.create_task(engine.infer(request("b")))
            await asyncio.sleep(0)
            with pytest.raises(ResourceExhausted, match="1 calls already wait for model 'b'"):
                engine.admit("desk", "")
            assert engine.is_ready("desk", "")
            await waiting
            assert await answer(engine, "desk") == 8

    asyncio.run(scenario())


def test_a_part_that_is_loaded_meanwhile_is_not_loaded_again(tmp_path):
    """Or it would lose the settings that it is loaded with."""
    keep(tmp_path, "a", 2)
    ensemble(tmp_path, members={"a": 1})
    loader = Loader()
    loader.gate.clear()

    async def scenario():
        async with running(tmp_path, loader) as engine:
            loading = [asyncio.create_task(engine.load("a", lambda old: replace(old, max_batch_size=7)))]
            await asyncio.to_thread(loader.entered.acquire)
            loading.append(asyncio.create_task(engine.load("desk")))
            for _ in range(5):
                await told(engine)  # by then what is made of it waits for it
            loader.gate.set()
            await asyncio.gather(*loading)
            assert len(loader.models) == 1
            assert engine.served("a", "").settings.max_batch_size == 7

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [ensemble_of, chain_of])
@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_part_with_other_tensors_is_named_until_what_is_made_of_it_is_loaded_anew(tmp_path, kind, key):
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    kind(tmp_path, "a")

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            await engine.load("desk")
            declared: dict[str, Any] = {"inputs": [X], "outputs": [Y], key: [Z]}
            put(tmp_path, "a", **declared)
            await engine.load("a")
            with pytest.raises(FailedPrecondition, match=r"part 'a' takes '.' FP64 \[-1, -1\] and .* load it anew"):
                await engine.infer(request("desk"))
            assert not engine.is_ready("desk", "")
            await engine.load("desk")
            assert engine.is_ready("desk", "")
            x = {"z" if key == "inputs" else "x": np.ones((1, 1))}
            named = "z" if key == "outputs" else "y"
            assert outputs_of(await engine.infer(request("desk", **x)))[named].tolist() == [[1]]

    asyncio.run(scenario())


def test_a_vote_goes_by_weight_and_a_tie_to_whoever_is_named_first(tmp_path):
    for name, chosen in {"a": 7, "b": 8, "c": 8}.items():
        folder = put(tmp_path, name, inputs=[tensor("x", "FP64", -1, 2)], outputs=[tensor("y", "INT64", -1)])
        (folder / "factor").write_text(str(chosen))
    ensemble(tmp_path, "majority", combine="vote", members={"a": 1, "b": 1, "c": 1})
    ensemble(tmp_path, "elder", combine="vote", members={"a": 3, "b": 1, "c": 1})
    ensemble(tmp_path, "tied", combine="vote", members={"a": 1, "b": 1})

    async def scenario():
        async with running(tmp_path, Class) as engine:
            assert await engine.load_all() == []
            answers = [
                outputs_of(await engine.infer(request(name)))["y"].tolist() for name in ("majority", "elder", "tied")
            ]
            assert answers == [[8], [7], [7]]

    asyncio.run(scenario())


def test_a_stacker_takes_the_members_answers_by_their_names(tmp_path):
    put(tmp_path, "a", Times(5), outputs=[tensor("y", "FP32", -1, 4)])
    put(tmp_path, "b", Times(2), outputs=[tensor("y", "FP32", -1, 4)])
    taken = [tensor("a", "FP32", -1, 4), tensor("b", "FP32", -1, 4)]
    put(tmp_path, "minus", Minus(), inputs=taken, outputs=[tensor("y", "FP32", -1, 4)])
    ensemble(tmp_path, combine="stack", members={"a": 1, "b": 1}, stacker="minus")

    async def scenario():
        async with running(tmp_path, load) as engine:
            assert await engine.load_all() == []
            x = np.ones((2, 4), np.float32)
            assert outputs_of(await engine.infer(request("desk", x=x)))["y"].tolist() == [[3] * 4] * 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("named", "made_of"),
    [
        ({"a": X, "reads": tensor("a", "FP64", -1, -1)}, {"members": {"a": 1}, "combine": "stack", "stacker": "reads"}),
        ({"a": X, "reads": X}, {"members": {"a": 1, "reads": 1}}),
    ],
)
def test_each_part_reads_the_parameters_of_the_request(tmp_path, named, made_of):
    for name, taken in named.items():
        put(tmp_path, name, inputs=[taken], outputs=[Y])
    ensemble(tmp_path, **made_of)

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            await engine.load("desk")
            asked = request("desk", x=np.ones((1, 1)))
            asked.parameters["factor"].string_param = "9"
            expected = 9 if "stacker" in made_of else 5
            assert outputs_of(await engine.infer(asked))["y"].tolist() == [[expected]]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("x", "z", "fault", "says"),
    [
        ((2, 1), (3, 1), InvalidArgument, "^the inputs differ in their number of rows: 'x' 2, 'z' 3$"),
        ((2, 1), (2, 3), Internal, r"output 'y' differs in shape between the members: 'a' \[2, 1\], 'b' \[2, 3\]"),
    ],
)
def test_answers_that_cannot_be_combined_are_the_callers_fault_where_the_rows_differ(tmp_path, x, z, fault, says):
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    put(tmp_path, "b", inputs=[Z], outputs=[Y])
    ensemble(tmp_path, members={"a": 1, "b": 1})

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            await engine.load("desk")
            with pytest.raises(fault, match=says):
                await engine.infer(request("desk", x=np.ones(x), z=np.ones(z)))

    asyncio.run(scenario())


@pytest.mark.parametrize("first", ["a", "inner"])
def test_a_request_that_one_member_refuses_is_run_by_none(tmp_path, first):
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    put(tmp_path, "b", inputs=[X, Z], outputs=[Y])
    chain(tmp_path, "inner", "a")
    ensemble(tmp_path, members={first: 1, "b": 1})
    models = []

    def load_one(settings, _):
        models.append(Declared(settings))
        return models[-1]

    async def scenario():
        async with running(tmp_path, load_one) as engine:
            await engine.load("desk")
            for model in models:
                model.batches.clear()
            with pytest.raises(InvalidArgument, match="the inputs differ in their number of rows: 'x' 2, 'z' 3"):
                await engine.infer(request("desk", x=np.ones((2, 1)), z=np.ones((3, 1))))
            gc.collect()  # which is when a coroutine that nobody awaited is told of
        assert [model.batches for model in models] == [[], []]

    asyncio.run(scenario())


GIVEN = r"part 'five': input '.' is declared FP64 \[-1, 5\]; it is given FP64 \[1, 3\]"


@pytest.mark.parametrize(
    ("taken", "made_of"),
    [
        ("y", {"steps": ["a", "five"]}),
        ("x", {"steps": ["a", "five"]}),
        ("a", {"members": {"a": 1}, "combine": "stack", "stacker": "five"}),
    ],
)
def test_a_part_is_given_only_what_it_declares(tmp_path, taken, made_of):
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    put(tmp_path, "five", inputs=[tensor(taken, "FP64", -1, 5)], outputs=[tensor("y", "FP64", -1, 5)])
    made(tmp_path, "desk", "runtime.Chain" if "steps" in made_of else "runtime.Ensemble", **made_of)

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            await engine.load("desk")
            with pytest.raises(InvalidArgument, match=GIVEN):
                await engine.infer(request("desk", x=np.ones((1, 3))))
            assert outputs_of(await engine.infer(request("desk", x=np.ones((1, 5)))))["y"].shape == (1, 5)

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", [ensemble_of, chain_of])
def test_a_part_that_takes_less_since_it_was_loaded_anew_is_given_that(tmp_path, kind):
    put(tmp_path, "five", inputs=[X], outputs=[Y])
    kind(tmp_path, "five")

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            await engine.load("desk")
            put(tmp_path, "five", inputs=[tensor("x", "FP64", -1, 5)], outputs=[Y])
            await engine.load("five")
            with pytest.raises(InvalidArgument, match=GIVEN):
                await engine.infer(request("desk", x=np.ones((1, 3))))

    asyncio.run(scenario())


def test_a_stacker_is_given_only_the_answers_that_it_takes(tmp_path):
    for name in ("a", "b"):
        put(tmp_path, name, inputs=[X], outputs=[Y])
    put(tmp_path, "top", inputs=[tensor("b", "FP64", -1, -1)], outputs=[Y])
    ensemble(tmp_path, members={"a": 1, "b": 1}, combine="stack", stacker="top")

    class Exact(Declared):
        def run(self, arrays, parameters=NOTHING):
            assert [*arrays] == [spec.name for spec in self.inputs]
            return super().run(arrays, parameters)

    async def scenario():
        async with running(tmp_path, Exact) as engine:
            await engine.load("desk")
            assert outputs_of(await engine.infer(request("desk")))["y"].tolist() == [[1, 1]]

    asyncio.run(scenario())


def test_a_chain_hands_tensors_on(tmp_path):
    put(tmp_path, "scale", Times(2), outputs=[tensor("scaled", "FP32", -1, 4)])
    put(tmp_path, "predict", Mlp())
    put(tmp_path, "sign", Times(-1), inputs=[tensor("x", "FP32", -1, 1)])
    chain(tmp_path, "desk", "scale", "predict", "sign")

    async def scenario():
        async with running(tmp_path, load) as engine:
            assert await engine.load_all() == []
            x = np.ones((3, 4), np.float32)
            alone = outputs_of(await engine.infer(request("predict", x=2 * x)))["y"]
            np.testing.assert_allclose(outputs_of(await engine.infer(request("desk", x=x)))["y"], -alone)

    asyncio.run(scenario())


def test_a_later_step_takes_from_the_request_what_no_step_returns(tmp_path):
    put(tmp_path, "scale", Times(2), outputs=[tensor("a", "FP32", -1, 4)])
    two = [tensor("a", "FP32", -1, 4), tensor("b", "FP32", -1, 4)]
    put(tmp_path, "minus", Minus(), inputs=two, outputs=[tensor("y", "FP32", -1, 4)])
    chain(tmp_path, "desk", "scale", "minus")

    async def scenario():
        async with running(tmp_path, load) as engine:
            await engine.load("desk")
            assert [tensor.name for tensor in engine.metadata("desk", "").inputs] == ["x", "b"]
            one = np.ones((1, 4), np.float32)
            assert outputs_of(await engine.infer(request("desk", x=one, b=3 * one)))["y"].tolist() == [[-1] * 4]

    asyncio.run(scenario())


def test_ensembles_can_be_made_of_ensembles_and_not_of_themselves(tmp_path):
    keep(tmp_path, "a", 2)
    ensemble(tmp_path, "inner", members={"a": 1})
    chain(tmp_path, "outer", "inner", "a")
    ensemble(tmp_path, "one", members={"other": 1})
    ensemble(tmp_path, "other", members={"one": 1})

    async def scenario():
        async with running(tmp_path) as engine:
            failed = await asyncio.wait_for(engine.load_all(), 60)
            assert [entry.name for entry in failed] == ["one", "other"]
            assert "it would be made of itself: 'one' -> 'other' -> 'one'" in failed[0].reason
            assert await answer(engine, "outer") == 4

    asyncio.run(scenario())


def of(member):
    """An override: made of that."""
    return lambda settings: replace(settings, options=EnsembleOptions(members={member: 1}))


@pytest.mark.parametrize(
    ("loads", "refused"),
    [
        ([("one", of("one"))], 1),
        ([("one", of("other")), ("other", of("one"))], 1),
        ([("one", of("other")), ("one", of("a"))], 0),  # a load takes the place of the one before
    ],
)
@pytest.mark.parametrize("at_once", [False, True])
def test_overrides_make_no_model_of_itself_either(tmp_path, loads, refused, at_once):
    keep(tmp_path, "a", 2)
    ensemble(tmp_path, "one", members={"a": 1})
    ensemble(tmp_path, "other", members={"a": 1})
    failed: list[Any] = []

    async def scenario():
        async with running(tmp_path) as engine:
            for together in [loads] if at_once else [[each] for each in loads]:
                calls = (engine.load(*each) for each in together)
                failed.extend(filter(None, await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10)))
            assert len(failed) == refused
            assert all("it would be made of itself: " in error.message for error in failed)
            for name, _ in loads:
                await asyncio.wait_for(engine.load(name), 10)
                assert await answer(engine, name) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"members": {}}, "members"),
        ({"members": {"a": 0}}, "members"),
        ({"members": {"a": 1}, "combine": "median"}, "combine"),
        ({"members": {"a": 1}, "combine": "stack"}, "stacker"),
        ({"members": {"a": 1}, "weights": [1]}, "unknown field `weights`"),
        ({"members": {"a": 1, "nowhere": 1}}, "its part 'nowhere': the repository has no model 'nowhere'"),
        ({"members": {"a": 1}, "combine": "vote"}, "'vote' is for integers and booleans; output 'y' is FP64"),
        ({"members": {"half": 1}, "combine": "vote"}, "'vote' is for integers and booleans; output 'y' is BF16"),
        ({"members": {"whole": 1}}, "'mean' is for floating-point outputs; output 'y' is INT64"),
        ({"members": {"a": 1, "wide": 1}}, r"'wide' returns 'y' as FP32 \[-1, 4\], 'a' as FP64"),
        ({"members": {"a": 1, "other": 1}}, "'other' returns 'z' as FP64 .*, 'a' does not"),
        ({"members": {"a": 1}, "combine": "stack", "stacker": "wide"}, "it takes 'v'; there is 'a'"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_named(tmp_path, extra, says):
    keep(tmp_path, "a", 2)
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    put(tmp_path, "wide", inputs=[tensor("v", "FP32", -1, 4)], outputs=[tensor("y", "FP32", -1, 4)])
    put(tmp_path, "other", inputs=[X], outputs=[Z])
    for name, datatype in (("half", "BF16"), ("whole", "INT64")):
        put(tmp_path, name, inputs=[tensor("x", datatype, -1, 2)], outputs=[tensor("y", datatype, -1, 2)])
    ensemble(tmp_path, **extra)

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            with pytest.raises(FailedPrecondition, match=says) as refused:
                await engine.load("desk")
            assert str(tmp_path / "desk" / FILE) in refused.value.message or "its part 'nowhere'" in says
            assert {entry.name: entry.state for entry in await told(engine)}["desk"] is State.UNAVAILABLE

    asyncio.run(scenario())
