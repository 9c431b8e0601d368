from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from protos.errors import FailedPrecondition
from runtime import repository
from runtime.repository import Repository, locate
from runtime.settings import read_settings
from tests.runtime.models import put


def batch_size(models, name):
    (found,) = models.find(name)
    assert found.settings
    return found.settings.max_batch_size


def told(root):
    return [(each.name, each.version, each.reason) for each in Repository(root).scan()]


def test_a_model_is_a_folder_or_a_folder_of_versions(tmp_path):
    put(tmp_path, "flat")
    put(tmp_path, "versioned", version="1")
    put(tmp_path, "versioned", version="10")
    assert told(tmp_path) == [("flat", "", ""), ("versioned", "1", ""), ("versioned", "10", "")]
    assert [each.version for each in Repository(tmp_path).find("versioned")] == ["1", "10"]
    assert Repository(tmp_path).find("../flat") == []


def test_a_root_may_itself_be_the_folder_of_a_model(tmp_path):
    put(tmp_path, "only")
    assert told(tmp_path / "only") == [("only", "", "")]


def test_what_is_no_model_is_passed_over(tmp_path):
    put(tmp_path, "..data")
    (tmp_path / "notes").mkdir()
    (tmp_path / "README.md").touch()
    assert told(tmp_path) == []


def test_a_root_that_is_gone_is_said_to_be(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"there is no folder .*missing"):
        Repository(tmp_path / "missing").scan()


def test_a_root_stays_where_it_was_when_a_models_code_goes_elsewhere(tmp_path, monkeypatch):
    put(tmp_path, "m")
    monkeypatch.chdir(tmp_path.parent)
    repository = Repository(Path(tmp_path.name))
    monkeypatch.chdir("/")
    assert [found.name for found in repository.scan()] == ["m"]


def test_a_root_that_cannot_be_listed_is_said_to_be(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)  # root, as tests may be run, could list any
    with pytest.raises(FailedPrecondition, match=rf"the folder {tmp_path} cannot be listed: Permission denied"):
        Repository(tmp_path).scan()


def test_settings_that_are_not_read_are_named_once(tmp_path, caplog):
    put(tmp_path, "m", version="1")
    put(tmp_path / "deep", "team", version="iris")
    put(tmp_path, "..data", version="1")
    models = Repository(tmp_path)
    assert [(each.name, each.version) for each in (*models.scan(), *models.scan())] == [("m", "1")] * 2
    deep = tmp_path / "deep" / "team" / "iris" / "model-settings.json"
    says = f"{deep} is not read: settings lie in NAME/ or NAME/VERSION/ of {tmp_path}"
    assert [each.getMessage() for each in caplog.records] == [says]


def test_a_folder_that_may_be_no_version_is_named(tmp_path, caplog):
    for name, version in (("team", "wine"), ("m", "1"), ("m", "v2"), ("own", ""), ("own", "next")):
        put(tmp_path, name, version=version)
    assert len(told(tmp_path)) == 5
    assert [each.getMessage() for each in caplog.records] == [
        f"{tmp_path}/team/wine is version 'wine' of model 'team', after its folders"
    ]


KSERVE = {
    "MLSERVER_MODEL_IMPLEMENTATION": "models.Model",
    "MLSERVER_MODEL_NAME": "iris",
    "MLSERVER_MODEL_URI": "/mnt/models",
    "mlserver_model_extra": '{"a": 1}',
    "MLSERVER_MODEL_INPUTS": '[{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]',
    "MLSERVER_MODEL_REPOSITORY_ROOT": "elsewhere",
}


def test_the_environment_tells_of_a_model_where_no_file_does(tmp_path):
    models = Repository(tmp_path, KSERVE)
    (found,) = models.scan()
    assert (found.name, found.folder, found.reason) == ("iris", tmp_path, "")
    assert found.settings
    assert (found.settings.implementation, found.settings.uri) == ("models.Model", "/mnt/models")
    assert (found.settings.extra, found.settings.inputs[0].shape) == ({"a": 1}, (-1, 4))
    assert models.find("iris") == [found]
    put(tmp_path, "m", name="m", parameters={"extra": {"a": 2}}, implementation="models.Model")
    (found,) = models.scan()
    assert (found.name, found.settings and found.settings.extra) == ("m", {"a": 2})


