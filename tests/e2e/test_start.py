"""What an operator gets wrong keeps a server from starting, with a sentence that says which key of which file it is."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from router.__main__ import main
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


def written(what, models, folder):
    """The file of a wrong configuration."""
    config, _ = CONFIGS[what]
    if isinstance(config, str):
        path = folder / "croupier.yaml"
        path.write_text(config)
        return path
    return write_config(folder, **config | ({"models": str(models)} if config.get("models") == "MODELS" else {}))


@pytest.mark.parametrize("what", CONFIGS)
def test_a_wrong_configuration(models, tmp_path, capsys, caplog, what):
    """The server does not start, and says which key of which file is wrong."""
    path, (_, pattern) = written(what, models, tmp_path), CONFIGS[what]
    assert main(["serve", str(path)]) == 1
    complained = capsys.readouterr().err
    assert "Traceback" not in complained + caplog.text
    assert re.search(rf"^croupier: {path}: {pattern}", complained, re.MULTILINE), complained


def test_a_process_with_a_wrong_configuration_ends(models, tmp_path):
    """Also where some of its models are loaded by then."""
    what = "a model that is garbage"
    path, (_, pattern) = written(what, models, tmp_path), CONFIGS[what]
    with Router(path) as router:
        assert router.wait() == 1
        assert router.printed == ""
        assert "Traceback" not in router.complained
        assert re.search(rf"^croupier: {path}: {pattern}", router.complained, re.MULTILINE), router.complained


def test_a_configuration_that_is_not_there(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "nothing.yaml")]) == 1
    assert capsys.readouterr().err.startswith(f"croupier: {tmp_path / 'nothing.yaml'}: cannot be read")


@pytest.mark.parametrize("which", ["listen", "admin"])
def test_a_port_that_is_taken(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config = write_config(tmp_path, {"r": REMOTE}, **{which: address})
        with Router(config) as router:
            assert router.wait(seconds=10) == 1
            assert router.printed == ""
            assert "Traceback" not in router.complained
            said = rf"^croupier: {config}: {which}: {address} cannot be listened on: .*Address already in use"
            assert re.search(said, router.complained, re.MULTILINE), router.complained
