from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from bandits import POLICIES, EpsilonGreedy, Split, Thompson
from protos.errors import Code, Fault
from router.config import (
    KINDS,
    AnyPolicy,
    Arm,
    Config,
    EpsilonGreedyPolicy,
    Guard,
    Metric,
    Reward,
    Route,
    SplitPolicy,
    ThompsonPolicy,
    read_config,
)
from router.config.context import Feature, FeatureTable, Schema, schema_of
from router.config.policies import ContextualPolicy, LinUCBPolicy
from router.config.rules import Rule
from router.errors import ConfigError

COMPLETE = """
listen: 0.0.0.0:9000
admin: "[::1]:9001"
models: models
store: sqlite:data.db
flush_seconds: 0.1
refresh_seconds: 1
request_log: true
routes:
  credit:
    arms:
      champion: {model: scorecard, version: "3"}
      challenger: {model: forest, target: forest.models:8081}
    policy:
      kind: split
      weights: {champion: 90, challenger: 10}
    reward: {low: -1, high: 2.5}
    metrics:
      pnl: {unit: GBP}
    guard: {failures: 5, seconds: 1, longest_seconds: 60}
    sticky: true
    salt: "2024"
    strict_log: true
    max_in_flight: 100
  momentum:
    arms: {slow: {model: slow}, fast: {model: fast}}
    policy: {kind: thompson, alpha: 2, beta: 3}
  greedy:
    arms: {one: {model: slow}}
    policy: {kind: epsilon_greedy, epsilon: 0.05}
"""

