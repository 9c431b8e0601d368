from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from protos.errors import FailedPrecondition
from runtime.formats import load
from runtime.model import NOTHING
from runtime.prepare import prepare
from runtime.repository import Repository
from runtime.sample import FILE, Sample
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
    assert [len(batch) for batch in fake.batches if len(batch) > 1] == [2] * RUNS + [16] * RUNS + [16] + [*range(3, 16)]
    assert not any(batch.flags.writeable for batch in fake.batches)


def test_floats_are_from_zero_to_one_but_once_where_a_model_may_refuse_them():
    fake = Fake(shape=(-1, 3))
    warm_up(fake, max_rows=16)
    (refused,) = [batch for batch in fake.batches if batch.min() < 0]
    assert len(refused) == 16
    assert all(batch.min() >= -1 and batch.max() < 1 for batch in fake.batches)
    fake = Fake(shape=(-1, 3))
    warm_up(fake, max_rows=16, negative=False)
    assert all(batch.min() >= 0 and batch.max() < 1 for batch in fake.batches)


def test_a_sample_is_what_a_model_is_tried_with():
    fake = Fake(shape=(-1, -1))
    warm_up(fake, max_rows=5, free_size=7, sample={"x": np.array([[1.0, 2], [3, 4]])})
    assert {batch.shape for batch in fake.batches} == {(rows, 2) for rows in range(1, 6)}
    (first, *_) = [batch for batch in fake.batches if len(batch) == 5]
    assert first.tolist() == [[1, 2], [3, 4], [1, 2], [3, 4], [1, 2]]
    assert not first.flags.writeable


def test_a_row_that_is_as_long_as_the_longest_of_its_batch_depends_on_it():
    class Padded(Fake):
        def run(self, arrays, parameters=NOTHING):
            x = arrays["x"]
            return {"y": x[:, : int(x.max())]}

    with pytest.raises(FailedPrecondition, match="'y' of a row depends on the other rows of its batch"):
        warm_up(Padded(), max_rows=4, sample={"x": np.array([[1.0, 1, 1], [2, 2, 2]])})


def test_a_model_may_answer_floats_below_zero_otherwise_than_it_declares():
    class Odd(Fake):
        def run(self, arrays, parameters=NOTHING):
            x = arrays["x"]
            return {"y": x if (x >= 0).all() else np.float64(0)}

    assert warm_up(Odd(shape=(-1, 2)), max_rows=4)


def test_without_batches_a_sample_is_given_as_it_is():
    fake = Fake(shape=(-1, -1))
    warm_up(fake, max_rows=1, sample={"x": np.ones((3, 2))})
    assert {batch.shape for batch in fake.batches} == {(3, 2)}


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


class OfTheirSum(nn.Module):
    """Its rows differ in company of others of another sign."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 0) else x * 3


class OfTheirNumber(nn.Module):
    """Its rows differ in more company than a pair's."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.size(0) > 7 else x * 3


