"""A model server as a process, shared by the tests that ask a real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import Runtime
from tests.router.upstreams.servers import write_double


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one model, "double", in one version, "7"."""
    return write_double(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def runtime(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a process that serves it."""
    with Runtime(models, tmp_path_factory.mktemp("runtime")) as process:
        yield process.address
