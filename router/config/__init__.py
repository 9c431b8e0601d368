"""The configuration: one YAML file, read into frozen structs. Anything it does not know is refused.

One file a topic; a struct refuses by itself what it cannot serve, and `reader.py` says where that stands.
"""

from __future__ import annotations

from router.config.access import Client, Role, Tls
from router.config.arm import Arm
from router.config.changes import Change, changes
from router.config.guard import Guard
from router.config.policies import (
    AnyPolicy,
    EpsilonGreedyPolicy,
    PlainPolicy,
    SplitPolicy,
    ThompsonPolicy,
)
from router.config.reader import parse_config, read_config
from router.config.reward import Metric, Range, Reward
from router.config.route import KINDS, Route
from router.config.safety import Failover
from router.config.service import Config
from router.config.struct import GREATEST

__all__ = [
    "GREATEST",
    "KINDS",
    "AnyPolicy",
    "Arm",
    "Change",
    "Client",
    "Config",
    "EpsilonGreedyPolicy",
    "Failover",
    "Guard",
    "Metric",
    "PlainPolicy",
    "Range",
    "Reward",
    "Role",
    "Route",
    "SplitPolicy",
    "ThompsonPolicy",
    "Tls",
    "changes",
    "parse_config",
    "read_config",
]
