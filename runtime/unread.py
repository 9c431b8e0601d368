"""Keys of a settings file that nobody reads, though somebody meant something by them: the log names them.

Of others we know nothing: MLServer's users keep keys of their own in these files.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

ALIKE = 0.75  # from which part of its letters on, in their order, a key is another one misspelt

_UNSUPPORTED = {"cache_enabled", "parallel_workers", "warm_workers"}  # that MLServer obeys
_PARAMETERS_UNSUPPORTED = {
    "autogenerate_inference_pool_gid",
    "environment_path",
    "environment_tarball",
    "inference_pool_gid",
}
_PASSED_OVER = {"format", "versions"}  # MLServer's too, by which nothing is asked of us

_log = logging.getLogger(__name__)


def warn(path: str, file: Mapping[str, Any], read: Collection[str], options: Collection[str]) -> None:
    """Names in the log what at the top of a file has no effect; `options` are the keys of `parameters.extra`."""
    for key, hint in _unread(file, {*read, *_PASSED_OVER}, _UNSUPPORTED, options):
        _say(path, key, hint)


def warn_of_parameters(path: str, file: Mapping[str, Any], read: Collection[str], options: Collection[str]) -> None:
    """Does so for `parameters`, where a class that was written for MLServer may read anything."""
    for key, hint in _unread(file, {*read, *_PASSED_OVER}, _PARAMETERS_UNSUPPORTED, options):
        _say(path, f"parameters.{key}", hint)


def _unread(
    file: Mapping[str, Any], read: set[str], unsupported: set[str], options: Collection[str]
) -> Iterator[tuple[str, str]]:
    for key, value in file.items():
        if key in read:
            continue
        if key in unsupported:
            if value:
                yield key, "it is not supported here"
        elif key in options:
            yield key, f"write it as parameters.extra.{key}"
        elif meant := get_close_matches(key, [*read, *options], n=1, cutoff=ALIKE):
            where = "" if meant[0] in read else "parameters.extra."
            yield key, f"is {where}{meant[0]} meant?"


@lru_cache(1024)  # once, however often the file is read
def _say(path: str, key: str, hint: str) -> None:
    _log.warning("%s: %s has no effect: %s", path, key, hint)