class Ragged(nn.Module):
    """Takes no length of zero."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.GRU(3, 2, batch_first=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y: Tensor = self.layer(packed)[1][0]
        return y


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
            "output 'y' has 1 rows for a batch of 2 rows; if the first dimension does not count rows",
        ),
        (Centred(), {"outputs": WIDE}, "output 'y' of a row depends on the other rows of its batch, or on chance"),
        (OfTheirSum(), {"outputs": WIDE}, "output 'y' of a row depends on the other rows of its batch, or on chance"),
        (
            OfTheirNumber(),
            {"outputs": WIDE},
            "output 'y' of a row depends on the other rows of its batch, or on chance",
        ),
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


SERIES = {
    "inputs": [tensor("x", "FP32", -1, -1, 3), tensor("lengths", "INT64", -1)],
    "outputs": [tensor("y", "FP32", -1, 2)],
}
GOOD = {"x": np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32), "lengths": np.array([3, 5])}


def prepared(root, sample=None, extra=None):
    folder = put(root, "m", Ragged(), **SERIES, parameters={"extra": extra or {}})
    if sample:
        with torch.no_grad():
            y = Ragged()(*map(torch.from_numpy, GOOD.values())).numpy()
        Sample(sample, {"y": y}).write(folder / "warm-up.npz")
    (found,) = Repository(root).find("m")
    assert found.settings, found.reason
    return prepare(load, found.settings, found.folder)


def test_a_model_that_takes_no_zeros_is_served_with_a_sample(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"its declared inputs, .*'lengths' INT64 \[1\]: .*[Ll]ength"):
        prepared(tmp_path)
    assert prepared(tmp_path, GOOD).times


def test_a_model_that_takes_no_zeros_is_explained_with_a_sample(tmp_path):
    pytest.importorskip("captum")
    assert prepared(tmp_path, GOOD, {"explain": True}).explainer


def test_rows_of_a_sample_that_are_refused_are_called_so(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"rows of its warm-up sample, 'x' FP32 \[1, 5, 3\], 'lengths' INT64 "):
        prepared(tmp_path, {**GOOD, "lengths": np.array([0, 5])})


def test_a_sample_of_other_shapes_or_datatypes_is_refused(tmp_path):
    with pytest.raises(
        FailedPrecondition, match=r"warm-up\.npz .*: its 'inputs/x' is FP64 \[2, 5, 3\], and 'x' is declared FP32"
    ):
        prepared(tmp_path, {**GOOD, "x": GOOD["x"].astype(np.float64)})
    with pytest.raises(FailedPrecondition, match=r"its 'inputs/lengths' is INT64 \[2, 1\], and 'lengths' is declared"):
        prepared(tmp_path, {**GOOD, "lengths": np.ones((2, 1), np.int64)})


class Greeting(Fake):
    """A greeting for each name."""

    def __init__(self, settings, _):
        super().__init__(settings.name)
        self.inputs, self.outputs = settings.inputs, settings.outputs

    def run(self, arrays, parameters=NOTHING):
        self.batches.append(arrays["x"])
        return {"y": np.array([b"Hello, " + name for name in arrays["x"]], np.object_)}


@pytest.mark.parametrize(
    ("names", "greetings"),
    [
        (np.array(["Zoë", "Al"]), np.array([b"Hello, Zo\xc3\xab", b"Hello, Al"])),
        (np.array([b"\xff", b"Al"]), np.array([b"Hello, \xff", b"Hello, Al"])),
    ],
)
def test_texts_and_bytes_of_a_sample_are_bytes(tmp_path, names, greetings):
    folder = put(tmp_path, "m", inputs=[tensor("x", "BYTES", -1)], outputs=[tensor("y", "BYTES", -1)])
    (found,) = Repository(tmp_path).find("m")
    assert found.settings, found.reason
    Sample({"x": names}, {"y": greetings}).write(folder / FILE)
    tried = {name for batch in prepare(Greeting, found.settings, folder).model.batches for name in batch}
    assert tried == {greeting.removeprefix(b"Hello, ") for greeting in greetings.tolist()}
    Sample({"x": names}, {"y": greetings[::-1]}).write(folder / FILE)
    with pytest.raises(FailedPrecondition, match="output 'y' is not what the warm-up sample says"):
        prepare(Greeting, found.settings, folder)
    Sample({"x": names}, {"y": np.ones(2)}).write(folder / FILE)
    with pytest.raises(FailedPrecondition, match=r"its 'outputs/y' is FP64 \[2\], and 'y' is declared BYTES"):
        prepare(Greeting, found.settings, folder)


def test_a_model_that_answers_nan_is_fine():
    class Odd(Fake):
        def run(self, arrays, parameters=NOTHING):
            return {"y": np.full_like(arrays["x"], np.nan)}

    warm_up(Odd(shape=(-1, 2)), max_rows=4)


def test_a_failure_that_cannot_be_told_is_told_by_its_kind():
    class Untold(Exception):
        def __str__(self):
            raise ValueError("no words")

    class Fails(Fake):
        def run(self, arrays, parameters=NOTHING):
            raise Untold

    with pytest.raises(FailedPrecondition, match=r": Untold: and what it says cannot be told$"):
        warm_up(Fails(shape=(-1, 2)), max_rows=4)
