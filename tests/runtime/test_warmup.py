from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from protos.errors import FailedPrecondition
from runtime.formats import load
from runtime.model import NOTHING
from runtime.repository import Repository
from runtime.warmup import RUNS, warm_up
from tests.runtime.models import AsTuple, Centred, Fake, Mlp, Total, put, tensor


@pytest.fixture
def tried(tmp_path):
    """Loads a module with settings and warms it up."""

    def attempt(module, max_rows=8, **settings):
        put(tmp_path, "m", module, **settings)
        (found,) = Repository(tmp_path).find("m")
        assert found.settings, found.reason
        return warm_up(load(found.settings, found.folder), max_rows=max_rows)

    return attempt


def test_a_model_runs_with_one_row_two_the_most_and_all_between(tried):
    assert [rows for rows, seconds in tried(Mlp()).items() if 0 < seconds < 60] == [1, 2, 8]
    fake = Fake(shape=(-1, 3))
    warm_up(fake, max_rows=16)
    assert [len(batch) for batch in fake.batches if len(batch) > 1] == [2] * RUNS + [16] * RUNS + [*range(3, 16)]
    assert all(batch.min() >= 0 and batch.max() < 1 for batch in fake.batches)
    assert not any(batch.flags.writeable for batch in fake.batches)


def test_free_dimensions_are_tried_with_the_size_asked_for():
    fake = Fake(shape=(-1, -1))
    warm_up(fake, max_rows=1, free_size=7)
    assert {batch.shape for batch in fake.batches} == {(1, 7)}


def test_a_slow_model_is_not_tried_with_the_most_rows(monkeypatch):
    monkeypatch.setattr("runtime.warmup.SLOW", 0.0)
    fake = Fake(shape=(-1, 3))
    warm_up(fake, max_rows=16)
    assert {len(batch) for batch in fake.batches} == {1}


def test_what_lies_between_is_tried_for_so_long_only(monkeypatch):
    monkeypatch.setattr("runtime.warmup.BUDGET", -1.0)
    fake = Fake(shape=(-1, 3))
    warm_up(fake, max_rows=16)
    assert {len(batch) for batch in fake.batches} == {1, 2, 16}


Y, WIDE = [tensor("y", "FP32", -1, 1)], [tensor("y", "FP32", -1, 4)]


@pytest.mark.parametrize(
    ("module", "settings", "says"),
    [
        (
            Mlp(),
            {"outputs": [tensor("y", "FP64", -1, 1)]},
            "output 'y' is declared FP64 [-1, 1]; the model returns FP32",
        ),
        (
            Mlp(),
            {"outputs": [tensor("y", "FP32", -1, 2)]},
            "output 'y' is declared FP32 [-1, 2]; the model returns FP32",
        ),
        (
            Mlp(),
            {"outputs": [tensor("y", "FP32", -1)]},
            "output 'y' is declared FP32 [-1]; the model returns FP32 [1, 1]",
        ),
        (Mlp(), {"outputs": [*Y, tensor("z", "FP32", -1)]}, "forward returns 1 values; 2 outputs are declared"),
        (AsTuple(), {"outputs": WIDE}, "forward returns 2 values; 1 outputs are declared"),
        (
            Mlp(),
            {"inputs": [tensor("x", "FP32", -1, 5)]},
            "does not take its declared inputs, 'x' FP32 [1, 5]: RuntimeError: mat1 and mat2 shapes cannot be",
        ),
        (Mlp(), {"inputs": [tensor("x", "FP64", -1, 4)]}, "declared inputs, 'x' FP64 [1, 4]: RuntimeError: "),
        (Mlp(), {"inputs": [tensor("x", "FP32", -1, -1)]}, "parameters.extra.warm_up_size sets what free dimensions"),
        (
            Total(),
            {"outputs": WIDE},
            "output 'y' has 1 rows for a batch of 2; if the first dimension does not count rows",
        ),
        (Centred(), {"outputs": WIDE}, "output 'y' of a row depends on the other rows of its batch, or on chance"),
    ],
)
def test_a_model_that_is_not_what_it_is_declared_is_refused(tried, module, settings, says):
    with pytest.raises(FailedPrecondition) as refused:
        tried(module, **settings)
    assert says in refused.value.message


@pytest.mark.parametrize("module", [Total(), Centred()])
def test_without_batches_rows_may_depend_on_each_other(tried, module):
    tried(module, max_rows=1, outputs=[tensor("y", "FP32", -1, 4)])


def test_a_model_without_rows_is_run_as_declared(tried):
    class Dot(nn.Module):
        def forward(self, x):
            return (x * x).sum()

    tried(Dot(), inputs=[tensor("x", "FP32", 4)], outputs=[tensor("y", "FP32")])


def test_a_model_that_answers_nan_is_fine():
    class Odd(Fake):
        def run(self, arrays, parameters=NOTHING):
            return {"y": np.full_like(arrays["x"], np.nan)}

    warm_up(Odd(shape=(-1, 2)), max_rows=4)
