"""Files are read out of packages as they were pinned, from wheels and from sdists, without installing anything."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
import zipfile

import pytest

from benchmarks import packages

CONTENT = b"a,b\n1,2\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """A wheel and an sdist that were downloaded before; whatever else is asked of pip fails."""
    monkeypatch.setattr(packages, "FOLDER", tmp_path)
    with zipfile.ZipFile(tmp_path / "some_data-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_data/table.csv", CONTENT)
    with tarfile.open(tmp_path / "other-2.0.tar.gz", "w:gz") as sdist:
        member = tarfile.TarInfo("other-2.0/other/table.csv")
        member.size = len(CONTENT)
        sdist.addfile(member, io.BytesIO(CONTENT))
    digest = hashlib.sha256(CONTENT).hexdigest()
    pins = {"some-data==1.0": f"{digest}  some_data/table.csv", "other==2.0": f"{digest}  other/table.csv\n"}
    monkeypatch.setattr(packages, "SHA256", pins)

    def pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "no such package")

    monkeypatch.setattr(subprocess, "run", pip)


def test_a_member_is_read_from_a_wheel_and_from_an_sdist():
    assert packages.read("some-data==1.0", "some_data/table.csv") == CONTENT
    assert packages.read("other==2.0", "other/table.csv") == CONTENT


def test_what_is_not_pinned_is_not_read():
    with pytest.raises(ValueError, match="not pinned"):
        packages.read("other==2.0", "other/more.csv")
    with pytest.raises(ValueError, match="not pinned"):
        packages.read("third==3.0", "third/table.csv")


def test_other_bytes_than_the_pinned_are_refused(monkeypatch):
    monkeypatch.setattr(packages, "SHA256", {"other==2.0": f"{'0' * 64}  other/table.csv"})
    with pytest.raises(ValueError, match=hashlib.sha256(CONTENT).hexdigest()):
        packages.read("other==2.0", "other/table.csv")


def test_a_download_that_fails_says_why_and_leaves_nothing(tmp_path):
    before = set(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match=r"third==3\.0: .*no such package"):
        packages.archive("third==3.0")
    assert set(tmp_path.iterdir()) == before


def test_a_download_is_kept(tmp_path, monkeypatch):
    downloads = []

    def pip(command, **_):
        downloads.append(command[-1])
        folder = command[command.index("--dest") + 1]
        with zipfile.ZipFile(f"{folder}/third-3.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr("third/table.csv", CONTENT)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    kept = packages.archive("third==3.0")
    assert packages.archive("third==3.0") == kept
    assert kept.parent == tmp_path
    assert downloads == ["third==3.0"]


@pytest.mark.parametrize("requirement", ["obp", "obp>=0.4", "==1.0", "obp=="])
def test_a_version_has_to_be_pinned(requirement):
    with pytest.raises(ValueError, match=r"^requirement: "):
        packages.archive(requirement)
