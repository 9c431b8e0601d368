"""The command line, as far as it needs no server."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from router.__main__ import main
from router.call import Batch, Credit, Decision, Outcome
from router.stores import open_store
from tests.router.test_config import SMALL


def test_a_right_configuration_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    path.write_text(SMALL)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "r: a, b by split",
        f"{path} is right; next: croupier serve {path}",
    ]
    assert list(tmp_path.iterdir()) == [path], "checking makes no store"


@pytest.mark.parametrize("command", ["check", "serve"])
def test_a_wrong_one_is_a_sentence_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str):
    path = tmp_path / "routes.yaml"
    path.write_text(SMALL + "colour: red")
    assert main([command, str(path)]) == 1
    assert capsys.readouterr() == ("", f"croupier: {path}: Object contains unknown field `colour`\n")


def test_a_store_that_cannot_be_opened_is_a_sentence_and_a_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    path.write_text(SMALL + "store: mongo://somewhere")
    assert main(["serve", str(path)]) == 1
    assert f"croupier: {path}: store: unknown store with scheme 'mongo'" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["deal"], ["check"], ["check", "a", "b"], ["report", "r", "--colour"]])
def test_a_wrong_command_shows_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2
    assert "usage: croupier" in capsys.readouterr().err


def test_a_router_that_is_not_there_is_a_sentence_and_a_status(capsys: pytest.CaptureFixture[str]):
    assert main(["report", "r", "--server", "127.0.0.1:1"]) == 1
    assert "croupier: 127.0.0.1:1 answered: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "rest",
    [
        [],
        ["models"],
        ["models", "--port", "0"],
        ["--port", "0", "models"],
        ["--help"],
        ["--flag", "x", "-y", "z", "--"],
    ],
)
def test_the_runtimes_arguments_are_handed_over_in_their_order(monkeypatch: pytest.MonkeyPatch, rest: list[str]):
    class Replaced(Exception):
        pass

    def execv(program: str, argv: list[str]) -> None:
        raise Replaced(program, argv)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced) as handed:
        main(["runtime", *rest])
    assert handed.value.args == (sys.executable, [sys.executable, "-m", "runtime", *rest])


def test_the_log_of_a_route_is_exported(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]):
    path = tmp_path / "routes.yaml"
    path.write_text(SMALL + "store: sqlite:log.db")
    store = open_store(f"sqlite:{tmp_path / 'log.db'}")
    store.commit(Batch([Decision("d1", "r", "a", 0.5, 1.0, "v")], [Credit(Outcome("d1", "reward", 1.0, 2.0))]))
    store.close()
    assert main(["export-log", str(path), "r"]) == 0
    (line,) = capfdbinary.readouterr().out.splitlines()
    told = json.loads(line)
    assert (told["decision"], told["arm"], told["reward"]) == ("d1", "a", 1.0)
    assert main(["export-log", str(path), "nobody"]) == 1
    assert b"unknown route 'nobody'" in capfdbinary.readouterr().err


def test_a_key_is_printed_with_what_the_configuration_has_of_it(capsys: pytest.CaptureFixture[str]):
    assert main(["key"]) == 0
    key, digest, _ = (line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines())
    assert hashlib.sha256(key.encode()).hexdigest() == digest
