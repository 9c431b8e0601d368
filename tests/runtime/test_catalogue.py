from __future__ import annotations

from typing import Any

from runtime.catalogue import Catalogue, Key


class Watched:
    """In service, and counts how often it was looked at."""

    def __init__(self):
        self.looks = 0

    @property
    def servable(self):
        self.looks += 1
        return object()


def in_service(*keys):
    served: dict[Key, Any] = {key: Watched() for key in keys}
    catalogue = Catalogue()
    for key, each in served.items():
        catalogue.put(key, each)
    return catalogue, served


def test_a_model_comes_and_goes_without_a_look_at_the_others():
    """Of which there may be thousands; and all of them go when the server stops."""
    catalogue, served = in_service(("a", "1"), ("b", ""))
    before = served["a", "1"].looks
    catalogue.put(("b", ""), served["b", ""])
    catalogue.take(("b", ""))
    assert served["a", "1"].looks == before


def test_the_newest_version_is_meant_where_none_is_named():
    catalogue, served = in_service(("a", "9"), ("a", "10"), ("a", "beta"), ("b", "1"), ("b", ""))
    assert catalogue.get("a", "") is served["a", "10"]
    assert catalogue.get("b", "") is served["b", ""]
    assert catalogue.versions("a") == ["beta", "9", "10"]
    assert catalogue.versions("b") == ["1"]
    assert [*catalogue.all()] == [("a", "beta"), ("a", "9"), ("a", "10"), ("b", "1"), ("b", "")]
    assert [*catalogue.all("a", "9")] == [("a", "9")]
    for key in (("a", "10"), ("b", "")):
        catalogue.take(key)
    assert catalogue.get("a", "") is served["a", "9"]
    assert catalogue.get("b", "") is served["b", "1"]
    catalogue.take(("b", "1"))
    assert (catalogue.get("b", ""), catalogue.get("b", "1"), catalogue.versions("b")) == (None, None, [])
