from __future__ import annotations

from contextlib import closing

import pytest

from router.stores import StoreError, open_store
from router.stores.memory import MemoryStore
from router.stores.sqlite import SQLiteStore
from tests.router.stores.contract import decision


def test_memory_is_a_memory_store():
    assert isinstance(open_store("memory:"), MemoryStore)


def test_an_absolute_path_names_the_file(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/croupier.db")) as store:
        assert isinstance(store, SQLiteStore)
        store.commit([decision("d1")], [])
    assert (tmp_path / "croupier.db").stat().st_size > 0


def test_a_relative_path_starts_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:croupier.db").close()
    assert (tmp_path / "croupier.db").exists()


@pytest.mark.parametrize(
    "url",
    ["", "memory", "memory:x", "croupier.db", "sqlite", "sqlite:", "sqlite::memory:", "sqlite:///x.db", "mysql:x.db"],
)
def test_any_other_url_is_refused_with_the_right_ones(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r'"memory:", "sqlite:croupier\.db".*"sqlite:/var/lib/croupier\.db"'):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_a_password_in_a_url_is_not_repeated():
    with pytest.raises(ValueError, match="'redis'") as refused:
        open_store("redis://me:hunter2@somewhere/0")
    assert "hunter2" not in str(refused.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no folder .*/not/there\b"):
        open_store(f"sqlite:{tmp_path}/not/there/croupier.db")
