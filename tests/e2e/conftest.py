"""Models that all end-to-end tests share, and one server for those that leave it as they found it."""

from __future__ import annotations

import pytest

from tests.e2e.models import write_models
from tests.process import Router, write_config

ARMS = {"double": {"model": "double"}, "triple": {"model": "triple"}}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    write_models(root)
    return root


@pytest.fixture(scope="session")
def server(models, tmp_path_factory):
    """A router that, whatever it was asked, ends well in the end and never had to print a traceback."""
    routes = {
        "multiply": {
            "policy": {"kind": "thompson"},
            "metrics": {"profit": {"unit": "euro"}},
            "arms": ARMS,
        },
        "product": {"arms": {"only": {"model": "product"}}},
        "split": {"arms": ARMS, "sticky": True},
    }
    config = write_config(tmp_path_factory.mktemp("server"), routes, models=str(models))
    with Router(config) as router:
        assert router.address
        yield router
        assert router.stop() == 0
        assert "Traceback" not in router.complained, router.complained
