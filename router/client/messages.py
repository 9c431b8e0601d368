"""What clients say and hear in their own words, and the messages that carry it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from protos.infer_json import choice_of
from protos.messages import (
    DecideRequest,
    FeedbackRequest,
    ModelInferRequest,
    ModelInferResponse,
    PutFeaturesRequest,
)
from protos.tensors import add_inputs, outputs_of
from router.wire import ARM, DECISION, PROPENSITY, UNIT

Parameter: TypeAlias = bool | int | float | str
"""Of a request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answered: the outputs of the arm it chose, and the decision to report a reward for."""

    outputs: dict[str, NDArray[Any]]
    decision: str
    arm: str
    propensity: float


@dataclass(frozen=True, slots=True)
class Earned:
    """What a decision earned, or part of it: a reward in the route's range, declared metrics, what really happened."""

    decision: str
    reward: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    truth: float | None = None

    def message(self) -> FeedbackRequest:
        """The feedback as it is sent."""
        return FeedbackRequest(
            decision_id=self.decision, reward=self.reward, metrics=dict(self.metrics), truth=self.truth
        )


def metadata_of(key: str) -> tuple[tuple[str, str], ...]:
    """What says who asks; nothing without a key."""
    return (("authorization", f"Bearer {key}"),) if key else ()


def decide_request(route: str, unit: str, context: Mapping[str, float | str]) -> DecideRequest:
    """A request for a decision alone, with features by name."""
    texts = {name: value for name, value in context.items() if isinstance(value, str)}
    numbers = {name: value for name, value in context.items() if not isinstance(value, str)}
    return DecideRequest(route=route, unit=unit, numbers=numbers, texts=texts)


def infer_request(
    route: str, inputs: Mapping[str, NDArray[Any]], unit: str, parameters: Mapping[str, Parameter]
) -> ModelInferRequest:
    """A V2 request with the unit and what contexts read among its parameters. Raises TypeError for what is no such."""
    request = ModelInferRequest(model_name=route)
    for name, value in parameters.items():
        choice = choice_of(value)
        if choice is None:
            raise TypeError(f"parameter {name!r} is {value!r}; it may be a text, a number of 64 bits, True or False")
        setattr(request.parameters[name], choice, value)
    if unit:
        request.parameters[UNIT].string_param = unit
    add_inputs(request, inputs, raw=True)
    return request


def features_request(
    table: str, rows: Mapping[str, Mapping[str, float | str]], forget: Sequence[str]
) -> PutFeaturesRequest:
    """A request to keep rows of a table of features, and to forget others."""
    request = PutFeaturesRequest(table=table, forget=forget)
    for unit, row in rows.items():
        told = request.rows.add(unit=unit)
        for column, value in row.items():
            if isinstance(value, str):
                told.texts[column] = value
            else:
                told.numbers[column] = value
    return request


def answer_of(response: ModelInferResponse) -> Answer:
    """What a route answered, read from a V2 response and its parameters."""
    parameters = response.parameters
    return Answer(
        outputs_of(response),
        parameters[DECISION].string_param,
        parameters[ARM].string_param,
        parameters[PROPENSITY].double_param,
    )
