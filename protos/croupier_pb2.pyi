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
    __slots__ = ("route", "arm", "counted")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    route: str
    arm: str
    counted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, route: _Optional[str] = ..., arm: _Optional[str] = ..., counted: _Optional[_Iterable[str]] = ...) -> None: ...

class FeedbackBatchRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FeedbackRequest]
    def __init__(self, items: _Optional[_Iterable[_Union[FeedbackRequest, _Mapping]]] = ...) -> None: ...

class FeedbackBatchResponse(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[FeedbackOutcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[FeedbackOutcome, _Mapping]]] = ...) -> None: ...

class FeedbackOutcome(_message.Message):
    __slots__ = ("code", "message", "route", "arm", "counted")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COUNTED_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    route: str
    arm: str
    counted: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ..., route: _Optional[str] = ..., arm: _Optional[str] = ..., counted: _Optional[_Iterable[str]] = ...) -> None: ...

class DecideRequest(_message.Message):
    __slots__ = ("route", "unit", "numbers", "texts")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class TextsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    route: str
    unit: str
    numbers: _containers.ScalarMap[str, float]
    texts: _containers.ScalarMap[str, str]
    def __init__(self, route: _Optional[str] = ..., unit: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ..., texts: _Optional[_Mapping[str, str]] = ...) -> None: ...

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

class PutFeaturesRequest(_message.Message):
    __slots__ = ("table", "rows", "forget")
    class Row(_message.Message):
        __slots__ = ("unit", "numbers", "texts")
        class NumbersEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: float
            def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
        class TextsEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: str
            def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
        UNIT_FIELD_NUMBER: _ClassVar[int]
        NUMBERS_FIELD_NUMBER: _ClassVar[int]
        TEXTS_FIELD_NUMBER: _ClassVar[int]
        unit: str
        numbers: _containers.ScalarMap[str, float]
        texts: _containers.ScalarMap[str, str]
        def __init__(self, unit: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ..., texts: _Optional[_Mapping[str, str]] = ...) -> None: ...
    TABLE_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    table: str
    rows: _containers.RepeatedCompositeFieldContainer[PutFeaturesRequest.Row]
    forget: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, table: _Optional[str] = ..., rows: _Optional[_Iterable[_Union[PutFeaturesRequest.Row, _Mapping]]] = ..., forget: _Optional[_Iterable[str]] = ...) -> None: ...

class PutFeaturesResponse(_message.Message):
    __slots__ = ("rows",)
    ROWS_FIELD_NUMBER: _ClassVar[int]
    rows: int
    def __init__(self, rows: _Optional[int] = ...) -> None: ...

class SwitchArmRequest(_message.Message):
    __slots__ = ("route", "arm", "on", "who", "why")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    ON_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    route: str
    arm: str
    on: bool
    who: str
    why: str
    def __init__(self, route: _Optional[str] = ..., arm: _Optional[str] = ..., on: _Optional[bool] = ..., who: _Optional[str] = ..., why: _Optional[str] = ...) -> None: ...

class SwitchArmResponse(_message.Message):
    __slots__ = ("off", "frozen", "follow_seconds")
    OFF_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_SECONDS_FIELD_NUMBER: _ClassVar[int]
    off: _containers.RepeatedScalarFieldContainer[str]
    frozen: bool
    follow_seconds: float
    def __init__(self, off: _Optional[_Iterable[str]] = ..., frozen: _Optional[bool] = ..., follow_seconds: _Optional[float] = ...) -> None: ...

