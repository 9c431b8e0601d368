from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.messages import ModelInferResponse
from protos.tensors import add_outputs
from router.config import Range, Route
from router.config.reward import AccuracyScore, AnyScore, BrierScore, LogScore, PinballScore, PnlScore, Reward
from router.errors import BadReward
from router.scoring import prediction_of, scored

UNIT = Range()
WIDE = Range(low=-10.0, high=30.0)


@pytest.mark.parametrize(
    ("rule", "prediction", "truth", "reward"),
    [
        (AccuracyScore(), 3.0, 3.0, 1.0),
        (AccuracyScore(), 3.0, 2.0, 0.0),
        (AccuracyScore(threshold=0.5), 0.5, 1.0, 1.0),
        (AccuracyScore(threshold=0.5), 0.49, 1.0, 0.0),
        (AccuracyScore(threshold=0.5), -7.0, 0.0, 1.0),
        (BrierScore(), 0.75, 1.0, 1.0 - 0.0625),
        (BrierScore(), 0.75, 0.0, 1.0 - 0.5625),
        (BrierScore(), 1.0 + 1e-7, 0.0, 0.0),  # as float32 rounds
        (LogScore(least=0.01), 0.5, 1.0, 1.0 - math.log(0.5 / 0.99) / math.log(0.01 / 0.99)),
        (LogScore(least=0.01), 0.0, 1.0, 0.0),
        (LogScore(least=0.01), 1.0, 1.0, 1.0),
        (LogScore(least=0.01), 1.0, 0.0, 0.0),
        (PinballScore(quantile=0.9, worst=10.0), 4.0, 6.0, 1.0 - 0.18),
        (PinballScore(quantile=0.9, worst=10.0), 6.0, 4.0, 1.0 - 0.02),
        (PinballScore(quantile=0.9, worst=10.0), 0.0, 1e100, 0.0),
        (PinballScore(quantile=0.5, worst=1.0), 2.0, 2.0, 1.0),
        (PnlScore(), 2.0, 0.25, 0.5),
        (PnlScore(cost=0.125), -2.0, -0.25, 0.25),
        (PnlScore(cost=0.5), 0.0, 5.0, 0.0),
        (PnlScore(limit=1.0), 7.0, 0.5, 0.5),
        (PnlScore(), 5.0, 5.0, 1.0),  # no more than the range has
        (PnlScore(), 1e100, -1e100, 0.0),
    ],
)
def test_each_rule_is_its_formula(rule: AnyScore, prediction: float, truth: float, reward: float):
    assert scored(rule, prediction, truth, UNIT) == pytest.approx(reward, abs=1e-12)


def test_losses_go_from_the_high_end_down_to_the_low_one_and_a_position_earns_in_its_own_unit():
    assert scored(BrierScore(), 1.0, 1.0, WIDE) == 30.0
    assert scored(BrierScore(), 0.0, 1.0, WIDE) == -10.0
    assert scored(BrierScore(), 0.5, 1.0, WIDE) == 20.0
    assert scored(AccuracyScore(), 1.0, 2.0, WIDE) == -10.0
    assert scored(PnlScore(cost=1.0), 3.0, 4.0, WIDE) == 9.0
    assert scored(PnlScore(), -3.0, 40.0, WIDE) == -10.0


RULES: list[AnyScore] = [
    AccuracyScore(),
    BrierScore(),
    LogScore(),
    PinballScore(quantile=0.2, worst=3.0),
    PnlScore(cost=0.1),
]


@given(
    st.sampled_from(RULES),
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0]),
    st.tuples(st.floats(-1e100, 1e100), st.floats(-1e100, 1e100)).filter(lambda ends: ends[0] < ends[1]),
)
def test_a_reward_lies_in_its_range(rule: AnyScore, prediction: float, truth: float, ends: tuple[float, float]):
    range = Range(low=ends[0], high=ends[1])
    assert range.low <= scored(rule, prediction, truth, range) <= range.high


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_brier_and_log_are_proper_nobody_earns_more_than_with_the_true_probability(p: float, told: float, least: float):
    for rule in (BrierScore(), LogScore(least=1e-6 + 0.4 * least)):
        own = p if isinstance(rule, BrierScore) else min(max(p, rule.least), 1 - rule.least)
        expected = [own * scored(rule, q, 1.0, UNIT) + (1 - own) * scored(rule, q, 0.0, UNIT) for q in (own, told)]
        assert expected[0] >= expected[1] - 1e-9


