"""Models made of others: what they answer, and that what cannot fit is refused when it is loaded."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from protos.errors import FailedPrecondition, Unavailable
from protos.tensors import outputs_of
from runtime.catalogue import State
from runtime.formats import load
from runtime.model import NOTHING
from runtime.settings import FILE
from tests.runtime.models import Fake, Minus, Mlp, Times, put, tensor
from tests.runtime.test_engine import answer, keep, request, running, told

X = tensor("x", "FP64", -1, -1)
Y = tensor("y", "FP64", -1, -1)


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


@pytest.mark.parametrize("kind", [ensemble, chain])
@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_a_part_with_other_tensors_is_named_until_what_is_made_of_it_is_loaded_anew(tmp_path, kind, key):
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    if kind is ensemble:
        ensemble(tmp_path, members={"a": 1})
    else:
        chain(tmp_path, "desk", "a")

    class Renamed(Fake):
        def __init__(self, settings, _):
            super().__init__(settings.name)
            self.inputs = settings.inputs
            self.outputs = settings.outputs

        def run(self, arrays, parameters=NOTHING):
            return {self.outputs[0].name: arrays[self.inputs[0].name]}

    async def scenario():
        async with running(tmp_path, Renamed) as engine:
            await engine.load("desk")
            declared: dict[str, Any] = {"inputs": [X], "outputs": [Y], key: [tensor("z", "FP64", -1, -1)]}
            put(tmp_path, "a", **declared)
            await engine.load("a")
            with pytest.raises(FailedPrecondition, match=r"part 'a' takes '.' FP64 \[-1, -1\] and .* load it anew"):
                await engine.infer(request("desk"))
            await engine.load("desk")
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
        ({"members": {"a": 1, "wide": 1}}, r"'wide' returns 'y' as FP32 \[-1, 4\], 'a' as FP64"),
        ({"members": {"a": 1, "other": 1}}, "'other' returns 'z' as FP64 .*, 'a' does not"),
        ({"members": {"a": 1}, "combine": "stack", "stacker": "wide"}, "it takes 'v'; there is 'a'"),
    ],
)
def test_what_does_not_fit_together_is_refused_and_named(tmp_path, extra, says):
    keep(tmp_path, "a", 2)
    put(tmp_path, "a", inputs=[X], outputs=[Y])
    put(tmp_path, "wide", inputs=[tensor("v", "FP32", -1, 4)], outputs=[tensor("y", "FP32", -1, 4)])
    put(tmp_path, "other", inputs=[X], outputs=[tensor("z", "FP64", -1, -1)])
    ensemble(tmp_path, **extra)

    class Declared(Fake):
        def __init__(self, settings, _):
            super().__init__(settings.name)
            self.inputs = settings.inputs
            self.outputs = settings.outputs

        def run(self, arrays, parameters=NOTHING):
            (x,) = arrays.values()
            (spec,) = self.outputs
            return {spec.name: x}

    async def scenario():
        async with running(tmp_path, Declared) as engine:
            with pytest.raises(FailedPrecondition, match=says) as refused:
                await engine.load("desk")
            assert str(tmp_path / "desk" / FILE) in refused.value.message or "its part 'nowhere'" in says
            assert {entry.name: entry.state for entry in await told(engine)}["desk"] is State.UNAVAILABLE

    asyncio.run(scenario())