SMALL = """
routes:
  r:
    arms:
      a: {model: m, target: "h:1"}
      b: {model: n, target: "h:2"}
"""
"""A right one. What is indented by four goes into its route."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path / "routes.yaml"


def read(path: Path, text: str) -> Config:
    path.write_text(text)
    return read_config(path)


def test_a_complete_file(path: Path):
    folder = path.parent
    assert read(path, COMPLETE) == Config(
        listen="0.0.0.0:9000",
        admin="[::1]:9001",
        models=str(folder / "models"),
        store=f"sqlite:{folder / 'data.db'}",
        flush_seconds=0.1,
        refresh_seconds=1.0,
        request_log=True,
        routes={
            "credit": Route(
                arms={
                    "champion": Arm(model="scorecard", version="3"),
                    "challenger": Arm(model="forest", target="forest.models:8081"),
                },
                policy=SplitPolicy(weights={"champion": 90.0, "challenger": 10.0}),
                reward=Reward(low=-1.0, high=2.5),
                metrics={"pnl": Metric(unit="GBP")},
                guard=Guard(failures=5, seconds=1.0, longest_seconds=60.0),
                sticky=True,
                salt="2024",
                strict_log=True,
                max_in_flight=100,
            ),
            "momentum": Route(
                arms={"slow": Arm(model="slow"), "fast": Arm(model="fast")}, policy=ThompsonPolicy(alpha=2.0, beta=3.0)
            ),
            "greedy": Route(arms={"one": Arm(model="slow")}, policy=EpsilonGreedyPolicy(epsilon=0.05)),
        },
    )


def test_a_small_file_gets_equal_shares_and_a_store_beside_it(path: Path):
    config = read(path, SMALL)
    assert config.store == f"sqlite:{path.parent / 'croupier.db'}"
    assert config.models == ""
    assert config.routes["r"].policy == SplitPolicy()
    assert config.routes["r"].policy.build(["a", "b"]) == Split(weights=(1.0, 1.0))


def test_policies_are_built_for_the_arms_in_their_order():
    split = SplitPolicy(weights={"b": 3.0, "a": 1.0})
    assert split.build(["a", "b"]) == Split(weights=(1.0, 3.0))
    assert EpsilonGreedyPolicy(epsilon=0.2).build(["a"]) == EpsilonGreedy(epsilon=0.2)
    assert ThompsonPolicy(alpha=2.0).build(["a"]) == Thompson(alpha=2.0, beta=1.0)


@pytest.mark.parametrize("store", ["memory:", "redis://host/0", "sqlite:", "sqlite::memory:", "sqlite:/var/lib/c.db"])
def test_only_a_relative_path_of_a_store_starts_at_the_file(path: Path, store: str):
    assert read(path, SMALL + f'store: "{store}"').store == store


def test_paths_start_at_the_file_and_not_at_the_working_folder(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(path.parent / "models")
    path.write_text(COMPLETE)
    assert read_config(Path("../routes.yaml")).models == str(path.parent / "models")


def test_yamls_anchors_and_merges_are_understood(path: Path):
    text = SMALL.replace("a: {", "a: &a {").replace('b: {model: n, target: "h:2"}', "b: {<<: *a, model: n}")
    arms = read(path, text).routes["r"].arms
    assert arms["b"] == Arm(model="n", target="h:1")


WRONG = {
    "nothing": ("", "expected a mapping with the key routes"),
    "a list": ("- routes", "expected a mapping with the key routes"),
    "no routes": ("listen: 0.0.0.0:1", "required field `routes`"),
    "routes that are empty": ("routes: {}", "routes: at least one route is needed"),
    "routes in a list": ("routes: [r]", "routes: Expected a mapping, got a list"),
    "a route that is nothing": ("routes: {r: }", "routes.r: Expected a mapping, got nothing"),
    "a route without arms": ("routes: {r: {sticky: true}}", "routes.r: .*required field `arms`"),
    "arms that are empty": ("routes: {r: {arms: {}}}", "routes.r.arms: at least one arm is needed"),
    "an arm that is a name": (
        "routes: {r: {arms: {a: m}}}",
        "routes.r.arms.a: Expected a mapping, got a text; write {model: m}",
    ),
    "an arm without model": ("routes: {r: {arms: {a: {target: 'h:1'}}}}", "routes.r.arms.a.model: must not be empty"),
    "an empty model": ("routes: {r: {arms: {a: {model: ''}}}}", "routes.r.arms.a.model: must not be empty"),
    "a target without port": (
        "routes: {r: {arms: {a: {model: m, target: host}}}}",
        "routes.r.arms.a.target: expected HOST:PORT, got 'host'",
    ),
    "a target with too high a port": (
        "routes: {r: {arms: {a: {model: m, target: 'host:65536'}}}}",
        "routes.r.arms.a.target: expected HOST:PORT",
    ),
    "an unknown key": (SMALL + "colour: red", "unknown field `colour`"),
    "an unknown key of a route": (SMALL + "    polcy: {}", "routes.r: .*unknown field `polcy`"),
    "an unknown key of an arm": (
        "routes: {r: {arms: {a: {model: m, address: x}}}}",
        "routes.r.arms.a: .*unknown field `address`",
    ),
    "an unknown key of a policy": (
        SMALL + "    policy: {kind: thompson, gamma: 1}",
        "routes.r.policy: .*unknown field `gamma`",
    ),
    "an unknown key of a guard": (SMALL + "    guard: {second: 1}", "routes.r.guard: .*unknown field `second`"),
    "an unknown key of a reward": (SMALL + "    reward: {max: 1}", "routes.r.reward: .*unknown field `max`"),
    "an unknown key of a metric": (
        SMALL + "    metrics: {pnl: {unit: GBP, scale: 2}}",
        "routes.r.metrics.pnl: .*unknown field `scale`",
    ),
    "a metric without unit": (SMALL + "    metrics: {pnl: {}}", "routes.r.metrics.pnl: .*required field `unit`"),
    "a key given twice": (
        SMALL + "    sticky: true\n    sticky: false",
        r"not YAML: the key 'sticky' is given twice \(line 8, column 5\)$",
    ),
    "a route given twice": ("routes: {r: {}, r: {}}", "not YAML: the key 'r' is given twice"),
    "a key that is a list": ("routes: {[a]: 1}", "not YAML: a key must be a plain text"),
    "a key that is a number": (SMALL + "7: 8", "7 is not a name: .*quoted if numeric"),
    "a key of weights that is a number": (
        SMALL + "    policy: {kind: split, weights: {1: 1}}",
        "routes.r.policy.weights: 1 is not a name",
    ),
    "a key that YAML takes for false": (
        "routes: {no: {}}",
        "routes: False is not a name: YAML reads a plain no, off and",
    ),
    "a key that YAML takes for true": (
        "routes: {on: {}}",
        "routes: True is not a name: YAML reads a plain yes, on and true so; put it in quotes",
    ),
    "no policy's kind": (
        SMALL + "    policy: {kind: roulette}",
        "routes.r.policy.kind: .*'roulette'; there are .*thompson",
    ),
    "a policy without kind": (SMALL + "    policy: {epsilon: 0.1}", "routes.r.policy: .*required field `kind`"),
    "weights of other arms": (
        SMALL + "    policy: {kind: split, weights: {a: 1, c: 1}}",
        r"routes.r.policy: weights: give one for each arm \(a, b\)",
    ),
    "a weight too few": (
        SMALL + "    policy: {kind: split, weights: {a: 1}}",
        r"routes.r.policy: weights: give one for each arm \(a, b\)",
    ),
    "a weight below 0": (
        SMALL + "    policy: {kind: split, weights: {a: -1, b: 1}}",
        "routes.r.policy: weights: must be finite and not below 0",
    ),
    "a weight that is no number": (
        SMALL + "    policy: {kind: split, weights: {a: .nan, b: 1}}",
        "routes.r.policy: weights: must be finite",
    ),
    "weights that are all 0": (
        SMALL + "    policy: {kind: split, weights: {a: 0, b: 0}}",
        "routes.r.policy: weights: one at least must be above 0",
    ),
    "epsilon above 1": (
        SMALL + "    policy: {kind: epsilon_greedy, epsilon: 1.5}",
        "routes.r.policy: epsilon: .*1.5",
    ),
    "epsilon that is no number": (
        SMALL + "    policy: {kind: epsilon_greedy, epsilon: .nan}",
        "routes.r.policy: epsilon",
    ),
    "a prior of 0": (SMALL + "    policy: {kind: thompson, alpha: 0}", "routes.r.policy: alpha: "),
    "a reward upside down": (
        SMALL + "    reward: {low: 1, high: 0}",
        r"routes.r.reward: low \(1.0\) must be below high",
    ),
    "a reward without width": (SMALL + "    reward: {low: 1, high: 1}", "routes.r.reward: low .* must be below high"),
    "a reward that is no number": (SMALL + "    reward: {low: .nan}", "routes.r.reward: low and high must be numbers"),
    "a reward without end": (SMALL + "    reward: {high: .inf}", "routes.r.reward: low and high must be numbers"),
    "a reward whose square is infinite": (
        SMALL + "    reward: {high: 1.0e+200}",
        "routes.r.reward: low and high must be numbers from -1e[+]100 to 1e[+]100",
    ),
    "a text for a number": (SMALL + "    reward: {high: much}", "routes.r.reward.high: Expected a number, got a text"),
    "a number for a text": (SMALL + "    salt: 2024", "routes.r.salt: Expected a text, got a whole number"),
    "a number for yes": (SMALL + "    sticky: 1", "routes.r.sticky: Expected true or false, got a whole number"),
    "a fraction of a failure": (
        SMALL + "    guard: {failures: 1.5}",
        "routes.r.guard.failures: Expected a whole number",
    ),
    "no failures": (SMALL + "    guard: {failures: 0}", "routes.r.guard.failures: must be above 0, got 0"),
    "seconds below 0": (SMALL + "    guard: {seconds: -1}", "routes.r.guard.seconds: must be above 0"),
    "a longest that is shorter": (
        SMALL + "    guard: {seconds: 9, longest_seconds: 8}",
        "routes.r.guard.longest_seconds: must not be below guard.seconds",
    ),
    "a longest that is no number": (
        SMALL + "    guard: {longest_seconds: .nan}",
        "routes.r.guard.longest_seconds: must not be below guard.seconds",
    ),
    "nobody in flight": (SMALL + "    max_in_flight: 0", "routes.r.max_in_flight: must be above 0"),
    "a flush that never comes": (SMALL + "flush_seconds: .inf", "flush_seconds: must be above 0"),
    "a refresh at once": (SMALL + "refresh_seconds: 0", "refresh_seconds: must be above 0"),
    "a process that never ends": (
        SMALL + "linger_seconds: .inf",
        "linger_seconds: must lie between 0 and 600, got inf",
    ),
    "an address without port": (SMALL + "listen: localhost", "listen: expected HOST:PORT, got 'localhost'"),
    "an address that is a port": (SMALL + "admin: ':8082'", "admin: expected HOST:PORT"),
    "a missing folder of models": (SMALL + "models: nowhere", "models: .*nowhere is not a folder"),
    "a number that nothing can hold": (
        SMALL + f"    guard: 1{'0' * 400}",
        "routes.r.guard: Expected a mapping, got a whole number",
    ),
    "models that no folder can be": (
        SMALL + f"models: {'m' * 300}",
        "models: .*mmm cannot be read: File name too long",
    ),
    "models that are a file": (SMALL + "models: routes.yaml", "models: .*routes.yaml is not a folder"),
    "an arm that needs models": (
        "routes: {r: {arms: {a: {model: m}}}}",
        "models: a folder of models is needed, for the arms without a target: r.a",
    ),
    "a route's name with a slash": ("routes: {a/b: {}}", "routes: 'a/b' is not a name"),
    "a route's name that is too long": (f"routes: {{{'r' * 101}: {{}}}}", "routes: 'rrr.*' is not a name"),
    "an arm's name with a space": ("routes: {r: {arms: {a b: {}}}}", "routes.r.arms: 'a b' is not a name"),
    "an arm's name that is a number": ("routes: {r: {arms: {1: {}}}}", "routes.r.arms: 1 is not a name"),
    "a metric's name that is not English": (
        SMALL + "    metrics: {é: {unit: x}}",
        "routes.r.metrics: 'é' is not a name",
    ),
    "workers that are none": (SMALL + "workers: 0", "workers: must lie between 1 and 256, got 0"),
    "workers that share nothing": (
        SMALL + "workers: 2\nstore: 'memory:'",
        "store: several workers need one that they share, sqlite: or redis:, and not memory:",
    ),
    "what is not YAML": ("routes: [", r"not YAML: while parsing a flow node: expected .* \(line 1, column 10\)$"),
    "YAML that makes objects": ("routes: !!python/object:os.system {}", "not YAML: "),
    "YAML that goes round": ("&a {a: *a}", "not YAML: .*recursive"),
    "what is not text": ("a: b\nroutes: \x07", r"not YAML: special characters are not allowed: '\\x07' \(line 2\)$"),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_with_file_and_key(path: Path, text: str, sentence: str):
    with pytest.raises(ConfigError, match=f"^{path}: .*{sentence}") as refused:
        read(path, text)
    assert (refused.value.code, refused.value.fault) == (Code.FAILED_PRECONDITION, Fault.SERVER)


def test_a_file_that_cannot_be_read_is_named(path: Path):
    with pytest.raises(ConfigError, match=f"^{path}: cannot be read"):
        read_config(path)
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(ConfigError, match=f"^{path}: cannot be read"):
        read_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config(path.parent)


def test_a_configuration_cannot_be_changed(path: Path):
    config = read(path, SMALL)
    with pytest.raises(AttributeError):
        config.routes["r"].salt = "other"  # type: ignore[misc]  # that is the test


CONTEXTUAL = (
    SMALL
    + """
    context:
      volatility: {tensor: features, column: 3, mean: 0.2, scale: 0.1, low: 0, high: 5, outside: clip, missing: 0.2}
      size: {parameter: size, missing: refuse}
      region: {metadata: X-Region, levels: [eu, us], unknown: other, missing: zeros}
      tier: {lookup: customers, column: tier, levels: [gold, basic], unknown: basic, missing: basic}
    rules:
      - {name: spike, when: volatility > 0.30, use: a}
      - {name: night, when: "hour < 8 or weekday in ['sat', 'sun']", never: [b]}
      - {name: eu, when: "region == 'eu' and tier != 'gold'", only: [a, b]}
    rule_tests:
      - {given: {volatility: 0.4, size: 1, time: 2026-01-05T14:30:00, metadata: {x: y}}, allowed: [a], rule: spike}
    timezone: Europe/London
