"""The same models as classes of ours."""

from __future__ import annotations

from typing import Any

Arrays = dict[str, Any]


class Echo:
    """y = x."""

    def predict(self, inputs: Arrays) -> Arrays:
        return {"y": inputs["x"]}


Text = Echo


class Sum:
    """Two inputs, two outputs."""

    def predict(self, inputs: Arrays) -> Arrays:
        return {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]}


class Choosy(Echo):
    """y = x, and an error for more than 1."""

    def predict(self, inputs: Arrays) -> Arrays:
        if (inputs["x"] > 1).any():
            raise ValueError("too large")
        return super().predict(inputs)
