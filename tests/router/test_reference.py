"""The reference of the configuration: its examples are right, its page is fresh, and what is wrong is told well."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import msgspec
import pytest
import yaml

from router.__main__ import main
from router.config import KINDS, Config, Route, read_config
from router.config.reference import EXAMPLES, PAGE, page, structs
from router.errors import ConfigError
from tests.certificates import Authority

FILES = sorted(EXAMPLES.glob("*.yaml"))


def placed(example: Path, folder: Path) -> Path:
    """An example in a folder that has all that it names."""
    path = folder / example.name
    path.write_text(example.read_text("utf-8"), "utf-8")
    (folder / "models").mkdir()
    named = texts(yaml.safe_load(path.read_text("utf-8")))
    for text in named:
        if text.startswith("secrets/"):
            (folder / text).parent.mkdir(exist_ok=True)
            (folder / text).touch()
    if certificates := {Path(text) for text in named if text.startswith("certificates/")}:
        (folder / "certificates").mkdir()
        authority = Authority(folder / "certificates")
        authority.sign("router")
        for authorities in certificates - {Path("certificates/router.pem"), Path("certificates/router.key")}:
            shutil.copy(authority.certificate, folder / authorities)
    arms = [arm for route in read_config(path).routes.values() for arm in route.arms.values()]
    for each in [each for arm in arms for each in (arm, *arm.inline.values()) if each.the_kind == "local"]:
        model_at(folder / "models" / each.model / each.version)
    return path


def model_at(folder: Path) -> None:
    """What looks like a model as long as nobody loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-settings.json").write_text('{"implementation": "runtime.OnnxModel"}')


def texts(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for each in value.values() for text in texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts(each)]
    return [value] if isinstance(value, str) else []


def keys(value: object) -> set[str]:
    if isinstance(value, dict):
        return {str(key) for key in value}.union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.stem)
