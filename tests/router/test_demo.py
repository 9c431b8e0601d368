"""What the demo's routes may know, and what its comparison says."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from protos.messages import Estimate, Evaluation, ModelInferRequest
from protos.tensors import add_inputs
from router.call import Call
from router.config.context import Feature
from router.context.encoder import Encoder
from router.demo.comparison import Rival, in_words, off_policy, rivals
from router.demo.past import INDEX, KNOWN, context_of
from router.demo.replay import Replayed
from router.demo.routes import CONTEXTUAL, PLAIN, ROUTES, RULES
from runtime.finance.data import Market
from runtime.finance.evaluation import Difference
from runtime.finance.features import NAMES
from runtime.finance.task import Samples, samples
from tests.runtime.finance.markets import disturbed_after, made_up

MARKET = made_up(days=420)
T = 380


def asked(rows: Samples, row: int) -> Call:
    """What a desk sends for a row, through bytes."""
    request = ModelInferRequest(model_name=CONTEXTUAL)
    request.parameters[INDEX].string_param = str(rows.index[row])
    add_inputs(request, {"features": rows.features[row : row + 1]}, raw=True)
    body = request.SerializeToString()
    return Call(CONTEXTUAL, ModelInferRequest.FromString(body), body, "")


@pytest.fixture(scope="module")
def rows() -> Samples:
    return samples(MARKET)


@pytest.fixture(scope="module")
def encoder(rows: Samples) -> Encoder:
    return Encoder(msgspec.convert(context_of(rows), dict[str, Feature]))


def test_what_a_route_knows_are_columns_of_the_request(rows: Samples, encoder: Encoder):
    for row in range(len(rows)):
        today = [float(rows.features[row, -1, NAMES.index(column)]) for column in KNOWN.values()]
        assert encoder(asked(rows, row)).values == (*today, rows.index[row])


def test_what_a_route_knows_about_a_day_does_not_change_with_what_comes_after_it(rows: Samples, encoder: Encoder):
    later = Market(disturbed_after(MARKET.sp500, T), disturbed_after(MARKET.nasdaq, T))
    other = samples(later)
    both = np.flatnonzero((rows.day <= MARKET.sp500.day[T]) & np.isin(rows.day, other.day))
    assert len(both) > 100
    for row in both.tolist():
        (same,) = np.flatnonzero((other.day == rows.day[row]) & (other.index == rows.index[row])).tolist()
        assert asked(rows, row).body == asked(other, same).body
        assert encoder(asked(rows, row)) == encoder(asked(other, same))
    outcome = rows.next_return[both[-1]], other.next_return[np.flatnonzero(other.day == rows.day[both[-1]])[-1]]
    assert outcome[0] != outcome[1]  # while what it was asked about did change


def test_constants_are_those_of_the_days_that_are_given(rows: Samples):
    early = rows.where(rows.day < rows.day[len(rows) // 2])
    month = context_of(early)["month"]
    column = early.features[:, -1, NAMES.index("range_22")]
    assert (month["mean"], month["scale"]) == pytest.approx((column.mean(), column.std()), abs=1e-4)
    assert month != context_of(rows)["month"]


# -- the comparison

DAYS = 200


def rows_of(label: np.ndarray) -> Samples:
    n = len(label)
    return Samples(
        day=np.repeat(np.datetime64("2012-01-01") + np.arange(n // 2), 2),
        index=np.tile(["sp500", "nasdaq"], n // 2),
        features=np.zeros((n, 1, 1), np.float32),
        turbulent=np.zeros(n, np.bool_),
        label=label,
        next_return=np.zeros(n),
    )


class Played:
    """The contextual route is always right, the plain one on every other day, the rules never."""

    def __init__(self) -> None:
        label = np.random.default_rng(0).random(2 * DAYS) < 0.5
        every = np.ones(2 * DAYS, np.bool_)
        right = {CONTEXTUAL: every, PLAIN: np.repeat(np.arange(DAYS) % 2 == 0, 2), RULES: ~every}
        self.samples = rows_of(label)
        self.done = {route: Replayed.nothing(len(label)) for route in ROUTES}
        for route, done in self.done.items():
            done.probability[:] = np.where(right[route] == label, 0.9, 0.1)
        self.arms = {
            "good": np.where(label, 0.9, 0.1).astype(np.float32),
            "bad": np.where(label, 0.1, 0.9).astype(np.float32),
        }


@pytest.fixture
def played() -> Played:
    return Played()


def test_the_contextual_route_is_compared_with_both_others_and_with_two_arms(played: Played):
    _, own, others = rivals(played.samples, played.done, played.arms, "bad")
    assert own.mean() == 1.0
    assert {rival.name: rival.difference.mean for rival in others} == {
        "the bandit": 0.5,
        "the rules": 1.0,
        "good, best in hindsight": 0.0,
        "bad, validation's pick": 1.0,
    }


def test_rows_that_one_route_did_not_answer_count_for_none(played: Played):
    played.done[RULES].probability[:20] = np.nan
    seen, own, others = rivals(played.samples, played.done, played.arms, "bad")
    assert len(seen) == len(own) == 2 * DAYS - 20
    assert {len(rival.right) for rival in others} == {2 * DAYS - 20}


def test_a_difference_is_called_significant_only_where_it_is(played: Played):
    _, _, (plain, _, good, _) = rivals(played.samples, played.done, played.arms, "bad")
    assert "better, significantly" in in_words(plain, looks=4)
    assert in_words(good, looks=4) == (
        "Against good, best in hindsight: 0 fewer to 0 fewer right answers in 1000. "
        "NOT significant: chance alone could do this."
    )
    faint = Rival("x", plain.right, Difference(-0.01, 0.0045, 0.026))
    assert "NOT significant" in in_words(faint, looks=4)
    assert in_words(faint, looks=1) == (
        "Against x: 19 fewer to 1 fewer right answers in 1000. Contextual routing was worse, significantly."
    )


def test_the_log_is_held_against_what_was_earned_on_the_same_days():
    earned = np.repeat([0.0, 1.0], 50)
    told = Evaluation(route=PLAIN, answerable=True, learnt_from=50, judged_on=50)
    told.value.CopyFrom(Estimate(value=0.9, low=0.8, high=1.0))
    told.estimators.add(name="dr", value=0.9, error=0.02)
    assert "it earned 1.0000 on those days, inside the interval" in off_policy(told, earned)
    told.value.high = 0.95
    assert "OUTSIDE the interval" in off_policy(told, earned)
    refused = Evaluation(route=PLAIN, why="Too little overlap.")
    assert off_policy(refused, earned).endswith("it cannot tell. Too little overlap.")
