"""The configuration: one YAML file, read into frozen structs. Anything it does not know is refused."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from bandits import POLICIES, Policy, Split, sampler
from router.errors import ConfigError, listed

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PLACE = re.compile(r"(.*) - at (`key` in )?`\$(.*)`")  # how msgspec ends a sentence: "... - at `$.guard.seconds`"
_LAST_PORT = 65535

GREATEST = 1e100
"""Rewards and metrics lie within ± this: the sums of their squares must stay finite."""

T = TypeVar("T")


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every part of the configuration is: immutable, and strict about its keys."""


class SplitPolicy(Struct, frozen=True, tag="split", tag_field="kind"):
    """An A/B test: each arm gets its share."""

    weights: dict[str, float] = {}  # by arm; none: equal shares

    def build(self, arms: Sequence[str]) -> Policy:
        """The policy over `arms`, in their order. Raises ValueError."""
        if not self.weights:
            return Split(weights=(1.0,) * len(arms))
        if set(self.weights) != set(arms):
            raise ValueError(f"weights: give one for each arm ({listed(arms)}), and for nothing else")
        return Split(weights=tuple(self.weights[arm] for arm in arms))


class PlainPolicy(Struct, frozen=True):
    """A policy whose settings are its own, whatever the arms."""

    def build(self, _arms: Sequence[str]) -> Policy:
        """The policy. Raises ValueError."""
        return POLICIES[str(self.__struct_config__.tag)](**msgspec.structs.asdict(self))


class EpsilonGreedyPolicy(PlainPolicy, frozen=True, tag="epsilon_greedy", tag_field="kind"):
    """The best arm so far, but any arm with probability epsilon."""

    epsilon: float = 0.1
    constant_plays: float = math.inf  # after so many, epsilon falls as one over the plays


class UCB1Policy(PlainPolicy, frozen=True, tag="ucb1", tag_field="kind"):
    """The arm that could be the best, by the upper end of a wide interval."""

    exploration: float = 2.0  # 2 as published; 0.5 regrets less


class KLUCBPlusPolicy(PlainPolicy, frozen=True, tag="kl_ucb_plus", tag_field="kind"):
    """The arm that could be the best, by the upper end of a sharp interval."""


class ThompsonPolicy(PlainPolicy, frozen=True, tag="thompson", tag_field="kind"):
    """Each arm with the probability that it is the best, given what was earned; priors are Beta(alpha, beta)."""

    alpha: float = 1.0
    beta: float = 1.0


class GaussianThompsonPolicy(PlainPolicy, frozen=True, tag="gaussian_thompson", tag_field="kind"):
    """The same for rewards that are not 0 or 1, by their mean and variance, in parts of the route's range."""

    mu: float = 0.5
    kappa: float = 1.0
    alpha: float = 1.0
    beta: float = 1 / 12


class TopTwoThompsonPolicy(PlainPolicy, frozen=True, tag="top_two_thompson", tag_field="kind"):
    """To find the best arm soon: the one that seems best with probability `leader`, else its closest rival."""

    leader: float = 0.5
    alpha: float = 1.0
    beta: float = 1.0


class Exp3IXPolicy(PlainPolicy, frozen=True, tag="exp3_ix", tag_field="kind"):
    """For rewards that follow no law, as an adversary would set them."""

    gamma: float = 0.01
    rate: float = 1.0


class Arm(Struct, frozen=True):
    """An alternative of a route: a model in this process, or one behind a remote V2 gRPC server."""

    model: str
    version: str = ""  # empty: the server's choice
    target: str = ""  # "HOST:PORT" of a remote server; empty: in this process
    timeout_seconds: float = 5.0  # for a remote server; one that takes longer has failed


class Range(Struct, frozen=True):
    """What a reward may be."""

    low: float = 0.0
    high: float = 1.0


class Metric(Struct, frozen=True):
    """A business value that clients report beside the reward."""

    unit: str


class Guard(Struct, frozen=True):
    """When a failing arm is left out, and for how long."""

    failures: int = 3  # in a row
    seconds: float = 10.0  # doubled each time a probe fails
    longest_seconds: float = 300.0


class Route(Struct, frozen=True):
    """One experiment: what clients ask for as if it were a model."""

    arms: dict[str, Arm]
    policy: (
        SplitPolicy
        | EpsilonGreedyPolicy
        | UCB1Policy
        | KLUCBPlusPolicy
        | ThompsonPolicy
        | GaussianThompsonPolicy
        | TopTwoThompsonPolicy
        | Exp3IXPolicy
    ) = SplitPolicy()
    reward: Range = Range()
    metrics: dict[str, Metric] = {}
    guard: Guard = Guard()
    sticky: bool = False  # a unit keeps its arm as long as probabilities allow
    salt: str = ""  # of the draw; empty: the route's name
    strict_log: bool = False  # answers wait until their decision is committed
    max_in_flight: int = 10_000


KINDS = [str(kind.__struct_config__.tag) for kind in get_args(get_type_hints(Route)["policy"])]
"""Of policies, as a file names them."""


class Config(Struct, frozen=True):
    """Everything `croupier serve` reads. Relative paths start at the file's folder."""

    routes: dict[str, Route]
    listen: str = "127.0.0.1:8080"  # gRPC and REST
    admin: str = "127.0.0.1:8082"  # metrics and health
    models: str = ""  # folder of models served in this process
    store: str = "sqlite:croupier.db"
    flush_seconds: float = 0.05  # decisions are committed at least this often
    refresh_seconds: float = 0.25  # what other replicas learnt is read at least this often
    request_log: bool = False  # one JSON line a request on standard output