def test_an_example_is_right_and_its_rules_pass_their_tests(
    example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = placed(example, tmp_path)
    assert main(["check", str(path)]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith(f"{path} is right; next: croupier serve {path}\n")
    assert printed.err == ""


@pytest.mark.parametrize("example", FILES, ids=lambda path: path.stem)
def test_an_example_begins_with_its_title(example: Path):
    first, rest = example.read_text("utf-8").split("\n", 1)
    assert first.startswith("# ")
    assert not rest.startswith("#")
    assert f"### {first[2:]}\n\n```yaml\n{rest.strip()}\n```" in PAGE.read_text("utf-8")


def test_a_rule_test_that_fails_is_told_by_check_with_file_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = placed(EXAMPLES / "3_context.yaml", tmp_path)
    path.write_text(path.read_text().replace("volatility > 0.30", "volatility > 0.40"))
    assert main(["check", str(path)]) == 1
    assert capsys.readouterr().err == (
        f"croupier: {path}: routes.momentum.rule_tests[0]: rule 'retail' decides, and robust, slow are allowed; "
        "expected were robust\n"
    )


def test_the_page_is_fresh():
    assert PAGE.read_text("utf-8") == page(), "python -m router.config.reference"


@pytest.mark.parametrize("struct", structs(Config), ids=lambda struct: struct.__name__)
def test_the_page_has_every_key_and_says_something_about_it(struct: type[msgspec.Struct]):
    (section,) = [each for each in PAGE.read_text("utf-8").split("\n### ") if each.startswith(f"{struct.__name__}\n")]
    told = {cells[1]: cells[4] for line in section.splitlines() if len(cells := re.split(r"(?<!\\)\|", line)) == 6}
    for field in struct.__struct_fields__:
        if field != "files_digest":  # which is not for people
            assert told[f" `{field}` "].strip(), f"{struct.__name__}.{field} has no comment"


def test_the_page_speaks_of_yaml_and_not_of_python():
    text = PAGE.read_text("utf-8")
    for word in ("<class", "typing", "NoneType", "frozenset", "tuple[", "dict[", "float", " | None"):
        assert word not in text


def test_the_examples_show_nearly_everything():
    """What nobody shows, nobody finds."""
    shown = set().union(*(keys(yaml.safe_load(path.read_text("utf-8"))) for path in FILES))
    unseen = (set(Config.__struct_fields__) | set(Route.__struct_fields__)) - shown
    assert unseen == {"flush_seconds", "refresh_seconds", "request_log", "salt"}


# ------------------------------------------------------------------------------------------------ what is wrong

ROUTE = """
routes:
  r:
    arms:
      a: {model: m, target: "h:1"}
      b: {model: n, target: "h:2"}
"""
"""A right one. What is indented by four goes into its route."""

WRONG = {
    "a key that is misspelt": (
        "    guardrials: {}",
        "routes.r: Object contains unknown field `guardrials`; did you mean `guardrails`?",
    ),
    "a policy that is misspelt": (
        "    policy: {kind: thomson}",
        f"routes.r.policy.kind: Invalid value 'thomson'; there are {', '.join(KINDS)}",
    ),
    "a policy that is a word": (
        "    policy: thompson",
        "routes.r.policy: Expected a mapping, got a text; write {kind: thompson}",
    ),
    "a half-life that is a word": (
        "    half_life_seconds: long",
        "routes.r.half_life_seconds: Expected a number or nothing, got a text",
    ),
    "a metric that is its unit": (
        "    metrics: {pnl: GBP}",
        "routes.r.metrics.pnl: Expected a mapping, got a text; write {unit: GBP}",
    ),
    "a list for a choice": (
        "    context: {size: {parameter: size, missing: [1]}}",
        "routes.r.context.size.missing: Expected a number or a text, got a list",
    ),
    "a policy without its context": (
        "    policy: {kind: linucb}",
        "routes.r.policy: linucb reads a context, and the route declares none; give it the key context",
    ),
    "a context from two sources": (
        "    context: {region: {parameter: region, metadata: x-region}}",
        "routes.r.context.region: a feature comes from one source; give one of tensor, parameter, metadata, lookup",
    ),
    "a column by name": (
        "    context: {volatility: {tensor: features, column: volatility}}",
        "routes.r.context.volatility.column: say which column of the tensor, counted from 0",
    ),
    "a level that there is not": (
        "    context: {region: {parameter: region, levels: [eu, us], missing: asia}}",
        'routes.r.context.region.missing: must be "refuse", "zeros" or one of the levels eu, us',
    ),
    "a feature table that is not declared": (
        "    context: {segment: {lookup: customers, column: segment, levels: [desk]}}",
        "routes.r.context.segment.lookup: there is no feature table 'customers'; there are none",
    ),
    "a feature table's type": (
        "features: {customers: {columns: {tenure: int}}}",
        "features.customers.columns.tenure: Invalid enum value 'int'; there are number, text",
    ),
    "a rule about what is not known": (
        '    context: {spread: {parameter: s}}\n    rules: [{name: storm, when: "sread > 0.3", use: a}]',
        "routes.r.rules: rule 'storm': column 1: there is no 'sread'; there are hour, metadata, spread, unit, weekday",
    ),
    "a rule that could never hold": (
        """
    context: {region: {parameter: region, levels: [eu, us]}}
    rules: [{name: far, when: "region == 'asia'", use: a}]
""",
        "routes.r.rules: rule 'far': column 11: region is never 'asia'; its levels are eu, us",
    ),
    "a rule for an arm that there is not": (
        '    rules: [{name: night, when: "hour > 22", use: c}]',
        "routes.r.rules: rule 'night': 'c' is none of the arms (a, b)",
    ),
    "a rule that says nothing": (
        '    rules: [{name: night, when: "hour > 22"}]',
        "routes.r.rules.0: rule 'night' needs one of use, only and never",
    ),
    "a canary without an end": (
        "    canary: {arm: b, steps: [{share: 0.1}]}",
        "routes.r.canary.steps.0.seconds: say how long a step lasts, by seconds, calls or rewards",
    ),
    "a canary that is the champion": (
        "    canary: {arm: a, steps: [{share: 0.1, calls: 9}]}",
        "routes.r.canary: arm: 'a' is the champion; a canary is another arm",
    ),
    "a canary that nothing could promote": (
        "    canary: {arm: b, objective: guardrails, steps: [{share: 0.1, calls: 9}]}",
        "routes.r.canary: objective: there are no guardrails with the action roll_back that could be kept",
    ),
    "a guardrail of a canary that there is not": (
        "    guardrails: {failing: {watch: errors, most: 0.05, action: roll_back}}",
        "routes.r.guardrails: failing: the action roll_back is for a route with a canary",
    ),
    "a guardrail in percent": (
        "    guardrails: {failing: {watch: errors, most: 5}}",
        "routes.r.guardrails.failing.most: must lie between 0 and 1, got 5.0",
    ),
    "a guardrail that watches nothing": (
        "    guardrails: {failing: {watch: error, most: 0.05}}",
        "routes.r.guardrails.failing.watch: Invalid value 'error'; there are errors, latency, reward, metric",
    ),
    "a guardrail of a metric that is not declared": (
        "    guardrails: {loss: {watch: metric, metric: pnl, range: {low: -1}, bound: 0}}",
        "routes.r.guardrails: loss: the route declares the metrics (none), not 'pnl'",
    ),
    "a default without a window": (
        "    reward: {default: 0}",
        "routes.r.reward.default: belongs to window_seconds, which is not given",
    ),
    "a default out of range": (
        "    reward: {window_seconds: 60, default: -1}",
        "routes.r.reward.default: must lie between low and high, got -1.0",
    ),
    "a window that is over at once": (
        "    reward: {window_seconds: 0}",
        "routes.r.reward.window_seconds: must be above 0, got 0.0",
    ),
    "a quantile in percent": (
        "    reward: {score: {kind: pinball, quantile: 90, worst: 1}}",
        "routes.r.reward.score.quantile: must lie between 0 and 1, got 90.0",
    ),
    "a scoring rule that there is not": (
        "    reward: {score: {kind: sharpe}}",
        "routes.r.reward.score.kind: Invalid value 'sharpe'; there are accuracy, brier, log_loss, pinball, pnl",
    ),
    "a floor that leaves nothing to deal": (
        "    floor: 0.5",
        "routes.r.floor: must be at least 0 and below 0.5, for an equal share of 2 leaves nothing to learn; got 0.5",
    ),
    "a floor of shares that do not answer": (
        "    shadows: {b: {}}\n    floor: 1",
        "routes.r.floor: must be at least 0 and below 1, for an equal share of 1 leaves nothing to learn; got 1.0",
    ),
    "a route that begins with itself": (
        "    warm_start: {route: r}",
        "routes.r.warm_start.route: a route knows its own rewards, and they would count twice; name another route",
    ),
    "a floor and a budget": (
        "    floor: 0.1\n    budget: {share: 0.05}",
        "routes.r.budget: a floor would take what the budget does not bear; set one of the two",
    ),
    "a schedule in no time zone": (
        '    schedule: {moments: [{at: "2026-03-02T08:00:00", shares: {a: 1}}]}',
        'routes.r.schedule.moments.0.at: Expected a time with a zone, such as "2026-03-02T08:00:00+01:00"',
    ),
    "a schedule by the day": (
        "    schedule: {moments: [{at: 2026-03-02, shares: {a: 1}}]}",
        'routes.r.schedule.moments.0.at: Expected a time with a zone, such as "2026-03-02T08:00:00+01:00", got a day',
    ),
    "a schedule of a bandit": (
        '    policy: {kind: thompson}\n    schedule: {moments: [{at: "2026-03-02T08:00:00Z", shares: {a: 1}}]}',
        "routes.r.schedule: it moves the shares of a split, so policy must be {kind: split}, without weights",
    ),
    "a shadow that has to answer": ("    shadows: {a: {}}", "routes.r.shadows: a is the champion, and has to answer"),
    "a metric that is the reward": (
        "    metrics: {reward: {unit: GBP}}",
        "routes.r.metrics: 'reward' is no name for a metric: feedback has a field of that name",
    ),
    "a client without a key": (
        "clients: {desk: {roles: [infer]}}",
        "clients.desk.key_sha256: a client is known by this or by certificate, by one of the two",
    ),
    "a role that there is not": (
        "clients: {desk: {roles: [admin]}}",
        "clients.desk.roles.0: Invalid enum value 'admin'; there are infer, feedback, read, operate",
    ),
    "a client's certificate that nobody checks": (
        "clients: {desk: {certificate: CN=desk}}",
        "clients: desk is known by a certificate, so tls.client_ca must say who signs them",
    ),
    "a certificate that is not there": (
        "tls: {certificate: router.pem, key: router.key}",
        "tls.certificate: {folder}/router.pem is not a file",
    ),
    "a collector that is an address": (
        "tracing: localhost:4317",
        "tracing: Expected a mapping or nothing, got a text; write {collector: localhost:4317}",
    ),
    "one address for two ports": (
        "listen: 0.0.0.0:9000\nadmin: 127.0.0.1:9000",
        "admin: 127.0.0.1:9000 is taken by listen (0.0.0.0:9000); give it another port",
    ),
    "several processes without a store": (
        "store: 'memory:'\nworkers: 4",
        "store: several workers need one that they share, sqlite: or redis:, and not memory:",
    ),
}

WRONG_ARMS = {
    "an arm of two kinds": (
        "{model: m, retries: 3}",
        "retries: an arm in this process has none; it takes model, version",
    ),
    "a mesh without an address": (
        "{model: m, kind: seldon}",
        "kind: seldon needs the mesh for a target, HOST:PORT, and no url or ensemble",
    ),
    "a certificate without its key": (
        '{model: m, target: "h:1", tls: {certificate: router.pem}}',
        "tls.key: a certificate and its key go together; give both or neither",
    ),
    "an authority that is not there": (
        '{model: m, target: "h:1", tls: {ca: ca.pem}}',
        "tls.ca: {folder}/ca.pem is not a file",
    ),
    "certificates over http": ('{model: m, url: "http://h:1", tls: {}}', "tls: the url says http; write https"),
}


def refused(folder: Path, text: str) -> str:
    path = folder / "routes.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as error:
        read_config(path)
    return str(error.value)


@pytest.mark.parametrize(("text", "sentence"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_configuration_gives_a_good_sentence(tmp_path: Path, text: str, sentence: str):
    expected = sentence.replace("{folder}", str(tmp_path))
    assert refused(tmp_path, ROUTE + text) == f"{tmp_path / 'routes.yaml'}: {expected}"


@pytest.mark.parametrize(("arm", "sentence"), WRONG_ARMS.values(), ids=WRONG_ARMS.keys())
def test_a_wrong_arm_gives_a_good_sentence(tmp_path: Path, arm: str, sentence: str):
    expected = sentence.replace("{folder}", str(tmp_path))
    text = f"routes: {{r: {{arms: {{a: {arm}}}}}}}"
    assert refused(tmp_path, text) == f"{tmp_path / 'routes.yaml'}: routes.r.arms.a.{expected}"