def test_the_environment_tells_what_a_file_leaves_out(tmp_path):
    folder = put(tmp_path, "m", implementation=None, inputs=None, parameters={"extra": {"b": 2}})
    models = Repository(tmp_path, KSERVE | {"MLSERVER_MODEL_MAX_BATCH_SIZE": "7"})
    (found,) = models.scan()
    assert models.find("iris") == [found]
    assert (found.name, found.folder, found.reason) == ("iris", folder, "")
    assert found.settings
    assert (found.settings.implementation, found.settings.uri) == ("models.Model", "/mnt/models")
    assert (found.settings.extra, found.settings.max_batch_size) == ({"a": 1, "b": 2}, 7)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (
            {"MLSERVER_MODEL_NAME": "m"},
            "MLSERVER_MODEL_NAME: no model is told of without MLSERVER_MODEL_IMPLEMENTATION",
        ),
        (KSERVE | {"MLSERVER_MODEL_INPUTS": "x"}, "MLSERVER_MODEL_INPUTS: JSON is malformed"),
        (KSERVE | {"MLSERVER_MODEL_INPUTS": "3"}, "MLSERVER_MODEL_*: inputs: Expected `array`, got `int`"),
    ],
)
def test_an_environment_that_tells_of_no_model_is_refused_with_its_variable(tmp_path, environment, says):
    (found,) = Repository(tmp_path, environment).scan()
    assert found.settings is None
    assert found.reason.startswith(says)


def test_an_environment_that_tells_of_nothing_makes_no_model(tmp_path):
    assert Repository(tmp_path, {"MLSERVER_MODEL_REPOSITORY_ROOT": "elsewhere"}).scan() == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "Input data was truncated"),
        (b'{"implementation": "\xff"}', "it is not UTF-8"),
        (b'{"x": ' + b"[" * 5000, "it is nested too deeply"),
    ],
)
def test_a_broken_settings_file_hides_nobody_else(tmp_path, content, says):
    put(tmp_path, "good")
    (put(tmp_path, "broken", version="2") / "model-settings.json").write_bytes(content)
    (broken, good) = Repository(tmp_path).scan()
    assert (good.name, good.reason) == ("good", "")
    assert (broken.name, broken.version, broken.settings) == ("broken", "2", None)
    assert f"model-settings.json: {says}" in broken.reason