def read_config(path: Path) -> Config:
    """The configuration in a file. Raises ConfigError naming file and key."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        raw = yaml.load(text, _StrictLoader)  # noqa: S506  # derives from SafeLoader
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_config(raw, path)


def parse_config(raw: object, path: Path) -> Config:
    """The configuration in parsed YAML; `path` is the file it is from. Raises ConfigError naming file and key."""
    reader = _Reader(path)
    if not isinstance(raw, dict):
        reader.refuse("", "expected a mapping with the key routes")
    routes = reader.mapping(raw.get("routes"), "routes")
    if not routes:
        reader.refuse("routes", "at least one route is needed")
    parsed = {}
    for name, route in routes.items():
        key = f"routes.{name}"
        if not isinstance(route, dict):
            reader.refuse(key, "expected a mapping with the key arms")
        # One by one, so that the key of what is wrong is known.
        for arm, value in reader.mapping(route.get("arms"), f"{key}.arms").items():
            reader.convert(value, Arm, f"{key}.arms.{arm}")
        for metric, value in reader.mapping(route.get("metrics", {}), f"{key}.metrics").items():
            reader.convert(value, Metric, f"{key}.metrics.{metric}")
        parsed[name] = reader.convert(route, Route, key)
        _check_route(parsed[name], key, reader)
    config = reader.convert({**raw, "routes": {}}, Config, "")
    config = msgspec.structs.replace(config, routes=parsed)
    return _resolved(config, reader)


def _check_route(route: Route, key: str, reader: _Reader) -> None:
    if not route.arms:
        reader.refuse(f"{key}.arms", "at least one arm is needed")
    for name, arm in route.arms.items():
        if not arm.model:
            reader.refuse(f"{key}.arms.{name}.model", "must not be empty")
        if arm.target:
            reader.address(arm.target, f"{key}.arms.{name}.target")
        reader.positive(arm.timeout_seconds, f"{key}.arms.{name}.timeout_seconds")
    if not (abs(route.reward.low) <= GREATEST and abs(route.reward.high) <= GREATEST):
        reader.refuse(f"{key}.reward", f"low and high must be numbers from {-GREATEST} to {GREATEST}")
    if route.reward.low >= route.reward.high:
        reader.refuse(f"{key}.reward", f"low ({route.reward.low}) must be below high ({route.reward.high})")
    reader.positive(route.guard.failures, f"{key}.guard.failures")
    reader.positive(route.guard.seconds, f"{key}.guard.seconds")
    reader.positive(route.max_in_flight, f"{key}.max_in_flight")
    if not route.guard.longest_seconds >= route.guard.seconds:
        reader.refuse(f"{key}.guard.longest_seconds", "must not be below guard.seconds")
    try:
        route.policy.build(list(route.arms))
    except ValueError as error:
        reader.refuse(f"{key}.policy", str(error))
    try:
        sampler(route.salt, list(route.arms))
    except ValueError as error:
        reader.refuse(f"{key}.salt", str(error))


def _resolved(config: Config, reader: _Reader) -> Config:
    """The configuration with absolute paths, after the checks that need all of it."""
    reader.address(config.listen, "listen")
    reader.address(config.admin, "admin")
    reader.positive(config.flush_seconds, "flush_seconds")
    reader.positive(config.refresh_seconds, "refresh_seconds")
    local = [f"{name}.{arm}" for name, route in config.routes.items() for arm, a in route.arms.items() if not a.target]
    if local and not config.models:
        reader.refuse("models", f"a folder of models is needed, for the arms without a target: {listed(local)}")
    folder = reader.path.resolve().parent
    kind, _, rest = config.store.partition(":")
    if kind == "sqlite" and rest not in {"", ":memory:"}:  # these are no paths, and refused when it is opened
        config = msgspec.structs.replace(config, store=f"sqlite:{folder / rest}")
    if config.models:
        config = msgspec.structs.replace(config, models=str(folder / config.models))
        if not Path(config.models).is_dir():
            reader.refuse("models", f"{config.models} is not a folder")
    return config


class _Reader:
    """Refuses with file and key."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse(self, key: str, why: str) -> NoReturn:
        raise ConfigError(f"{self.path}: {key}: {why}" if key else f"{self.path}: {why}")

    def convert(self, value: object, kind: type[T], key: str) -> T:
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            placed = _PLACE.fullmatch(str(error))
            why, is_key, inner = placed.groups() if placed else (str(error), None, "")
            if inner == ".policy.kind":
                why += f"; there are {listed(KINDS)}"
            self.refuse((key + inner).lstrip("."), "a key is not a text; quote it" if is_key else why)

    def mapping(self, value: object, key: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.refuse(key, "expected a mapping from names")
        for name in value:
            self.check_name(name, key)
        return value

    def check_name(self, name: object, key: str) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            self.refuse(key, f"{name!r} is not a name: up to 100 letters, digits, '_', '-' and '.', quoted if numeric")

    def address(self, value: str, key: str) -> None:
        host, _, port = value.rpartition(":")
        if not (host and port.isdecimal() and int(port) <= _LAST_PORT):
            self.refuse(key, f"expected HOST:PORT, got {value!r}")

    def positive(self, value: float, key: str) -> None:
        if not (math.isfinite(value) and value > 0):
            self.refuse(key, f"must be above 0, got {value}")


class _StrictLoader(yaml.SafeLoader):
    """YAML in which a key that is given twice is an error, not a silent choice."""


def _unique_keys(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":  # "<<", which the loader below replaces
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain text", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)
