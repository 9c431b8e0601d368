"""The command line, as far as it needs no server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from router.__main__ import main
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
