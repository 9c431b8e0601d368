"""A `.pt2` model as it runs: flat lists of tensors in and out, and what is known of their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import TreeSpec

from protos.errors import FailedPrecondition
from runtime.words import quoted

Names = Sequence[str | None]  # by position; None where only the order is known


@dataclass(frozen=True, slots=True)
class Program:
    """Tensors in, tensors out, by position."""

    run: Callable[[list[Tensor]], Sequence[Any]]
    inputs: Names
    outputs: Names
    writes: bool  # perhaps to its inputs
    platform: str
    memory: int = 0  # bytes that it holds
    gradients: Callable[..., Sequence[Any]] | None = None  # `run` with them, tensors one by one; not of compiled code
    free: Callable[[], None] = lambda: None  # gives back what it holds; it is not run again

    def input_order(self, declared: list[str]) -> list[str]:
        """The declared inputs in the order of the program's: by name, where there is one that is declared.

        Raises FailedPrecondition where others are declared than it takes.
        """
        known = set(self.inputs) - {None}
        if known.isdisjoint(declared):
            known = set()
        unnamed = (name for name in declared if name not in known)
        order = [name if name in known and name is not None else next(unnamed, "") for name in self.inputs]
        if sorted(order) != sorted(declared):
            raise FailedPrecondition(f"inputs: {quoted(declared)} declared; forward takes {_told(self.inputs)}")
        return order

    def output_positions(self, declared: list[str]) -> list[int]:
        """Where each declared output is: by name where forward returns a dict, else in order.

        Raises FailedPrecondition where it returns none of that name, or another number of them.
        """
        if None in self.outputs:
            positions = list(range(len(self.outputs)))
        else:
            positions = [self.outputs.index(name) for name in declared if name in self.outputs]
        if len(positions) != len(declared):
            raise FailedPrecondition(f"outputs: {quoted(declared)} declared; forward returns {_told(self.outputs)}")
        return positions


def names_of(spec: TreeSpec, verb: str) -> list[str | None]:
    """The names of tensors that lie side by side: a dict's keys, and None for each of a tuple or a list.

    Raises FailedPrecondition for tensors inside of others; `verb` says whether forward takes or returns them.
    """
    if spec.is_leaf():
        return [None]
    children = spec.children()
    if not all(child.is_leaf() for child in children):
        raise FailedPrecondition(f"forward {verb} tensors inside of lists or dicts; only flat ones are served")
    return list(spec.context) if spec.type is dict else [None] * len(children)


def _told(names: Names) -> str:
    return quoted(names) if None not in names else f"{len(names)} tensors, known by their order"
