from __future__ import annotations

import sys
from contextlib import closing

import pytest

from router.stores import StoreError, open_store
from router.stores.address import Address, read_address
from router.stores.memory import MemoryStore
from router.stores.redis import RedisStore
from router.stores.sqlite import SQLiteStore
from tests.redis_server import RedisServer
from tests.router.stores.words import decided


def test_memory_is_a_memory_store():
    assert isinstance(open_store("memory:"), MemoryStore)


def test_an_absolute_path_names_the_file(tmp_path):
    with closing(open_store(f"sqlite:{tmp_path}/croupier.db")) as store:
        assert isinstance(store, SQLiteStore)
        store.commit(decided("d1"))
    assert (tmp_path / "croupier.db").stat().st_size > 0


def test_a_relative_path_starts_at_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:croupier.db").close()
    assert (tmp_path / "croupier.db").exists()


def test_a_redis_is_named_by_its_address(redis_server: RedisServer):
    with closing(open_store(f"{redis_server.url}?prefix=named")) as store:
        assert isinstance(store, RedisStore)
        store.commit(decided("d1"))
        keys: list[bytes] = list(store._redis.scan_iter("*named*"))
        assert keys
        assert all(key.startswith(b"{named}:") for key in keys)


def test_without_the_package_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "router.stores.redis")
    with pytest.raises(StoreError, match=r"package 'redis': pip install 'croupier\[redis\]'"):
        open_store("redis://127.0.0.1")


@pytest.mark.parametrize(
    "url",
    ["", "memory", "memory:x", "croupier.db", "sqlite", "sqlite:", "sqlite::memory:", "sqlite:///x.db", "mysql:x.db"],
)
def test_any_other_url_is_refused_with_the_right_ones(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ValueError,
        match=r'"memory:", "sqlite:croupier\.db" \(in the folder of the configuration\).*"sqlite:/var/lib/.*"redis://host:6379/0',
    ):
        open_store(url)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"no folder .*/not/there\b"):
        open_store(f"sqlite:{tmp_path}/not/there/croupier.db")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", Address("cache")),
        ("redis://cache:7000/3", Address("cache", 7000, 3)),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://me:a%2Fb%40c@cache", Address("cache", username="me", password="a/b@c")),
        ("redis://:secret@cache?timeout=0.5", Address("cache", password="secret", timeout=0.5)),
        ("redis://cache?prefix=desk:1&persistence=any", Address("cache", prefix="desk:1", must_persist=False)),
        ("rediss://cache", Address("cache", tls={"ssl": True})),
        ("rediss://cache?ca=a.pem", Address("cache", tls={"ssl": True, "ssl_ca_certs": "a.pem"})),
    ],
)
def test_an_address_is_read_from_a_url(url: str, address: Address):
    assert read_address(url) == address
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://", "host is missing"),
        ("redis:///0", "host is missing"),
        ("redis://cache:70000", "HOST:PORT/DB"),
        ("redis://:hunter2/x@cache", "%2F"),
        ("redis://:hunter2#x@cache", "%23"),
        ("redis://cache/hunter2", "must be a number"),
        ("redis://cache?prefx=a", "'prefx'; right are prefix, timeout"),
        ("redis://cache?prefix=", "prefix"),
        ("redis://cache?prefix={a}", "prefix"),
        ("redis://cache?timeout=soon", "timeout: give seconds"),
        ("redis://cache?timeout=nan", "timeout: give seconds"),
        ("redis://cache?timeout=0", "timeout: give seconds"),
        ("redis://cache?persistence=no", 'right are "required" and "any"'),
        ("redis://cache?ca=a.pem", "rediss://"),
        ("redis://cache?password_file=/not/there", "/not/there cannot be read"),
        ("redis://:hunter2@cache?password_file=/not/there", "already"),
        ("mysql://me:hunter2@cache/0", "'mysql'"),
    ],
)
def test_a_wrong_address_is_refused_and_a_password_not_repeated(url: str, said: str):
    with pytest.raises(ValueError, match=said) as refused:
        open_store(url)
    assert "hunter2" not in str(refused.value)
