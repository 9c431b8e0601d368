"""Several arms as one: each is asked, and what they answer is combined."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from protos.errors import CallError, Code, FailedPrecondition, UpstreamError
from protos.messages import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from protos.tensors import FLOATS, add_outputs, outputs_of
from router.call import Call, Reply
from router.upstreams import Upstream

_Arrays: TypeAlias = NDArray[Any]  # [members, ...]


class Ensemble:
    """Members that take the same request and give the same outputs. Fails when one of them does.

    "mean" is for floating-point outputs: their mean by weight. "vote" is for all others: in each place the value that
    has most weight behind it, and of equal ones that of the member named first.
    """

    def __init__(self, members: Mapping[str, Upstream], weights: Mapping[str, float], combine: str) -> None:
        """`weights` are above 0, by member; `combine` is "mean" or "vote"."""
        self._members = members
        self._weights = np.array([weights[name] for name in members])
        self._combine = combine

    async def __call__(self, call: Call) -> Reply:
        replies = await _all_of([upstream(_own(call)) for upstream in self._members.values()])
        answers = dict(
            zip(self._members, (ModelInferResponse.FromString(reply.body) for reply in replies), strict=True)
        )
        first, *others = answers
        kinds = _kinds(answers[first])
        for name in others:
            if _kinds(answers[name]) != kinds:
                raise UpstreamError(
                    f"the members of the ensemble do not agree: {first} answers {kinds},"
                    f" and {name} {_kinds(answers[name])}",
                    Code.INTERNAL,
                )
        self._check({name: datatype for name, (datatype, _) in kinds.items()})
        arrays = [outputs_of(answer) for answer in answers.values()]
        combined = {name: self._combined(np.stack([each[name] for each in arrays])) for name in kinds}
        response = ModelInferResponse(model_name=self._combine, id=call.request.id)
        add_outputs(response, combined, raw=True)
        return Reply(response.SerializeToString(), [said for reply in replies for said in reply.metadata])

    async def metadata(self) -> ModelMetadataResponse:
        told = await _all_of([upstream.metadata() for upstream in self._members.values()])
        for name, other in zip(self._members, told, strict=True):
            for what, one, two in ("takes", told[0].inputs, other.inputs), ("gives", told[0].outputs, other.outputs):
                if (here := _declared(one)) != (there := _declared(two)):
                    first = next(iter(self._members))
                    raise FailedPrecondition(f"ensemble: {first} {what} {here}, but {name} {what} {there}")
        self._check({output.name: output.datatype for output in told[0].outputs})
        described = ModelMetadataResponse(name=self._combine, platform="croupier_ensemble")
        described.inputs.extend(told[0].inputs)
        described.outputs.extend(told[0].outputs)
        return described

    async def ready(self) -> bool:
        return all(await asyncio.gather(*(upstream.ready() for upstream in self._members.values())))

    async def close(self) -> None:
        """Nothing: its members are closed by who opened them."""

    def _check(self, datatypes: Mapping[str, str]) -> None:
        for name, datatype in datatypes.items():
            if (datatype in FLOATS) != (self._combine == "mean"):
                meant = "vote, for output {!r} is {}" if self._combine == "mean" else "mean, for output {!r} is {}"
                raise FailedPrecondition(f"ensemble: combine should be {meant.format(name, datatype)}")

    def _combined(self, answers: _Arrays) -> _Arrays:
        return _COMBINED[self._combine](answers, self._weights)


def _mean(answers: _Arrays, weights: NDArray[np.float64]) -> _Arrays:
    mean = np.tensordot(weights / weights.sum(), answers.astype(np.float64), axes=1)
    return np.asarray(mean).astype(answers.dtype)


def _vote(answers: _Arrays, weights: NDArray[np.float64]) -> _Arrays:
    behind = [np.tensordot(weights, (answers == answer).astype(np.float64), axes=1) for answer in answers]
    chosen = np.argmax(behind, axis=0)
    voted: _Arrays = np.take_along_axis(answers, chosen[None], axis=0)[0]
    return voted


_COMBINED: dict[str, Callable[[_Arrays, NDArray[np.float64]], _Arrays]] = {"mean": _mean, "vote": _vote}


async def _all_of(coroutines: list[Any]) -> list[Any]:
    """What all of them return; when one fails, the others are cancelled, and it is raised."""
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except (CallError, asyncio.CancelledError):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        raise


def _own(call: Call) -> Call:
    """A call for one member: upstreams in this process write their model's name into the request."""
    request = ModelInferRequest()
    request.CopyFrom(call.request)
    return replace(call, request=request)


def _kinds(answer: ModelInferResponse) -> dict[str, tuple[str, list[int]]]:
    return {output.name: (output.datatype, output.shape[:]) for output in answer.outputs}


def _declared(tensors: Any) -> list[tuple[str, str, list[int]]]:
    return sorted((tensor.name, tensor.datatype, tensor.shape[:]) for tensor in tensors)
