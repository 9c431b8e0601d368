"""What an operator gets wrong keeps a server from starting, with a sentence that says which key of which file it is."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.process import Router, write_config


def local(arms=("double",)):
    return {"arms": {arm: {"model": arm} for arm in arms}}


REMOTE = {"arms": {"a": {"model": "a", "target": "127.0.0.1:1"}}}

# What is written, and what the sentence says behind the file's name.
CONFIGS: dict[str, tuple[Any, str]] = {
    "not YAML": ("routes: [", r"not YAML"),
    "an unknown key of a route": ({"routes": {"r": {**REMOTE, "polcy": {}}}}, r"routes\.r: .*`polcy`"),
    "an unknown policy": ({"routes": {"r": {**REMOTE, "policy": {"kind": "psychic"}}}}, r"routes\.r\.policy.*psychic"),
    "weights of other arms": (
        {"routes": {"r": {**REMOTE, "policy": {"kind": "split", "weights": {"b": 1}}}}},
        r"routes\.r\.policy: weights: .*\(a\)",
    ),
    "no such folder of models": ({"routes": {"r": local()}, "models": "nowhere"}, r"models: .*nowhere is not a folder"),
    "an address without a port": ({"routes": {"r": REMOTE}, "listen": "localhost"}, r"listen: expected HOST:PORT"),
    "a store in a missing folder": ({"routes": {"r": REMOTE}, "store": "sqlite:no/where.db"}, r"store: .*no/where\.db"),
    "no such model": ({"routes": {"r": local(["absent"])}, "models": "MODELS"}, r"routes\.r\.arms\.absent: .*'absent'"),
    "a model that is garbage": (
        {"routes": {"r": local(["double", "broken"])}, "models": "MODELS"},
        r"routes\.r\.arms\.broken: .*model\.pt is not a TorchScript archive",
    ),
    "arms with other inputs": (
        {"routes": {"r": local(["double", "wide"])}, "models": "MODELS"},
        r"routes\.r\.arms: wide takes .*3.* double takes .*2.*the same inputs",
    ),
}


@pytest.fixture(scope="module")
def refusals(models, tmp_path_factory):
    """File, exit status and standard error of a server that was started on each of the wrong configurations."""
    root = tmp_path_factory.mktemp("wrong")
    ended: dict[str, tuple[Path, int, str]] = {}
    with ExitStack() as stack:
        started = {}
        for number, (what, (config, _)) in enumerate(CONFIGS.items()):
            path = root / str(number) / "croupier.yaml"
            if isinstance(config, str):
                path.parent.mkdir()
                path.write_text(config)
            else:
                settings: dict[str, Any] = dict(config)
                if settings.get("models") == "MODELS":
                    settings["models"] = str(models)
                write_config(path.parent, **settings)
            started[what] = path, stack.enter_context(Router(path))
            if len(started) - len(ended) == 2:  # as many at a time as there are cores
                wait(started, ended)
        wait(started, ended)
    return ended


def wait(started, ended):
    for what, (path, router) in started.items():
        if what not in ended:
            ended[what] = path, router.wait(), router.complained


@pytest.mark.parametrize("what", CONFIGS)
def test_a_wrong_configuration(refusals, what):
    """The server does not start, and says which key of which file is wrong."""
    path, status, complained = refusals[what]
    _, pattern = CONFIGS[what]
    assert status == 1
    assert "Traceback" not in complained
    assert re.search(rf"^croupier: {path}: {pattern}", complained, re.MULTILINE), complained


def test_a_configuration_that_is_not_there(tmp_path):
    with Router(tmp_path / "nothing.yaml", tmp_path) as router:
        assert router.wait() == 1
        assert router.complained.startswith(f"croupier: {tmp_path / 'nothing.yaml'}: cannot be read")


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_that_is_taken(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write_config(tmp_path, {"r": REMOTE}, **{which: address})
        with Router(config) as router:
            assert router.wait(seconds=10) == 1
            assert router.printed == ""
            assert "Traceback" not in router.complained
            assert re.search(rf"^croupier: .*{address}", router.complained, re.MULTILINE), router.complained
