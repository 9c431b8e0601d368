"""Other bandit libraries behind one interface: one file each, imported only where it is asked for.

One more peer is one more file with SETTINGS, LIKE and a `Peer` that is a Learner, and one line in LIBRARIES.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

from bandits import Vector

LIBRARIES = {"Vowpal Wabbit": "vw", "mabwiser": "mab_wiser", "river": "river_bandit"}
"""Each peer's name, and its module here."""


class Learner(Protocol):
    """Something that chooses arms and learns from what the chosen ones earn."""

    def prepared(self, context: Vector | None) -> Any:
        """The context in the library's own form: text, a dict, a row."""

    def choose(self, context: Any) -> tuple[int, float]:
        """An arm for a prepared context, and the probability it had; 1 where the library does not tell."""

    def learn(self, context: Any, arm: int, reward: float, propensity: float) -> None:
        """A reward in [0, 1] of the arm that was chosen for a prepared context."""


def module(library: str) -> ModuleType:
    """The module of a peer. Its SETTINGS are the grid it may choose its best from; LIKE is what is most like ours."""
    return import_module(f"{__name__}.{LIBRARIES[library]}")


def peer(library: str, setting: Any, arms: int, seed: int) -> Learner:
    """A learner of another library that knows nothing yet, for a value of its SETTINGS or LIKE."""
    made: Learner = module(library).Peer(arms, setting, seed)
    return made