features:
  customers: {columns: {tier: text, exposure: number}}
"""
)
"""The same with a context, and rules that read it."""


def test_a_context_with_rules(path: Path):
    config = read(path, CONTEXTUAL)
    route = config.routes["r"]
    assert route.context == {
        "volatility": Feature(
            tensor="features", column=3, mean=0.2, scale=0.1, low=0.0, high=5.0, outside="clip", missing=0.2
        ),
        "size": Feature(parameter="size"),
        "region": Feature(metadata="X-Region", levels=("eu", "us"), unknown="other", missing="zeros"),
        "tier": Feature(lookup="customers", column="tier", levels=("gold", "basic"), unknown="basic", missing="basic"),
    }
    assert route.rules[0] == Rule(name="spike", when="volatility > 0.30", use="a")
    assert route.rule_tests[0].allowed == ("a",)
    assert config.features == {"customers": FeatureTable(columns={"tier": "text", "exposure": "number"})}


WRONG_CONTEXT = {
    "no source": (
        "{parameter: size, missing: refuse}",
        "{}",
        "context.size: a feature comes from one source; give one",
    ),
    "two sources": ("{parameter: size", "{parameter: size, tensor: x", "context.size: a feature comes from one source"),
    "a tensor without column": ("column: 3, mean", "mean", "context.volatility.column: say which column of the tensor"),
    "a column before the first": (
        "column: 3",
        "column: -1",
        "context.volatility.column: say which column of the tensor",
    ),
    "a tensor's column by name": (
        "column: 3",
        "column: x",
        "context.volatility.column: say which column of the tensor",
    ),
    "a table's column by number": (
        "column: tier",
        "column: 1",
        "context.tier.column: say which column of the feature t",
    ),
    "a parameter with columns": (
        "{parameter: size",
        "{parameter: size, column: 1",
        "context.size.column: only a tensor",
    ),
    "a parameter with rows": ("{parameter: size", "{parameter: size, rows: mean", "context.size.rows: only a tensor"),
    "the mean of words": (
        "{metadata: X-Region",
        "{tensor: x, column: 0, rows: mean",
        "context.region.rows: words have no mean",
    ),
    "other rows": ("column: 3", "column: 3, rows: last", "context.volatility.rows: Invalid enum value 'last'"),
    "an unknown key": ("column: 3", "column: 3, colum: 4", "context.volatility: .*unknown field `colum`"),
    "a level twice": ("[eu, us]", "[eu, us, eu]", "context.region.levels: one is given twice"),
    "an empty level": ("[eu, us]", "[eu, '']", "context.region.levels: '' is none"),
    "a level that is a word of ours": ("[eu, us]", "[eu, refuse]", "context.region.levels: 'refuse' is none: .*"),
    "levels that are numbers": ("[eu, us]", "[1, 2]", "context.region.levels.0: Expected a text, got a whole number"),
    "a level too many": (
        "[eu, us]",
        str([f"l{n}" for n in range(1001)]),
        "context.region.levels: at most 1000, got 1001",
    ),
    "words with limits": ("levels: [eu, us]", "levels: [eu, us], low: 0", "context.region.low: a feature with levels"),
    "a missing word that is no level": (
        "missing: zeros",
        "missing: asia",
        'context.region.missing: must be "refuse", "z',
    ),
    "unknown numbers": (
        "{parameter: size",
        "{parameter: size, unknown: zeros",
        "context.size.unknown: only a feature w",
    ),
    "a missing number that is a word": (
        "missing: refuse",
        "missing: zeros",
        'context.size.missing: must be "refuse" or',
    ),
    "a missing number beyond the limits": (
        "missing: 0.2",
        "missing: 6",
        "context.volatility.missing: must be a number fr",
    ),
    "a missing number that is none": ("missing: 0.2", "missing: .nan", "context.volatility.missing: must be a number"),
    "a mean that is none": ("mean: 0.2", "mean: .nan", "context.volatility.mean: must be a number below 1e[+]100"),
    "a scale of 0": ("scale: 0.1", "scale: 0", "context.volatility.scale: must be a number above"),
    "limits upside down": ("low: 0, high: 5", "low: 5, high: 0", "context.volatility.low: must be below high"),
    "limits that are none": ("low: 0", "low: .nan", "context.volatility.low: must be below high"),
    "limits that no policy reads": (
        "high: 5",
        "high: 1.0e+9",
        "context.volatility.low: .* neither farther than 1e[+]09 s",
    ),
    "to clip at no limits": ("low: 0, high: 5, ", "", "context.volatility.outside: nothing is outside"),
    "a feature that is a word of the rules": ("size:", "hour:", "context: 'hour' is no name for a feature: .*hour"),
    "a feature that is a word of Python": ("size:", "lambda:", "context: 'lambda' is no name for a feature"),
    "a feature with a minus": ("size:", "lot-size:", "context: 'lot-size' is no name for a feature"),
    "a rule without effect": (", use: a}", "}", "rules.0: rule 'spike' needs one of use, only and never"),
    "a rule with two effects": ("use: a}", "use: a, never: [b]}", "rules.0: rule 'spike' needs one of use"),
    "a rule for another arm": ("use: a}", "use: c}", r"rules: rule 'spike': 'c' is none of the arms \(a, b\)"),
    "a rule that leaves no arm": ("never: [b]", "never: [b, a]", "rules: rule 'night': never: no arm is left"),
    "a rule's name twice": ("name: night", "name: spike", "rules: the name 'spike' is given twice"),
    "a rule on what is not there": (
        "volatility > 0.30",
        "vola > 0.30",
        "rules: rule 'spike': column 1: there is no 'vola'; there are hour, ",
    ),
    "a rule on a level that is not there": (
        "region == 'eu'",
        "region == 'uk'",
        "rules: rule 'eu': column 11: region is never 'uk'; its levels are eu, other, us",
    ),
    "a rule that is no condition": ("volatility > 0.30", "volatility", "rules: rule 'spike': column 1: a rule needs a"),
    "a rule test without arms": ("allowed: [a]", "allowed: []", "rule_tests.0.allowed: at least one arm is needed"),
    "another time zone": (
        "Europe/London",
        "Europe/Lodnon",
        "timezone: there is no time zone 'Europe/Lodnon'; right are UTC",
    ),
    "a time zone that is a path": ("Europe/London", "../etc/passwd", "timezone: there is no time zone"),
}


@pytest.mark.parametrize(("right", "wrong", "sentence"), WRONG_CONTEXT.values(), ids=WRONG_CONTEXT.keys())
def test_a_wrong_context_is_refused_with_file_and_key(path: Path, right: str, wrong: str, sentence: str):
    assert right in CONTEXTUAL
    with pytest.raises(ConfigError, match=f"^{path}: routes.r.{sentence}"):
        read(path, CONTEXTUAL.replace(right, wrong, 1))


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        (
            "customers: {c",
            "clients: {c",
            "routes.r.context.tier.lookup: there is no feature table 'customers'; there are c",
        ),
        ("tier: text", "rank: text", "routes.r.context.tier.column: table 'customers' has exposure, rank"),
        (
            "tier: text",
            "tier: number",
            "routes.r.context.tier.column: tier of table 'customers' is a number, and a feature w",
        ),
        ("tier: text, exposure: number", "", "features.customers.columns: at least one is needed"),
        (
            "exposure: number",
            "my-exposure: number",
            "features.customers.columns: 'my-exposure' must be made of letters",
        ),
        ("exposure: number", "exposure: date", "features.customers.columns.exposure: Invalid enum value 'date'"),
    ],
)
def test_a_wrong_feature_table_is_refused_with_file_and_key(path: Path, right: str, wrong: str, sentence: str):
    assert right in CONTEXTUAL
    with pytest.raises(ConfigError, match=f"^{path}: {sentence}"):
        read(path, CONTEXTUAL.replace(right, wrong, 1))


def test_every_policy_can_be_configured(path: Path):
    assert set(KINDS) == set(POLICIES)
    for kind in KINDS:
        route = read(path, CONTEXTUAL.replace("    context:", f"    policy: {{kind: {kind}}}\n    context:")).routes[
            "r"
        ]
        assert type(route.build_policy()) is POLICIES[kind]


def test_a_policy_that_reads_a_context_needs_one(path: Path):
    for kind in "linear_thompson", "linucb", "squarecb":
        with pytest.raises(ConfigError, match=f"routes.r.policy: {kind} reads a context, and the route declares none"):
            read(path, SMALL + f"    policy: {{kind: {kind}}}")


def test_a_policy_reads_so_many_columns_and_no_more():
    schema = Schema(columns=("x",) * 201, mean=(0.0,) * 201, scale=(1.0,) * 201)
    with pytest.raises(ValueError, match="linucb reads up to 200 columns of a context, and there are 201"):
        LinUCBPolicy().build(["a"], schema)


def test_a_policys_settings_are_the_defaults_of_the_policy():
    schema = schema_of({"x": Feature(parameter="x", mean=1.0, scale=2.0), "y": Feature(parameter="y")})
    constants = {"features": 2, "mean": (1.0, 0.0), "scale": (2.0, 1.0)}
    for kind in get_args(AnyPolicy):
        if kind is not SplitPolicy:
            needs = constants if issubclass(kind, ContextualPolicy) else {}
            assert kind().build(["a", "b"], schema) == POLICIES[kind.__struct_config__.tag](**needs)