class Estimate(_message.Message):
    __slots__ = ("value", "low", "high")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class LogPart(_message.Message):
    __slots__ = ("decisions", "whole", "first", "last", "other_arms", "gone")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    OTHER_ARMS_FIELD_NUMBER: _ClassVar[int]
    GONE_FIELD_NUMBER: _ClassVar[int]
    decisions: float
    whole: bool
    first: float
    last: float
    other_arms: float
    gone: float
    def __init__(self, decisions: _Optional[float] = ..., whole: _Optional[bool] = ..., first: _Optional[float] = ..., last: _Optional[float] = ..., other_arms: _Optional[float] = ..., gone: _Optional[float] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("route", "alpha")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    route: str
    alpha: float
    def __init__(self, route: _Optional[str] = ..., alpha: _Optional[float] = ...) -> None: ...

class RouteReport(_message.Message):
    __slots__ = ("route", "policy", "policy_version", "champion", "alpha", "frozen", "reward_low", "reward_high", "arms", "best_by", "best_why", "mismatch", "canary", "against_champion", "cost_per_decision", "log", "warnings", "units")
    class Latency(_message.Message):
        __slots__ = ("quantile", "at_most")
        QUANTILE_FIELD_NUMBER: _ClassVar[int]
        AT_MOST_FIELD_NUMBER: _ClassVar[int]
        quantile: float
        at_most: float
        def __init__(self, quantile: _Optional[float] = ..., at_most: _Optional[float] = ...) -> None: ...
    class Metric(_message.Message):
        __slots__ = ("name", "unit", "better", "n", "total", "mean")
        NAME_FIELD_NUMBER: _ClassVar[int]
        UNIT_FIELD_NUMBER: _ClassVar[int]
        BETTER_FIELD_NUMBER: _ClassVar[int]
        N_FIELD_NUMBER: _ClassVar[int]
        TOTAL_FIELD_NUMBER: _ClassVar[int]
        MEAN_FIELD_NUMBER: _ClassVar[int]
        name: str
        unit: str
        better: str
        n: float
        total: float
        mean: Estimate
        def __init__(self, name: _Optional[str] = ..., unit: _Optional[str] = ..., better: _Optional[str] = ..., n: _Optional[float] = ..., total: _Optional[float] = ..., mean: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
    class Shadow(_message.Message):
        __slots__ = ("compared", "different", "difference", "failed", "dropped")
        COMPARED_FIELD_NUMBER: _ClassVar[int]
        DIFFERENT_FIELD_NUMBER: _ClassVar[int]
        DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
        FAILED_FIELD_NUMBER: _ClassVar[int]
        DROPPED_FIELD_NUMBER: _ClassVar[int]
        compared: float
        different: float
        difference: Estimate
        failed: float
        dropped: float
        def __init__(self, compared: _Optional[float] = ..., different: _Optional[float] = ..., difference: _Optional[_Union[Estimate, _Mapping]] = ..., failed: _Optional[float] = ..., dropped: _Optional[float] = ...) -> None: ...
    class Arm(_message.Message):
        __slots__ = ("name", "model", "target", "allowed", "state", "why", "probability", "decisions", "share", "rewards", "matured", "mean", "lift", "compared", "log_e_value", "best", "latency", "metrics", "cost", "shadow", "by_unit", "net_lift")
        NAME_FIELD_NUMBER: _ClassVar[int]
        MODEL_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        ALLOWED_FIELD_NUMBER: _ClassVar[int]
        STATE_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        DECISIONS_FIELD_NUMBER: _ClassVar[int]
        SHARE_FIELD_NUMBER: _ClassVar[int]
        REWARDS_FIELD_NUMBER: _ClassVar[int]
        MATURED_FIELD_NUMBER: _ClassVar[int]
        MEAN_FIELD_NUMBER: _ClassVar[int]
        LIFT_FIELD_NUMBER: _ClassVar[int]
        COMPARED_FIELD_NUMBER: _ClassVar[int]
        LOG_E_VALUE_FIELD_NUMBER: _ClassVar[int]
        BEST_FIELD_NUMBER: _ClassVar[int]
        LATENCY_FIELD_NUMBER: _ClassVar[int]
        METRICS_FIELD_NUMBER: _ClassVar[int]
        COST_FIELD_NUMBER: _ClassVar[int]
        SHADOW_FIELD_NUMBER: _ClassVar[int]
        BY_UNIT_FIELD_NUMBER: _ClassVar[int]
        NET_LIFT_FIELD_NUMBER: _ClassVar[int]
        name: str
        model: str
        target: str
        allowed: bool
        state: str
        why: str
        probability: float
        decisions: float
        share: float
        rewards: float
        matured: float
        mean: Estimate
        lift: Estimate
        compared: float
        log_e_value: float
        best: float
        latency: _containers.RepeatedCompositeFieldContainer[RouteReport.Latency]
        metrics: _containers.RepeatedCompositeFieldContainer[RouteReport.Metric]
        cost: float
        shadow: RouteReport.Shadow
        by_unit: RouteReport.ByUnit
        net_lift: Estimate
        def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., target: _Optional[str] = ..., allowed: _Optional[bool] = ..., state: _Optional[str] = ..., why: _Optional[str] = ..., probability: _Optional[float] = ..., decisions: _Optional[float] = ..., share: _Optional[float] = ..., rewards: _Optional[float] = ..., matured: _Optional[float] = ..., mean: _Optional[_Union[Estimate, _Mapping]] = ..., lift: _Optional[_Union[Estimate, _Mapping]] = ..., compared: _Optional[float] = ..., log_e_value: _Optional[float] = ..., best: _Optional[float] = ..., latency: _Optional[_Iterable[_Union[RouteReport.Latency, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[RouteReport.Metric, _Mapping]]] = ..., cost: _Optional[float] = ..., shadow: _Optional[_Union[RouteReport.Shadow, _Mapping]] = ..., by_unit: _Optional[_Union[RouteReport.ByUnit, _Mapping]] = ..., net_lift: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
    class ByUnit(_message.Message):
        __slots__ = ("units", "decisions", "design_effect", "mean", "lift", "log_e_value", "net_lift")
        UNITS_FIELD_NUMBER: _ClassVar[int]
        DECISIONS_FIELD_NUMBER: _ClassVar[int]
        DESIGN_EFFECT_FIELD_NUMBER: _ClassVar[int]
        MEAN_FIELD_NUMBER: _ClassVar[int]
        LIFT_FIELD_NUMBER: _ClassVar[int]
        LOG_E_VALUE_FIELD_NUMBER: _ClassVar[int]
        NET_LIFT_FIELD_NUMBER: _ClassVar[int]
        units: float
        decisions: float
        design_effect: float
        mean: Estimate
        lift: Estimate
        log_e_value: float
        net_lift: Estimate
        def __init__(self, units: _Optional[float] = ..., decisions: _Optional[float] = ..., design_effect: _Optional[float] = ..., mean: _Optional[_Union[Estimate, _Mapping]] = ..., lift: _Optional[_Union[Estimate, _Mapping]] = ..., log_e_value: _Optional[float] = ..., net_lift: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
    class Units(_message.Message):
        __slots__ = ("units", "decisions", "most")
        UNITS_FIELD_NUMBER: _ClassVar[int]
        DECISIONS_FIELD_NUMBER: _ClassVar[int]
        MOST_FIELD_NUMBER: _ClassVar[int]
        units: float
        decisions: float
        most: float
        def __init__(self, units: _Optional[float] = ..., decisions: _Optional[float] = ..., most: _Optional[float] = ...) -> None: ...
    class Mismatch(_message.Message):
        __slots__ = ("of", "n", "log_e_value", "alarm")
        OF_FIELD_NUMBER: _ClassVar[int]
        N_FIELD_NUMBER: _ClassVar[int]
        LOG_E_VALUE_FIELD_NUMBER: _ClassVar[int]
        ALARM_FIELD_NUMBER: _ClassVar[int]
        of: str
        n: float
        log_e_value: float
        alarm: bool
        def __init__(self, of: _Optional[str] = ..., n: _Optional[float] = ..., log_e_value: _Optional[float] = ..., alarm: _Optional[bool] = ...) -> None: ...
    class Canary(_message.Message):
        __slots__ = ("arm", "step", "steps", "share", "outcome", "since")
        ARM_FIELD_NUMBER: _ClassVar[int]
        STEP_FIELD_NUMBER: _ClassVar[int]
        STEPS_FIELD_NUMBER: _ClassVar[int]
        SHARE_FIELD_NUMBER: _ClassVar[int]
        OUTCOME_FIELD_NUMBER: _ClassVar[int]
        SINCE_FIELD_NUMBER: _ClassVar[int]
        arm: str
        step: int
        steps: int
        share: float
        outcome: str
        since: float
        def __init__(self, arm: _Optional[str] = ..., step: _Optional[int] = ..., steps: _Optional[int] = ..., share: _Optional[float] = ..., outcome: _Optional[str] = ..., since: _Optional[float] = ...) -> None: ...
    class AgainstChampion(_message.Message):
        __slots__ = ("decisions", "earned", "champion", "gain", "total", "cost", "on_investment", "why", "warnings", "by_unit", "net")
        class ByUnit(_message.Message):
            __slots__ = ("units", "design_effect", "champion", "gain", "total", "net")
            UNITS_FIELD_NUMBER: _ClassVar[int]
            DESIGN_EFFECT_FIELD_NUMBER: _ClassVar[int]
            CHAMPION_FIELD_NUMBER: _ClassVar[int]
            GAIN_FIELD_NUMBER: _ClassVar[int]
            TOTAL_FIELD_NUMBER: _ClassVar[int]
            NET_FIELD_NUMBER: _ClassVar[int]
            units: float
            design_effect: float
            champion: Estimate
            gain: Estimate
            total: Estimate
            net: Estimate
            def __init__(self, units: _Optional[float] = ..., design_effect: _Optional[float] = ..., champion: _Optional[_Union[Estimate, _Mapping]] = ..., gain: _Optional[_Union[Estimate, _Mapping]] = ..., total: _Optional[_Union[Estimate, _Mapping]] = ..., net: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
        DECISIONS_FIELD_NUMBER: _ClassVar[int]
        EARNED_FIELD_NUMBER: _ClassVar[int]
        CHAMPION_FIELD_NUMBER: _ClassVar[int]
        GAIN_FIELD_NUMBER: _ClassVar[int]
        TOTAL_FIELD_NUMBER: _ClassVar[int]
        COST_FIELD_NUMBER: _ClassVar[int]
        ON_INVESTMENT_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        WARNINGS_FIELD_NUMBER: _ClassVar[int]
        BY_UNIT_FIELD_NUMBER: _ClassVar[int]
        NET_FIELD_NUMBER: _ClassVar[int]
        decisions: float
        earned: float
        champion: Estimate
        gain: Estimate
        total: Estimate
        cost: float
        on_investment: float
        why: str
        warnings: _containers.RepeatedScalarFieldContainer[str]
        by_unit: RouteReport.AgainstChampion.ByUnit
        net: Estimate
        def __init__(self, decisions: _Optional[float] = ..., earned: _Optional[float] = ..., champion: _Optional[_Union[Estimate, _Mapping]] = ..., gain: _Optional[_Union[Estimate, _Mapping]] = ..., total: _Optional[_Union[Estimate, _Mapping]] = ..., cost: _Optional[float] = ..., on_investment: _Optional[float] = ..., why: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., by_unit: _Optional[_Union[RouteReport.AgainstChampion.ByUnit, _Mapping]] = ..., net: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    CHAMPION_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    REWARD_LOW_FIELD_NUMBER: _ClassVar[int]
    REWARD_HIGH_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    BEST_BY_FIELD_NUMBER: _ClassVar[int]
    BEST_WHY_FIELD_NUMBER: _ClassVar[int]
    MISMATCH_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    AGAINST_CHAMPION_FIELD_NUMBER: _ClassVar[int]
    COST_PER_DECISION_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    UNITS_FIELD_NUMBER: _ClassVar[int]
    route: str
    policy: str
    policy_version: str
    champion: str
    alpha: float
    frozen: bool
    reward_low: float
    reward_high: float
    arms: _containers.RepeatedCompositeFieldContainer[RouteReport.Arm]
    best_by: str
    best_why: str
    mismatch: _containers.RepeatedCompositeFieldContainer[RouteReport.Mismatch]
    canary: RouteReport.Canary
    against_champion: RouteReport.AgainstChampion
    cost_per_decision: float
    log: LogPart
    warnings: _containers.RepeatedScalarFieldContainer[str]
    units: RouteReport.Units
    def __init__(self, route: _Optional[str] = ..., policy: _Optional[str] = ..., policy_version: _Optional[str] = ..., champion: _Optional[str] = ..., alpha: _Optional[float] = ..., frozen: _Optional[bool] = ..., reward_low: _Optional[float] = ..., reward_high: _Optional[float] = ..., arms: _Optional[_Iterable[_Union[RouteReport.Arm, _Mapping]]] = ..., best_by: _Optional[str] = ..., best_why: _Optional[str] = ..., mismatch: _Optional[_Iterable[_Union[RouteReport.Mismatch, _Mapping]]] = ..., canary: _Optional[_Union[RouteReport.Canary, _Mapping]] = ..., against_champion: _Optional[_Union[RouteReport.AgainstChampion, _Mapping]] = ..., cost_per_decision: _Optional[float] = ..., log: _Optional[_Union[LogPart, _Mapping]] = ..., warnings: _Optional[_Iterable[str]] = ..., units: _Optional[_Union[RouteReport.Units, _Mapping]] = ...) -> None: ...

class ExplainRequest(_message.Message):
    __slots__ = ("decision_id", "show_unit")
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    SHOW_UNIT_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    show_unit: bool
    def __init__(self, decision_id: _Optional[str] = ..., show_unit: _Optional[bool] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("decision_id", "route", "time", "unit", "sticky", "context", "rule", "arms", "arm", "propensity", "answered", "policy", "policy_version", "settings", "fitted", "canary_share", "prediction", "outcomes", "reproduced", "differences")
    class Feature(_message.Message):
        __slots__ = ("column", "value")
        COLUMN_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        column: str
        value: float
        def __init__(self, column: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class Arm(_message.Message):
        __slots__ = ("name", "model", "target", "allowed", "probability", "again", "proposed", "score", "failed")
        NAME_FIELD_NUMBER: _ClassVar[int]
        MODEL_FIELD_NUMBER: _ClassVar[int]
        TARGET_FIELD_NUMBER: _ClassVar[int]
        ALLOWED_FIELD_NUMBER: _ClassVar[int]
        PROBABILITY_FIELD_NUMBER: _ClassVar[int]
        AGAIN_FIELD_NUMBER: _ClassVar[int]
        PROPOSED_FIELD_NUMBER: _ClassVar[int]
        SCORE_FIELD_NUMBER: _ClassVar[int]
        FAILED_FIELD_NUMBER: _ClassVar[int]
        name: str
        model: str
        target: str
        allowed: bool
        probability: float
        again: float
        proposed: float
        score: float
        failed: bool
        def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., target: _Optional[str] = ..., allowed: _Optional[bool] = ..., probability: _Optional[float] = ..., again: _Optional[float] = ..., proposed: _Optional[float] = ..., score: _Optional[float] = ..., failed: _Optional[bool] = ...) -> None: ...
    class Outcome(_message.Message):
        __slots__ = ("name", "value", "time")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: float
        time: float
        def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., time: _Optional[float] = ...) -> None: ...
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    ANSWERED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    FITTED_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    REPRODUCED_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCES_FIELD_NUMBER: _ClassVar[int]
    decision_id: str
    route: str
    time: float
    unit: str
    sticky: bool
    context: _containers.RepeatedCompositeFieldContainer[Explanation.Feature]
    rule: str
    arms: _containers.RepeatedCompositeFieldContainer[Explanation.Arm]
    arm: str
    propensity: float
    answered: bool
    policy: str
    policy_version: str
    settings: str
    fitted: float
    canary_share: float
    prediction: float
    outcomes: _containers.RepeatedCompositeFieldContainer[Explanation.Outcome]
    reproduced: bool
    differences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, decision_id: _Optional[str] = ..., route: _Optional[str] = ..., time: _Optional[float] = ..., unit: _Optional[str] = ..., sticky: _Optional[bool] = ..., context: _Optional[_Iterable[_Union[Explanation.Feature, _Mapping]]] = ..., rule: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[Explanation.Arm, _Mapping]]] = ..., arm: _Optional[str] = ..., propensity: _Optional[float] = ..., answered: _Optional[bool] = ..., policy: _Optional[str] = ..., policy_version: _Optional[str] = ..., settings: _Optional[str] = ..., fitted: _Optional[float] = ..., canary_share: _Optional[float] = ..., prediction: _Optional[float] = ..., outcomes: _Optional[_Iterable[_Union[Explanation.Outcome, _Mapping]]] = ..., reproduced: _Optional[bool] = ..., differences: _Optional[_Iterable[str]] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("route", "policy", "alpha", "most")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    route: str
    policy: str
    alpha: float
    most: int
    def __init__(self, route: _Optional[str] = ..., policy: _Optional[str] = ..., alpha: _Optional[float] = ..., most: _Optional[int] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("route", "policy", "alpha", "learnt_from", "judged_on", "answerable", "why", "warnings", "value", "earned", "lift", "effective_rows", "largest_weight", "arms", "estimators", "log", "by_unit", "cost", "had_cost", "net_lift")
    class Arm(_message.Message):
        __slots__ = ("name", "share", "wanted")
        NAME_FIELD_NUMBER: _ClassVar[int]
        SHARE_FIELD_NUMBER: _ClassVar[int]
        WANTED_FIELD_NUMBER: _ClassVar[int]
        name: str
        share: float
        wanted: float
        def __init__(self, name: _Optional[str] = ..., share: _Optional[float] = ..., wanted: _Optional[float] = ...) -> None: ...
    class Estimator(_message.Message):
        __slots__ = ("name", "value", "error")
        NAME_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        ERROR_FIELD_NUMBER: _ClassVar[int]
        name: str
        value: float
        error: float
        def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ..., error: _Optional[float] = ...) -> None: ...
    class ByUnit(_message.Message):
        __slots__ = ("units", "design_effect", "value", "lift", "net_lift")
        UNITS_FIELD_NUMBER: _ClassVar[int]
        DESIGN_EFFECT_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        LIFT_FIELD_NUMBER: _ClassVar[int]
        NET_LIFT_FIELD_NUMBER: _ClassVar[int]
        units: float
        design_effect: float
        value: Estimate
        lift: Estimate
        net_lift: Estimate
        def __init__(self, units: _Optional[float] = ..., design_effect: _Optional[float] = ..., value: _Optional[_Union[Estimate, _Mapping]] = ..., lift: _Optional[_Union[Estimate, _Mapping]] = ..., net_lift: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    LEARNT_FROM_FIELD_NUMBER: _ClassVar[int]
    JUDGED_ON_FIELD_NUMBER: _ClassVar[int]
    ANSWERABLE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EARNED_FIELD_NUMBER: _ClassVar[int]
    LIFT_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_ROWS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATORS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    BY_UNIT_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    HAD_COST_FIELD_NUMBER: _ClassVar[int]
    NET_LIFT_FIELD_NUMBER: _ClassVar[int]
    route: str
    policy: str
    alpha: float
    learnt_from: float
    judged_on: float
    answerable: bool
    why: str
    warnings: _containers.RepeatedScalarFieldContainer[str]
    value: Estimate
    earned: Estimate
    lift: Estimate
    effective_rows: float
    largest_weight: float
    arms: _containers.RepeatedCompositeFieldContainer[Evaluation.Arm]
    estimators: _containers.RepeatedCompositeFieldContainer[Evaluation.Estimator]
    log: LogPart
    by_unit: Evaluation.ByUnit
    cost: float
    had_cost: float
    net_lift: Estimate
    def __init__(self, route: _Optional[str] = ..., policy: _Optional[str] = ..., alpha: _Optional[float] = ..., learnt_from: _Optional[float] = ..., judged_on: _Optional[float] = ..., answerable: _Optional[bool] = ..., why: _Optional[str] = ..., warnings: _Optional[_Iterable[str]] = ..., value: _Optional[_Union[Estimate, _Mapping]] = ..., earned: _Optional[_Union[Estimate, _Mapping]] = ..., lift: _Optional[_Union[Estimate, _Mapping]] = ..., effective_rows: _Optional[float] = ..., largest_weight: _Optional[float] = ..., arms: _Optional[_Iterable[_Union[Evaluation.Arm, _Mapping]]] = ..., estimators: _Optional[_Iterable[_Union[Evaluation.Estimator, _Mapping]]] = ..., log: _Optional[_Union[LogPart, _Mapping]] = ..., by_unit: _Optional[_Union[Evaluation.ByUnit, _Mapping]] = ..., cost: _Optional[float] = ..., had_cost: _Optional[float] = ..., net_lift: _Optional[_Union[Estimate, _Mapping]] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("route", "after", "most")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MOST_FIELD_NUMBER: _ClassVar[int]
    route: str
    after: str
    most: int
    def __init__(self, route: _Optional[str] = ..., after: _Optional[str] = ..., most: _Optional[int] = ...) -> None: ...

class RouteEvents(_message.Message):
    __slots__ = ("route", "events")
    class Event(_message.Message):
        __slots__ = ("id", "time", "arm", "kind", "why", "numbers")
        class NumbersEntry(_message.Message):
            __slots__ = ("key", "value")
            KEY_FIELD_NUMBER: _ClassVar[int]
            VALUE_FIELD_NUMBER: _ClassVar[int]
            key: str
            value: float
            def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
        ID_FIELD_NUMBER: _ClassVar[int]
        TIME_FIELD_NUMBER: _ClassVar[int]
        ARM_FIELD_NUMBER: _ClassVar[int]
        KIND_FIELD_NUMBER: _ClassVar[int]
        WHY_FIELD_NUMBER: _ClassVar[int]
        NUMBERS_FIELD_NUMBER: _ClassVar[int]
        id: str
        time: float
        arm: str
        kind: str
        why: str
        numbers: _containers.ScalarMap[str, float]
        def __init__(self, id: _Optional[str] = ..., time: _Optional[float] = ..., arm: _Optional[str] = ..., kind: _Optional[str] = ..., why: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ...) -> None: ...
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    route: str
    events: _containers.RepeatedCompositeFieldContainer[RouteEvents.Event]
    def __init__(self, route: _Optional[str] = ..., events: _Optional[_Iterable[_Union[RouteEvents.Event, _Mapping]]] = ...) -> None: ...
