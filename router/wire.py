"""The names that clients and the router agree on, beside V2's."""

from __future__ import annotations

SERVICE = "/croupier.v1.Croupier/"

UNIT = "unit"
"""Request parameter: who is experimented on. `UNIT_HEADER` in the metadata says it too."""
UNIT_HEADER = "croupier-unit"

DECISION, ARM, PROPENSITY = "decision_id", "arm", "propensity"
"""Parameters of every response."""
DECISION_HEADER, ARM_HEADER, PROPENSITY_HEADER = "croupier-decision", "croupier-arm", "croupier-propensity"
"""The same in the trailing metadata."""

HOPS_HEADER = "croupier-hops"
"""How many routers a call has passed, so that one that goes round in a loop is noticed."""

SELDON_ROUTE = "x-seldon-route"
"""Trailing metadata of a Seldon mesh: where it sent a request."""
