"""Messages of the client library, as they are sent."""

from __future__ import annotations

import pytest

from protos.infer_json import parameters_of
from router.client.messages import Parameter, infer_request


def test_parameters_are_sent_as_what_they_are():
    given: dict[str, Parameter] = {"fast": True, "depth": 3, "huge": 2**63, "share": 0.5, "desk": "rates"}
    assert parameters_of(infer_request("credit", {}, "", given).parameters) == given


@pytest.mark.parametrize("value", [[1], None, 2**64])
def test_a_parameter_that_cannot_be_sent_is_named(value):
    with pytest.raises(TypeError, match="parameter 'depth' is "):
        infer_request("credit", {}, "", {"depth": value})
