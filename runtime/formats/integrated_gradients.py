"""Integrated gradients by Captum: the gradient of a target along the straight way from a baseline to the input.

M. Sundararajan, A. Taly, Q. Yan, "Axiomatic Attribution for Deep Networks" (2017, arXiv:1703.01365). Needs the extra
`explain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from protos.errors import CallError, FailedPrecondition, Internal, InvalidArgument
from protos.tensors import FLOATS
from runtime.explain import BASELINE, DELTA, TARGET, Question, attributions
from runtime.formats.pytorch import device_of, reason, tensor_of, use_threads
from runtime.model import Arrays, Model, TensorSpec
from runtime.settings import ModelSettings
from runtime.words import quoted

try:
    from captum.attr import IntegratedGradients as Captum
except ImportError as missing:
    raise FailedPrecondition("explanations need Captum: pip install 'croupier[explain]'") from missing


class IntegratedGradients:
    """Explains a model that `function` is, on tensors by name. `baseline` is by input; zero where it says nothing."""

    def __init__(
        self,
        function: Callable[[Mapping[str, Tensor]], Mapping[str, Any]],
        model: Model,
        settings: ModelSettings,
        baseline: Mapping[str, Any],
    ) -> None:
        self._function = function
        self._device = device_of(settings)
        self._most_rows = settings.max_batch_size
        self._floats = [spec.name for spec in model.inputs if spec.datatype in FLOATS]
        self._held = [spec.name for spec in model.inputs if spec.datatype not in FLOATS]
        if not self._floats:
            raise FailedPrecondition("no input is of floating point, and integers have no gradients")
        if unknown := baseline.keys() - set(self._floats):
            raise FailedPrecondition(
                f"baseline: {min(unknown)!r} is no floating-point input; those are {quoted(self._floats)}"
            )
        self._baseline = {
            spec.name: _numbers(spec, baseline.get(spec.name, 0.0)) for spec in model.inputs if spec.datatype in FLOATS
        }

    def explain(self, arrays: Arrays, question: Question, proceed: Callable[[], None]) -> Arrays:
        """Attributions, baseline and delta, as `runtime.explain` says. Raises Internal with what PyTorch says."""
        use_threads(1)  # of the cores that serve, an explanation takes one
        rows = len(arrays[self._floats[0]])
        parts = []
        try:
            for start in range(0, rows, self._most_rows) or [0]:
                some = slice(start, start + self._most_rows)
                parts.append(self._explain({name: array[some] for name, array in arrays.items()}, question, proceed))
        except CallError:
            raise
        except Exception as error:
            raise Internal(reason(error)) from error
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _explain(self, arrays: Arrays, question: Question, proceed: Callable[[], None]) -> Arrays:
        tensors = {name: tensor_of(array, self._device, writes=True) for name, array in arrays.items()}
        inputs = tuple(tensors[name] for name in self._floats)
        held = tuple(tensors[name] for name in self._held)
        starts = tuple(self._start(name, tensors[name]) for name in self._floats)

        def target(*given: Tensor) -> Tensor:
            proceed()
            return self._target(dict(zip([*self._floats, *self._held], given, strict=True)), question)

        with torch.no_grad():
            start, end = (target(*each, *held).double() for each in (starts, inputs))
        if len(inputs[0]):
            parts = Captum(target).attribute(
                inputs,
                starts,
                additional_forward_args=held or None,
                n_steps=question.steps,
                internal_batch_size=self._most_rows,
            )
        else:
            parts = inputs  # there is nothing to divide by nothing
        total = sum(_by_row(_wide(each)) for each in parts)
        told = {attributions(name): _wide(each) for name, each in zip(self._floats, parts, strict=True)}
        told |= {BASELINE: start, DELTA: total - (end - start)}
        return {name: tensor.detach().cpu().numpy() for name, tensor in told.items()}

    def _start(self, name: str, tensor: Tensor) -> Tensor:
        baseline = self._baseline[name].to(tensor)
        try:
            return baseline.expand_as(tensor)
        except RuntimeError:
            raise InvalidArgument(
                f"the baseline of input {name!r} has shape {list(baseline.shape)}, a row of the request "
                f"{list(tensor.shape[1:])}"
            ) from None

    def _target(self, tensors: Mapping[str, Tensor], question: Question) -> Tensor:
        # A copy, as a model may write to what it is given, and must not to what gradients are taken by.
        with _without_cudnn(self._device):
            value = self._function({name: tensor.clone() for name, tensor in tensors.items()})[question.output]
        try:
            target: Tensor = value[(slice(None), *question.place)]
        except IndexError:
            raise InvalidArgument(
                f"parameter {TARGET!r}: there is no {question.target}; output {question.output!r} has the shape "
                f"{list(value.shape)} here"
            ) from None
        if torch.is_grad_enabled():
            if not target.requires_grad:
                raise InvalidArgument(
                    f"parameter {TARGET!r}: {question.target} has no gradients: it goes by steps, or by no input"
                )
            # Nothing of every input, as gradients are refused by one that the target does not depend on.
            for name in self._floats:
                target = target + tensors[name][:0].sum()
        return target


def _numbers(spec: TensorSpec, told: Any) -> Tensor:
    try:
        numbers = torch.from_numpy(np.array(told, np.float64))
    except (TypeError, ValueError):
        raise FailedPrecondition(
            f"baseline.{spec.name}: it must be a number, or lists of numbers of one shape"
        ) from None
    if numbers.ndim >= len(spec.shape):
        raise FailedPrecondition(
            f"baseline.{spec.name}: it has the shape {list(numbers.shape)}; it must fit a row, {list(spec.shape[1:])}"
        )
    return numbers


def _wide(tensor: Tensor) -> Tensor:
    """FP16 and BF16 as FP32: an attribution may be far smaller than its input."""
    return tensor if tensor.dtype == torch.double else tensor.float()


def _by_row(tensor: Tensor) -> Tensor:
    return tensor.double().sum(tuple(range(1, tensor.ndim))) if tensor.ndim > 1 else tensor.double()


@contextmanager
def _without_cudnn(device: torch.device) -> Iterator[None]:
    """Has PyTorch's own kernels run on a GPU: cuDNN's recurrent networks have gradients in training only.

    The switch is the process's: another model's run may meanwhile take them too, which is slower and no less right.
    """
    if device.type == "cpu":
        yield
        return
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before
