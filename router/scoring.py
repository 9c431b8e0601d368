"""Rewards worked out from what an arm predicted and what really happened.

A rule has a loss, from 0 to a worst one, and the reward falls from the range's high end to its low one; or it gives the
reward in the reward's own unit, which is then kept within the range. Higher is better in all of them.
"""

from __future__ import annotations

import math

from protos.errors import CallError
from protos.messages import ModelInferResponse, parse
from protos.tensors import outputs_of
from router.config.reward import AccuracyScore, AnyScore, BrierScore, LogScore, PinballScore, Range
from router.config.struct import GREATEST
from router.errors import BadReward

_ROUNDING = 1e-6


def prediction_of(rule: AnyScore, body: bytes) -> float | None:
    """The number in a serialized ModelInferResponse that a rule scores; None where there is no such number.

    The output holds one row: its shape is [1, columns] or [columns]. A request of many rows is one decision with many
    predictions, and no rule scores those.
    """
    try:
        outputs = outputs_of(parse(ModelInferResponse, body))
    except CallError:  # an answer that the caller may still make sense of
        return None
    if not rule.output and len(outputs) != 1:
        return None
    values = outputs.get(rule.output) if rule.output else next(iter(outputs.values()))
    if values is None or values.dtype.hasobject or (values.ndim > 1 and len(values) != 1):
        return None
    row = values.reshape(-1)
    if rule.column >= len(row):
        return None
    prediction = float(row[rule.column])
    return prediction if abs(prediction) <= GREATEST else None


def scored(rule: AnyScore, prediction: float, truth: float, range: Range) -> float:
    """The reward of a prediction, within `range`. Raises BadReward where the rule cannot judge.

    With ŷ the prediction and y the truth:

    accuracy: 1 where ŷ = y, else 0; with a threshold, ŷ is first 1 where it reaches it, else 0.
    brier: the loss is (ŷ - y)², with ŷ the probability of y = 1. G. W. Brier, "Verification of forecasts expressed in
        terms of probability", Monthly Weather Review 78 (1950).
    log_loss: the loss is -ln of the probability that ŷ gave to y, less that of the best, with ŷ kept from `least` to
        1 - least, so that there is a worst one. I. J. Good, "Rational decisions", Journal of the Royal Statistical
        Society B 14 (1952).
    pinball: the loss is q (y - ŷ) where y is above ŷ, else (1 - q)(ŷ - y), with ŷ a forecast of the quantile q; one of
        `worst` or more earns nothing. R. Koenker, G. Bassett, "Regression quantiles", Econometrica 46 (1978).
    pnl: the reward is ŷ y - cost |ŷ|, with ŷ a position, kept within ± limit, and y what one unit of it paid; it was
        bought and will be sold, and `cost` is that of both. In the unit of the reward.
    """
    if isinstance(rule, AccuracyScore):
        label = prediction if rule.threshold is None else float(prediction >= rule.threshold)
        return range.high if label == truth else range.low
    if isinstance(rule, BrierScore):
        return _of_loss((_probability(prediction) - _event(truth)) ** 2, 1.0, range)
    if isinstance(rule, LogScore):
        p = min(max(_probability(prediction), rule.least), 1.0 - rule.least)
        loss, best = -math.log(p if _event(truth) else 1.0 - p), -math.log1p(-rule.least)
        return _of_loss(loss - best, -math.log(rule.least) - best, range)
    if isinstance(rule, PinballScore):
        missed = truth - prediction
        return _of_loss(max(rule.quantile * missed, (rule.quantile - 1.0) * missed), rule.worst, range)
    position = prediction if rule.limit is None else min(max(prediction, -rule.limit), rule.limit)
    return _within(position * truth - rule.cost * abs(position), range)


def _of_loss(loss: float, worst: float, range: Range) -> float:
    """From the high end of the range, for no loss, down to its low end."""
    share = min(loss / worst, 1.0)
    return _within(range.high * (1.0 - share) + range.low * share, range)  # exact at both ends


def _within(value: float, range: Range) -> float:
    return min(max(value, range.low), range.high)


def _event(truth: float) -> float:
    if truth not in {0.0, 1.0}:
        raise BadReward("truth: must be 0 or 1, for the reward is worked out from a probability")
    return truth


def _probability(prediction: float) -> float:
    if not -_ROUNDING <= prediction <= 1.0 + _ROUNDING:
        raise BadReward("truth: nothing follows from it, for the prediction on record is no probability")
    return min(max(prediction, 0.0), 1.0)