@pytest.mark.parametrize("rule", [BrierScore(), LogScore()])
@pytest.mark.parametrize(("prediction", "truth"), [(0.5, 0.5), (0.5, 2.0), (1.1, 1.0), (-3.0, 0.0)])
def test_what_a_probability_cannot_be_judged_by_is_refused(rule: AnyScore, prediction: float, truth: float):
    with pytest.raises(BadReward, match="truth: ") as refused:
        scored(rule, prediction, truth, UNIT)
    assert str(prediction) not in refused.value.message


def body(**outputs: Any) -> bytes:
    response = ModelInferResponse(model_name="m")
    add_outputs(response, {name: np.asarray(values) for name, values in outputs.items()}, raw=True)
    return response.SerializeToString()


@pytest.mark.parametrize(
    ("rule", "reply", "prediction"),
    [
        (BrierScore(), body(p=[0.25]), 0.25),
        (BrierScore(), body(p=[[0.25]]), 0.25),
        (BrierScore(column=1), body(p=[[0.25, 0.75]]), 0.75),
        (BrierScore(column=1), body(p=[0.25, 0.75]), 0.75),
        (BrierScore(), body(p=np.float32(0.25)), 0.25),
        (AccuracyScore(), body(label=np.array([[3]], np.int64)), 3.0),
        (AccuracyScore(), body(label=[True]), 1.0),
        (BrierScore(output="p"), body(x=[1.0], p=[0.5]), 0.5),
        (BrierScore(), body(x=[1.0], p=[0.5]), None),  # which of the two?
        (BrierScore(output="q"), body(p=[0.5]), None),
        (BrierScore(column=1), body(p=[0.5]), None),
        (BrierScore(), body(p=[[0.5], [0.25]]), None),  # two rows
        (BrierScore(), body(p=np.zeros((1, 0))), None),
        (BrierScore(), body(p=[np.nan]), None),
        (BrierScore(), body(p=[np.inf]), None),
        (PnlScore(), body(p=[1e101]), None),
        (BrierScore(), body(p=np.array([b"0.5"], object)), None),
        (BrierScore(), body(), None),
        (BrierScore(), b"\xff", None),
    ],
)
def test_a_prediction_is_read_where_it_is_one_number(rule: AnyScore, reply: bytes, prediction: float | None):
    assert prediction_of(rule, reply) == prediction


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"score": {"kind": "guess"}}, "guess"),
        ({"score": {"kind": "brier", "column": -1}}, "column: must not be below 0"),
        ({"score": {"kind": "log_loss", "least": 0.5}}, "least: must be above 0 and below 0.5"),
        ({"score": {"kind": "pinball", "worst": 1}}, "quantile"),
        ({"score": {"kind": "pinball", "quantile": 1, "worst": 1}}, "quantile: must lie between 0 and 1"),
        ({"score": {"kind": "pinball", "quantile": 0.5, "worst": 0}}, "worst: must be above 0"),
        ({"score": {"kind": "pnl", "cost": -1}}, "cost: must not be below 0"),
        ({"score": {"kind": "pnl", "limit": 0}}, "limit: must be above 0"),
        ({"score": {"kind": "accuracy", "threshold": math.nan}}, "threshold: must be a finite number"),
        ({"window_seconds": 0}, "window_seconds: must be above 0"),
        ({"default": 0}, "default: belongs to window_seconds"),
        ({"window_seconds": 1, "default": 2}, "default: must lie between low and high"),
        ({"corrections": "maybe"}, "maybe"),
    ],
)
def test_what_cannot_be_served_is_refused(settings: dict[str, Any], sentence: str):
    with pytest.raises(msgspec.ValidationError, match=sentence):
        msgspec.convert(settings, Reward)


@pytest.mark.parametrize("name", ["reward", "truth"])
def test_a_metric_is_called_neither_reward_nor_truth(name: str):
    with pytest.raises(msgspec.ValidationError, match=f"metrics: '{name}' is no name for a metric"):
        msgspec.convert({"arms": {"a": {"model": "m"}}, "metrics": {name: {"unit": "GBP"}}}, Route)
