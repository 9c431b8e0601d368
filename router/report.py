"""A route's report as a table, from what the router describes."""

from __future__ import annotations

import grpc

from protos.errors import Unavailable
from router.client import Client


def route_report(route: str, target: str) -> str:
    """What the router at `target` knows about a route. Raises Unavailable with its sentence when it refuses."""
    with Client(target) as client:
        try:
            described = client.describe(route)
        except grpc.RpcError as error:
            raise Unavailable(f"{target} answered: {error.details()}") from None
    total = sum(arm.decisions for arm in described.arms) or 1.0
    lines = [
        f"{described.route}: {described.policy}, version {described.policy_version}",
        f"{'arm':<20}{'p':>8}{'share':>8}{'decisions':>11}{'rewards':>9}{'mean':>9}",
    ]
    for arm in described.arms:
        mean = f"{arm.reward.sum / arm.reward.n:.4f}" if arm.reward.n else "-"
        left_out = "" if arm.allowed else "  left out"
        lines.append(
            f"{arm.name:<20}{arm.probability:>8.3f}{arm.decisions / total:>8.1%}{arm.decisions:>11.0f}"
            f"{arm.reward.n:>9.0f}{mean:>9}{left_out}"
        )
    return "\n".join(lines)
