"""What holds for the repository as a whole: its layout, its dependencies, its version, its gates."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGES = ["bandits", "protos", "router", "runtime"]

PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(each for extra in PROJECT["optional-dependencies"].values() for each in extra),
]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_ours_and_not_one_of_the_same_name(package):
    """The names are generic: another `router` or `runtime` on the path would be found in silence."""
    assert importlib.import_module(package).__file__ == str(ROOT / package / "__init__.py")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_on_one_screen_what_it_owns(package):
    readme = (ROOT / package / "README.md").read_text()
    assert readme.startswith("# ")
    assert len(readme.splitlines()) <= 30


def test_every_folder_of_tests_is_a_package():
    """Otherwise pytest puts `tests/` on the path, and `import router` finds `tests/router`."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_a_dependency_has_a_lower_bound_and_a_reason():
    lines = [line.strip() for line in PYPROJECT.splitlines()]
    for requirement in REQUIREMENTS:
        (line,) = [line for line in lines if line.startswith(f'"{requirement}"')]
        assert re.search(r",\s+# \S", line), line
        assert ">=" in line or line.startswith('"croupier['), line


def test_the_version_that_is_tested_lies_in_the_range_that_is_promised():
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    tested = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
    for requirement in map(Requirement, REQUIREMENTS):
        if requirement.name != PROJECT["name"]:
            assert tested[canonicalize_name(requirement.name)] in requirement.specifier


@pytest.mark.parametrize("package", PACKAGES)
def test_the_version_stands_in_pyproject_only(package):
    version = re.compile(rf"[\"']{re.escape(PROJECT['version'])}[\"']")
    repeated = [path for path in (ROOT / package).rglob("*.py") if version.search(path.read_text())]
    assert repeated == []


def test_make_lists_every_command():
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert re.findall(r"^make (\w+)", listed, re.MULTILINE)[:6] == ["help", "demo", "serve", "test", "lint", "bench"]


SKIPPING = """
import pytest

def test_skipped():
    pytest.skip("nobody home")

@pytest.mark.gpu
def test_skipped_without_a_device():
    pytest.skip("no device")

@pytest.mark.xfail(strict=True)
def test_expected_to_fail():
    raise AssertionError
"""
SKIPPING_WHOLE = "import pytest; pytest.importorskip('no_such_library')"


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [("", "3 skipped, 1 xfailed"), ("1", "1 failed, 1 skipped, 1 xfailed, 1 error")],
)
def test_where_nothing_may_be_skipped_a_skipped_test_fails(allowed, expected, tmp_path):
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    (tmp_path / "test_skipping_whole.py").write_text(SKIPPING_WHOLE)
    command = [sys.executable, "-m", "pytest", "-q", "-o", "markers=gpu", "--continue-on-collection-errors", "."]
    environment = {**os.environ, "CROUPIER_NO_SKIPS": allowed}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, check=False, capture_output=True, text=True)
    assert expected in ran.stdout
