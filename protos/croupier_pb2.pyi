from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeedbackRequest(_message.Message):
    __slots__ = ("decision_id", "reward", "metrics", "truth")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    reward: float
    metrics: _containers.ScalarMap[str, float]
    truth: float
    def __init__(self, decision_id: _Optional[str] = ..., reward: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., truth: _Optional[float] = ...) -> None: ...

class FeedbackResponse(_message.Message):
    __slots__ = ("route", "arm")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    route: str
    arm: str
    def __init__(self, route: _Optional[str] = ..., arm: _Optional[str] = ...) -> None: ...

class FeedbackBatchRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FeedbackRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[FeedbackRequest, _Mapping]]] = ...) -> None: ...

class FeedbackBatchResponse(_message.Message):
    __slots__ = ("outcomes",)
    class Outcome(_message.Message):
        __slots__ = ("code", "message", "route", "arm")
        CODE_FIELD_NUMBER: _ClassVar[int]
        MESSAGE_FIELD_NUMBER: _ClassVar[int]
        ROUTE_FIELD_NUMBER: _ClassVar[int]
        ARM_FIELD_NUMBER: _ClassVar[int]
        code: int
        message: str
        route: str
        arm: str
        def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., route: _Optional[str] = ..., arm: _Optional[str] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[FeedbackBatchResponse.Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[FeedbackBatchResponse.Outcome, _Mapping]]] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("route", "unit")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    route: str
    unit: str
    def __init__(self, route: _Optional[str] = ..., unit: _Optional[str] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("decision_id", "route", "arm", "propensity", "model", "target")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    route: str
    arm: str
    propensity: float
    model: str
    target: str
    def __init__(self, decision_id: _Optional[str] = ..., route: _Optional[str] = ..., arm: _Optional[str] = ..., propensity: _Optional[float] = ..., model: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class ListRoutesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListRoutesResponse(_message.Message):
    __slots__ = ("routes",)
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, routes: _Optional[_Iterable[str]] = ...) -> None: ...

class DescribeRouteRequest(_message.Message):
    __slots__ = ("route",)
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    route: str
    def __init__(self, route: _Optional[str] = ...) -> None: ...

class RouteDescription(_message.Message):
    __slots__ = ("route", "policy", "policy_version", "arms", "reward_low", "reward_high")
    class Tally(_message.Message):
        __slots__ = ("n", "sum", "sum_of_squares")
        N_FIELD_NUMBER: _ClassVar[int]
        SUM_FIELD_NUMBER: _ClassVar[int]
        SUM_OF_SQUARES_FIELD_NUMBER: _ClassVar[int]
        n: float
        sum: float
        sum_of_squares: float
        def __init__(self, n: _Optional[float] = ..., sum: _Optional[float] = ..., sum_of_squares: _Optional[float] = ...) -> None: ...
    class Arm(_message.Message):
        __slots__ = ("name", "model", "target", "allowed", "probability", "decisions", "reward", "metrics")
        class MetricsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: RouteDescription.Tally
            def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[RouteDescription.Tally, _Mapping]] = ...) -> None: ...
        NAME_FIELD_NUMBER: _ClassVar[int]
        MODEL_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        ALLOWED_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        DECISIONS_FIELD_NUMBER: _ClassVar[int]
        REWARD_FIELD_NUMBER: _ClassVar[int]
        METRICS_FIELD_NUMBER: _ClassVar[int]
        name: str
        model: str
        target: str
        allowed: bool
        probability: float
        decisions: float
        reward: RouteDescription.Tally
        metrics: _containers.MessageMap[str, RouteDescription.Tally]
        def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., target: _Optional[str] = ..., allowed: _Optional[bool] = ..., probability: _Optional[float] = ..., decisions: _Optional[float] = ..., reward: _Optional[_Union[RouteDescription.Tally, _Mapping]] = ..., metrics: _Optional[_Mapping[str, RouteDescription.Tally]] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    REWARD_LOW_FIELD_NUMBER: _ClassVar[int]
    REWARD_HIGH_FIELD_NUMBER: _ClassVar[int]
    route: str
    policy: str
    policy_version: str
    arms: _containers.RepeatedCompositeFieldContainer[RouteDescription.Arm]
    reward_low: float
    reward_high: float
    def __init__(self, route: _Optional[str] = ..., policy: _Optional[str] = ..., policy_version: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[RouteDescription.Arm, _Mapping]]] = ..., reward_low: _Optional[float] = ..., reward_high: _Optional[float] = ...) -> None: ...
