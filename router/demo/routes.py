"""The demo's configuration: the same arms behind three routes, which differ in how they choose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

PLAIN, CONTEXTUAL, RULES = "volatility", "volatility_context", "volatility_rules"
"""A bandit that sees rewards only; one that sees what is known today as well; and rules that see no reward."""

ROUTES = {PLAIN: "bandit", CONTEXTUAL: "contextual bandit", RULES: "rules"}
"""How each chooses, in a word or two."""

PNL = "pnl"
"""The metric that clients report beside the reward: the day's result of their position, in basis points."""

CALM, TURBULENT = "calm", "turbulent"
"""The specialists, which the rules choose between."""

POLICY = {"kind": "linear_thompson"}
"""Of the contextual route, its settings the default ones.

On the validation years no contextual policy could be told from another, nor from Thompson sampling.
"""

FLOOR = 0.02
"""The least probability of an arm on the routes that learn: what their logs tell about other policies hangs on it.

Six arms that differ by two points or so pay a tenth of a point for it.
"""

POLICY_FILE = "policy.yaml"
"""POLICY, beside the configuration, for `croupier evaluate`."""

# The specialists were trained on either side of 0: on months whose range lay above the year's median, and the others.
# So the boundary is their training's own, and nothing about it was searched for.
_CHOICE = {
    "rules": [
        {"name": "rough", "when": "month > 0", "use": TURBULENT},
        {"name": "quiet", "when": "month <= 0", "use": CALM},
    ],
    "rule_tests": [
        {"given": {"day": 0, "week": 0, "month": 0.3}, "allowed": [TURBULENT], "rule": "rough"},
        {"given": {"day": 2, "week": 1, "month": -0.3}, "allowed": [CALM], "rule": "quiet"},
        {"given": {"day": 0, "week": 0, "month": 0}, "allowed": [CALM], "rule": "quiet"},
    ],
}

_HEADER = """\
# Written by `make demo`. Constants of the context are those of the training years, 2000-2008.
# The plain route reads the context too: not to choose, but for its log to say what a policy that reads it would do.
"""


def write_config(
    folder: Path, arms: Sequence[str], context: Mapping[str, Mapping[str, Any]], *, listen: str, admin: str
) -> Path:
    """Writes the configuration of the demo, and the policy's own file; returns the former.

    The arms are models of this process, the specialists among them.
    """
    shared = {
        "context": context,
        "reward": {"low": 0, "high": 1},
        "metrics": {PNL: {"unit": "basis points"}},
        "arms": {arm: {"model": arm} for arm in arms},
    }
    config = {
        "listen": listen,
        "admin": admin,
        "models": "models",
        "store": "sqlite:croupier.db",
        "refresh_seconds": 0.05,  # years pass in seconds here
        "routes": {
            PLAIN: {"policy": {"kind": "thompson"}, "floor": FLOOR, **shared},
            CONTEXTUAL: {"policy": POLICY, "floor": FLOOR, **shared},
            RULES: {**_CHOICE, **shared},
        },
    }
    path = folder / "croupier.yaml"
    path.write_text(_HEADER + _in_yaml(config), "utf-8")
    (folder / POLICY_FILE).write_text(_in_yaml(POLICY), "utf-8")
    return path


class _Plainly(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        """Writes what several routes share once for each, without YAML's references."""
        return True


def _in_yaml(settings: Mapping[str, Any]) -> str:
    return yaml.dump(settings, Dumper=_Plainly, sort_keys=False, default_flow_style=None, width=120)
