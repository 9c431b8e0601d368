"""The table: every request, by topic, in the order in which they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.conformance import control, hosted, rest, rpc
from benchmarks.conformance.language import Case

Topics = Mapping[str, Sequence[Case]]

TOPICS: Topics = {
    "health": control.HEALTH,
    "metadata": control.METADATA,
    "REST: datatypes": rest.DATATYPES,
    "REST: shapes": rest.SHAPES,
    "REST: bodies": rest.BODIES,
    "REST: names": rest.NAMES,
    "REST: ids and parameters": rest.IDS,
    "REST: codings, paths and methods": rest.CODINGS,
    "REST: TorchScript": rest.TORCHSCRIPT,
    "REST: a model written for MLServer": hosted.HOSTED,
    "gRPC: datatypes": rpc.DATATYPES,
    "gRPC: shapes": rpc.SHAPES,
    "gRPC: names": rpc.NAMES,
    "gRPC: ids, parameters and streams": rpc.PARAMETERS,
    "gRPC: batches": rpc.BATCHES,
    "beside the protocol": control.BESIDE,
    "repository": control.REPOSITORY,  # last, as it loads and unloads
}


def part(topics: Topics, most: int) -> Topics:
    """The first cases of each topic."""
    return {topic: cases[:most] for topic, cases in topics.items()}
