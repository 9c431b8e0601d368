"""A compiled package for the whole session. It is compiled beside the tests that come before those that want it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.process import ROOT

SECONDS = 300  # that a compiler may take
FOLDER, COMPILER = pytest.StashKey[Path](), pytest.StashKey[subprocess.Popen]()


def pytest_collection_finish(session):
    wanted = any("compiled" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly and shutil.which("g++") is not None:
        folder = session.config.stash[FOLDER] = Path(tempfile.mkdtemp())
        command = [sys.executable, "-m", "tests.runtime.package", str(folder / "m")]
        session.config.stash[COMPILER] = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def pytest_sessionfinish(session):
    if COMPILER in session.config.stash:
        with session.config.stash[COMPILER] as compiler:
            compiler.kill()
        shutil.rmtree(session.config.stash[FOLDER], ignore_errors=True)


@pytest.fixture(scope="session")
def compiled(request: pytest.FixtureRequest) -> Path:
    """The folder of `Both`, compiled."""
    stash = request.config.stash
    if COMPILER not in stash:
        pytest.skip("PyTorch compiles with g++, which is not here")
    _, said = stash[COMPILER].communicate(timeout=SECONDS)
    assert stash[COMPILER].returncode == 0, said
    return stash[FOLDER] / "m"
