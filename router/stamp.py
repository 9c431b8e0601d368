"""What is put on an answer: the route's name, and the decision that the client reports a reward for."""

from __future__ import annotations

import struct

from protos.grpc import Header
from protos.messages import ModelInferResponse
from router.call import Decision
from router.ids import ID_LENGTH
from router.wire import ARM, ARM_HEADER, DECISION, DECISION_HEADER, PROPENSITY, PROPENSITY_HEADER

_DECISION, _ARM, _PROPENSITY = (name.encode() for name in (DECISION_HEADER, ARM_HEADER, PROPENSITY_HEADER))
_DOUBLE = struct.Struct("<d")  # as protobuf writes one


class Stamp:
    """What the answers of an arm are stamped with: the route's name for a model name, and the decision, twice.

    In the body it is appended to the serialized response: messages merge when their bytes are joined, and the last name
    stands. Only id and propensity change from one answer to the next, so they are put into bytes made once.
    """

    __slots__ = ("_arm", "_head", "_middle", "_tail")

    _ID, _PROPENSITY = "?" * ID_LENGTH, 0.12345678901234567

    def __init__(self, route: str, arm: str) -> None:
        message = ModelInferResponse(model_name=route)
        message.parameters[ARM].string_param = arm
        message.parameters[DECISION].string_param = self._ID
        message.parameters[PROPENSITY].double_param = self._PROPENSITY
        # In the order of their names, the id comes before the propensity.
        made = message.SerializeToString(deterministic=True)
        self._head, rest = made.split(self._ID.encode())
        self._middle, self._tail = rest.split(_DOUBLE.pack(self._PROPENSITY))
        self._arm = _ARM, arm.encode()

    def body(self, decision: Decision) -> bytes:
        """The bytes to append to a response."""
        return self._head + decision.id.encode() + self._middle + _DOUBLE.pack(decision.propensity) + self._tail

    def metadata(self, decision: Decision) -> list[Header]:
        """The pairs to append to the trailing metadata."""
        return [(_DECISION, decision.id.encode()), self._arm, (_PROPENSITY, repr(decision.propensity).encode())]
