"""What every part of the configuration is, and what its values are checked by."""

from __future__ import annotations

import math
import re
from typing import Annotated

import msgspec

GREATEST = 1e100
"""Rewards and metrics lie within ± this: the sums of their squares must stay finite."""

_LAST_PORT = 65535

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")

Name = Annotated[str, msgspec.Meta(pattern=NAME.pattern)]
"""Of routes, arms, metrics, features: it becomes a metric's label and a part of keys."""


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every part of the configuration is: immutable, and strict about its keys.

    Its `__post_init__` raises ValueError("KEY: SENTENCE") for a value that cannot be served; whoever reads the file
    puts the place in front.
    """


def check_positive(**values: float) -> None:
    """Raises ValueError naming the first that is not above 0 and finite."""
    for key, value in values.items():
        if not 0 < value < math.inf:  # also for an integer that no float can hold
            raise ValueError(f"{key}: must be above 0, got {value}")


def check_share(**values: float) -> None:
    """Raises ValueError naming the first that does not lie in [0, 1]."""
    for key, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{key}: must lie between 0 and 1, got {value}")


def check_address(**values: str) -> None:
    """Raises ValueError naming the first that is not HOST:PORT."""
    for key, value in values.items():
        host, _, port = value.rpartition(":")
        if not (host and port.isdecimal() and int(port) <= _LAST_PORT):
            raise ValueError(f"{key}: expected HOST:PORT, got {value!r}")