def test_a_folder_that_cannot_be_listed_hides_nobody_else(tmp_path, monkeypatch):
    put(tmp_path, "good")
    put(tmp_path, "locked")
    list_folder = os.scandir

    def refuse(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    by_name = {each.name: each for each in Repository(tmp_path).scan()}
    assert by_name["good"].settings is not None
    assert by_name["locked"].reason.endswith("locked cannot be read: Permission denied")


def test_two_folders_that_claim_one_version_are_both_refused(tmp_path):
    put(tmp_path, "one", name="same", parameters={"version": "1"})
    put(tmp_path, "same", version="1")
    put(tmp_path, "same", version="2")
    (disputed, fine) = Repository(tmp_path).scan()
    assert (disputed.name, disputed.version, disputed.settings) == ("same", "1", None)
    assert "model 'same' version '1' is claimed by" in disputed.reason
    assert str(tmp_path / "one") in disputed.reason
    assert str(tmp_path / "same" / "1") in disputed.reason
    assert (fine.version, fine.reason) == ("2", "")


def test_a_fingerprint_changes_with_any_file_of_the_model(tmp_path):
    (tmp_path / "elsewhere.pt").write_bytes(b"old")
    folder = put(tmp_path, "m", b"old", parameters={"uri": "../elsewhere.pt"})

    def fingerprint():
        return Repository(tmp_path).find("m")[0].fingerprint()

    prints = [fingerprint(), fingerprint()]
    assert prints[0] == prints[1]
    (folder / "model.pt").write_bytes(b"newer")
    prints.append(fingerprint())
    settings = folder / "model-settings.json"
    settings.write_bytes(settings.read_bytes() + b"\n")
    prints.append(fingerprint())
    (tmp_path / "elsewhere.pt").write_bytes(b"newer")
    prints.append(fingerprint())
    (tmp_path / "elsewhere.pt").unlink()
    prints.append(fingerprint())
    assert len(set(prints)) == 5


def test_a_fingerprint_changes_though_size_and_time_stay(tmp_path):
    archive = put(tmp_path, "m", b"old") / "model.pt"
    (found,) = Repository(tmp_path).find("m")
    before, stat = found.fingerprint(), archive.stat()
    archive.write_bytes(b"new")
    os.utime(archive, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert found.fingerprint() != before


def test_a_fingerprint_waits_for_no_pipe(tmp_path):
    put(tmp_path, "m", parameters={"uri": "./pipe"})
    os.mkfifo(tmp_path / "m" / "pipe")
    (found,) = Repository(tmp_path).find("m")
    assert found.fingerprint() == found.fingerprint()


def test_a_fingerprint_is_of_the_files_in_a_models_own_folders_too(tmp_path):
    folder = put(tmp_path, "m", b"archive")

    def fingerprint():
        return Repository(tmp_path).find("m")[0].fingerprint()

    before = fingerprint()
    for others in ("__pycache__", ".git", "other"):
        (folder / others).mkdir()
        (folder / others / "file").touch()
    (folder / ".cache").write_text("of somebody's")
    put(folder, "other", b"archive", name="other")
    assert fingerprint() == before
    (folder / "code" / "inner").mkdir(parents=True)
    (folder / "code" / "inner" / "impl.py").write_text("x = 1")
    assert len({before, first := fingerprint()}) == 2
    (folder / "code" / "inner" / "impl.py").write_text("x = 1000")
    assert fingerprint() != first


def test_a_fingerprint_is_of_folders_that_are_links_within_a_model_too(tmp_path):
    """As Kubernetes mounts a volume: what is there is a link into ..data, and that another, which is changed."""
    folder = put(tmp_path / "models", "m", b"archive")
    for age in ("old", "new"):
        (folder / f"..{age}" / "weights").mkdir(parents=True)
        (folder / f"..{age}" / "weights" / "w.bin").write_text(age)
    (folder / "..data").symlink_to("..old")
    (folder / "weights").symlink_to("..data/weights")
    (folder / "weights" / "around").symlink_to("../weights")
    (folder / "again").symlink_to(".")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "elsewhere").symlink_to(elsewhere)
    models = Repository(tmp_path / "models")

    def fingerprint():
        return models.find("m")[0].fingerprint()

    before = fingerprint()
    (elsewhere / "file").write_text("of nobody's concern")
    assert fingerprint() == before
    (folder / "next").symlink_to("..new")
    (folder / "next").rename(folder / "..data")
    assert fingerprint() != before


@pytest.mark.parametrize("name", ["model-settings.json", "model.pt"])
def test_what_is_written_again_as_it_was_changes_no_fingerprint(tmp_path, name):
    folder = put(tmp_path, "m", b"archive")
    models = Repository(tmp_path)
    before = models.find("m")[0].fingerprint()
    (folder / "new").write_bytes((folder / name).read_bytes())
    (folder / "new").rename(folder / name)
    os.utime(folder / name, ns=(0, 0))
    assert models.find("m")[0].fingerprint() == before


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    folder = put(tmp_path, "m", b"archive")
    read: list[str] = []

    def digest(file, by):
        read.append(Path(file.name).name)
        return hashlib.file_digest(file, by)

    monkeypatch.setattr(repository, "file_digest", digest)
    monkeypatch.setattr(repository, "SETTLED_NS", -1)
    models = Repository(tmp_path)
    prints = [models.find("m")[0].fingerprint() for _ in range(2)]
    assert sorted(read) == ["model-settings.json", "model.pt"]
    (folder / "new").write_bytes(b"ARCHIVE")
    (folder / "new").rename(folder / "model.pt")
    assert models.find("m")[0].fingerprint() not in prints
    assert read[2:] == ["model.pt"]


def test_a_file_that_is_written_twice_within_a_tick_of_the_disks_clock_is_noticed(tmp_path, monkeypatch):
    folder = put(tmp_path, "m", b"archive")
    monkeypatch.setattr(repository, "_stamp_of", lambda _stat: (1, 2, 3))
    models = Repository(tmp_path)
    before = models.find("m")[0].fingerprint()
    (folder / "model.pt").write_bytes(b"ARCHIVE")
    assert models.find("m")[0].fingerprint() != before


@pytest.fixture
def parsed(monkeypatch):
    """The folders whose settings were parsed since the last look; every file counts as settled."""
    folders: list[str] = []

    def read(path, **names):
        folders.append(path.parent.name)
        return read_settings(path, **names)

    monkeypatch.setattr(repository, "read_settings", read)
    monkeypatch.setattr(repository, "SETTLED_NS", -1)

    def look():
        seen = sorted(folders)
        folders.clear()
        return seen

    return look


def test_settings_are_parsed_once_until_they_change(tmp_path, parsed):
    for name in ("a", "b", "c"):
        put(tmp_path, name)
    models = Repository(tmp_path)
    models.scan()
    assert parsed() == ["a", "b", "c"]
    models.scan()
    assert batch_size(models, "b") == 64
    assert parsed() == []
    put(tmp_path, "b", max_batch_size=7)
    models.scan()
    assert parsed() == ["b"]
    assert batch_size(models, "b") == 7
    assert parsed() == []


def test_what_was_written_a_moment_ago_is_not_trusted_to_show_that_it_was_written_again(tmp_path, parsed, monkeypatch):
    monkeypatch.setattr(repository, "SETTLED_NS", 10**18)
    put(tmp_path, "a")
    models = Repository(tmp_path)
    models.scan()
    models.scan()
    assert parsed() == ["a", "a"]


def test_to_find_a_model_looks_into_its_folder_only(tmp_path, parsed):
    for name in ("a", "b", "c"):
        put(tmp_path, name)
    models = Repository(tmp_path)
    models.scan()
    parsed()
    for name in ("a", "b", "c"):
        put(tmp_path, name, max_batch_size=2)
    assert batch_size(models, "b") == 2
    assert parsed() == ["b"]


def test_a_model_is_found_in_a_folder_of_another_name(tmp_path, parsed):
    put(tmp_path, "folder", name="m", parameters={"version": "1"})
    put(tmp_path, "m", version="2")
    put(tmp_path, "other")
    models = Repository(tmp_path)
    for _ in range(2):
        assert [each.folder.name for each in models.find("m")] == ["folder", "2"]
        parsed()
    put(tmp_path, "late", name="renamed")
    assert [each.folder.name for each in models.find("renamed")] == ["late"]
    assert models.find("late") == []


def test_two_folders_that_claim_one_version_are_refused_when_one_is_found(tmp_path):
    put(tmp_path, "one", name="same")
    models = Repository(tmp_path)
    assert models.find("same")[0].settings is not None
    put(tmp_path, "same")
    (disputed,) = models.find("same")
    assert (disputed.settings, "claimed by" in disputed.reason) == (None, True)


def test_a_model_file_is_found_by_its_uri_or_by_its_name(tmp_path):
    (tmp_path / "model.pt").touch()
    (tmp_path / "other.pt").touch()
    names = ("model.pt", "model.pth")
    assert locate(tmp_path, "", names) == tmp_path / "model.pt"
    assert locate(tmp_path, "./other.pt", names) == tmp_path / "other.pt"
    assert locate(tmp_path / "sub", str(tmp_path), names) == tmp_path / "model.pt"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("", "has no model.pt or model.pth, and parameters.uri names no file"),
        ("gone.pt", "model-settings.json: parameters.uri: there is no"),
        ("s3://bucket/model.pt", "'s3://bucket/model.pt' is not a local path"),
    ],
)
def test_a_model_file_that_is_missing_is_said_to_be(tmp_path, uri, says):
    with pytest.raises(FailedPrecondition) as missing:
        locate(tmp_path, uri, ("model.pt", "model.pth"))
    assert says in missing.value.message
