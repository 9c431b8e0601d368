"""The command line, as far as it needs no server."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from protos.errors import Unavailable
from router import check
from router.__main__ import main
from router.call import Batch, Credit, Decision, Outcome
from router.config import Arm
from router.stores import open_store
from router.upstreams import Upstream
from router.upstreams.connections import Connections
from tests.router.fakes import FakeUpstream
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


def test_a_store_that_nothing_can_be_is_found_without_opening_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    for store, said in (
        ("mongo://somewhere", "unknown store with scheme 'mongo'"),
        ("redis://somewhere?prefx=a", "the store in Redis: unknown setting 'prefx'"),
    ):
        path.write_text(SMALL + f"store: {store}")
        assert main(["check", str(path)]) == 1
        assert f"croupier: {path}: store: {said}" in capsys.readouterr().err


LOCAL = "models: .\nroutes: {r: {arms: {a: {model: a}, b: {model: b}}}}\n"


def test_where_nothing_can_be_reached_only_connecting_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    for store, said in (
        (f"redis://127.0.0.1:1/0?password_file={tmp_path}/secret", "secret cannot be read"),
        ("redis://127.0.0.1:1/0", "redis://127.0.0.1:1/0?prefix=croupier does not answer"),
        (f"sqlite:{tmp_path}/not/there/croupier.db", "there is no folder"),
        (f"sqlite:{path}", "file is not a database"),
    ):
        path.write_text(LOCAL + f"store: {store}")
        assert main(["check", str(path)]) == 0
        assert main(["check", str(path), "--connect"]) == 1
        (fault,) = capsys.readouterr().err.splitlines()
        assert fault.startswith(f"croupier: {path}: store: ")
        assert said in fault


def test_a_store_that_can_be_made_or_opened_passes_and_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    path.write_text(LOCAL + "store: sqlite:log.db")
    assert main(["check", str(path), "--connect"]) == 0
    assert list(tmp_path.iterdir()) == [path]
    open_store(f"sqlite:{tmp_path / 'log.db'}").close()
    assert main(["check", str(path), "--connect"]) == 0
    assert capsys.readouterr().err == ""


REMOTE = """
routes:
  r:
    arms:
      a: {{model: m, target: "{first}"}}
      b: {{model: m, target: "{second}"}}
      both: {{ensemble: {{members: {{a: 1, b: 1}}}}}}
store: "memory:"
"""


def test_remote_arms_are_asked_whether_they_are_there_and_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    takes = {"first:1": [("x", "FP64", [-1])], "second:1": [("x", "FP32", [-1])], "other:1": [("x", "FP64", [-1])]}

    class Fakes(Connections):
        async def _connect(self, arm: Arm) -> Upstream:
            upstream = FakeUpstream(arm.model, takes.get(arm.where, []))
            upstream.away = None if arm.where in takes else Unavailable("nobody answers")
            return upstream

    monkeypatch.setattr(check, "Connections", Fakes)
    path = tmp_path / "routes.yaml"
    for first, second, faults in (
        ("first:1", "other:1", []),
        ("first:1", "away:1", ["arms.b: nobody answers"]),
        ("first:1", "second:1", ["arms.both: ", "arms: b takes [('x', 'FP32', (-1,))], but a takes"]),
    ):
        path.write_text(REMOTE.format(first=first, second=second))
        assert main(["check", str(path), "--connect"]) == int(bool(faults))
        told = capsys.readouterr().err.splitlines()
        for fault in faults:
            assert any(f"croupier: {path}: routes.r.{fault}" in line for line in told), told


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
