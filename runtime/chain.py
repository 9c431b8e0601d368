"""Several models as one, one after the other: what a step returns is what a later one takes."""

from __future__ import annotations

from protos.errors import FailedPrecondition
from runtime.model import NOTHING, Arrays, Parameters, SharedModel, TensorSpec
from runtime.options import ChainOptions
from runtime.parts import Composite, Members, check_fed


class Chain(Composite):
    """Steps that hand their tensors on by name: preprocess, predict, postprocess.

    A step takes each input from the newest step before it that returns one of the name, else from the request. A step
    of one input takes what the step before it returns, if that is one tensor, whatever its name. The outputs are those
    of the last step.
    """

    def __init__(self, options: ChainOptions, find: Members) -> None:
        super().__init__(options.parts, find)
        self._steps = options.steps
        inputs: dict[str, TensorSpec] = {}
        known: dict[str, TensorSpec] = {}
        before: SharedModel | None = None
        for number, name in enumerate(self._steps):
            step = self._part(name)
            key = f"parameters.extra.steps[{number}]"
            for to, source in _sources(step, before).items():
                if source in known:
                    continue
                known[source] = inputs[source] = next(spec for spec in step.inputs if spec.name == to)
            given = {to: known[source] for to, source in _sources(step, before).items()}
            check_fed(step.inputs, given, key)
            known |= {spec.name: spec for spec in step.outputs}
            before = step
        if before is None:
            raise FailedPrecondition("parameters.extra.steps: name at least one model")
        self.inputs = tuple(inputs.values())
        self.outputs = before.outputs

    async def run(self, arrays: Arrays, parameters: Parameters = NOTHING, deadline: float | None = None) -> Arrays:
        """What the last step answers. Raises the CallError of the step that fails."""
        known = dict(arrays)
        before: SharedModel | None = None
        outputs: Arrays = arrays
        for name in self._steps:
            step = self._part(name)
            given = {to: known[source] for to, source in _sources(step, before).items()}
            outputs = await step.run(given, parameters, deadline)
            known.update(outputs)
            before = step
        return outputs


def _sources(step: SharedModel, before: SharedModel | None) -> dict[str, str]:
    """The name under which each input of a step is known."""
    if before is not None and len(step.inputs) == 1 and len(before.outputs) == 1:
        return {step.inputs[0].name: before.outputs[0].name}
    return {spec.name: spec.name for spec in step.inputs}
