from __future__ import annotations

import pytest

from runtime.finance.data import Market, load
from runtime.finance.task import Split, samples, split


@pytest.fixture(scope="package")
def market() -> Market:
    return load()


@pytest.fixture(scope="package")
def parts(market) -> Split:
    return split(samples(market))
