"""The command line, as far as it needs no server."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protos.errors import Unavailable
from router import check
from router.__main__ import main, welcome
from router.call import Batch, Credit, Decision, Outcome
from router.config import Arm, Config, Route
from router.config import Client as Known
from router.stores import open_store
from router.upstreams import Upstream
from router.upstreams.connections import Connections
from tests.certificates import Authority
from tests.router.fakes import FakeUpstream
from tests.router.test_config import SMALL
from tests.router.test_reference import model_at


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


LOCAL = "models: models\nroutes: {r: {arms: {a: {model: a}, b: {model: b}}}}\n"


def models_at(folder: Path) -> Path:
    """A folder of models, as far as nobody loads them: `a`, and `b` in versions."""
    for name in ("a", "b/1", "b/2"):
        model_at(folder / "models" / name)
    return folder / "models"


@pytest.mark.parametrize("command", ["check", "serve"])
def test_what_is_not_on_this_machine_is_told_by_check_as_by_serve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
):
    """Before a store is opened or a port is bound; all of it at once."""
    path, models = tmp_path / "routes.yaml", models_at(tmp_path)
    authority = Authority(tmp_path)
    certificate, key = authority.sign("router")
    other, _ = authority.sign("other")
    model_at(models / "c")
    (models / "c" / "model-settings.json").write_text("{")
    path.write_text(
        f"""
models: models
tls: {{certificate: {certificate}, key: {other.with_suffix(".key")}}}
admin_tls: {{certificate: {certificate}, key: {key}, client_ca: {key}}}
routes:
  r:
    arms:
      there: {{model: b, version: "2"}}
      absent: {{model: nowhere}}
      older: {{model: b, version: "3"}}
      broken: {{model: c}}
      both: {{ensemble: {{members: {{inside: 1}}, arms: {{inside: {{model: lost}}}}}}}}
      trusting: {{model: m, target: "h:1", tls: {{ca: {key}}}}}
"""
    )
    assert main([command, str(path)]) == 1
    told = [line.removeprefix(f"croupier: {path}: ") for line in capsys.readouterr().err.splitlines()]
    assert told[:3] == [
        f"routes.r.arms.absent: there is no model 'nowhere' in {models}",
        f"routes.r.arms.older: there is no version '3' of model 'b' in {models}; there are '1', '2'",
        told[2],
    ]
    assert told[2].startswith(f"routes.r.arms.broken: {models / 'c' / 'model-settings.json'}: ")
    assert told[3:] == [
        f"routes.r.arms.both.ensemble.arms.inside: there is no model 'lost' in {models}",
        f"routes.r.arms.trusting: tls.ca: {key} holds no certificate in PEM",
        f"tls.key: {other.with_suffix('.key')} is the key of another certificate",
        f"admin_tls.client_ca: {key} holds no certificate in PEM",
    ]


def test_a_log_to_begin_with_in_which_there_is_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    path.write_text(LOCAL.replace("r: {", "r: {warm_start: {route: nothere}, ") + "store: sqlite:log.db")
    models_at(tmp_path)
    said = f"croupier: {path}: routes.r.warm_start.route: the store has no decision of 'nothere'\n"
    assert main(["check", str(path), "--connect"]) == 1
    assert capsys.readouterr().err == said, "a store that is not there yet"
    store = open_store(f"sqlite:{tmp_path / 'log.db'}")
    try:
        assert main(["check", str(path), "--connect"]) == 1
        assert capsys.readouterr().err == said
        store.commit(Batch([Decision("d1", "nothere", "a", 0.5, 1.0, "v")]))
    finally:
        store.close()
    assert main(["check", str(path), "--connect"]) == 0


def test_where_nothing_can_be_reached_only_connecting_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    models_at(tmp_path)
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
    before = {path, models_at(tmp_path)}
    assert main(["check", str(path), "--connect"]) == 0
    assert set(tmp_path.iterdir()) == before
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
    said = "nobody answers at 127.0.0.1:1: start it, name it with --server, or give --ca where it speaks TLS"
    assert capsys.readouterr().err == f"croupier: {said}\n"


def test_files_for_tls_that_cannot_be_used_are_a_sentence(capsys: pytest.CaptureFixture[str]):
    for options, said in (
        (["--ca", "/nowhere"], "tls.ca: /nowhere cannot be read: No such file or directory"),
        (["--key", "mine.key"], "--key: a certificate and its key go together; give both or neither"),
    ):
        assert main(["report", "r", *options]) == 1
        assert capsys.readouterr().err == f"croupier: {said}\n"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--most=-1", "argument --most: expected a whole number from 0, got '-1'"),
        ("--alpha=5", "argument --alpha: expected a number between 0 and 1, got '5'"),
        ("--alpha=nan", "argument --alpha: expected a number between 0 and 1, got 'nan'"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anybody_is_asked(
    capsys: pytest.CaptureFixture[str], option: str, said: str
):
    with pytest.raises(SystemExit):
        main(["evaluate", "r", "--policy", "policy.yaml", option])
    assert said in capsys.readouterr().err


def test_where_clients_are_known_by_keys_what_to_try_sends_one():
    routes = {"r": Route(arms={"a": Arm(model="m", target="h:1")})}
    curl, report = "curl http://h:1/v2/models/r", "croupier report r --server h:1"
    open_to_all, keyed = Config(routes=routes), Config(routes=routes, clients={"desk": Known(key_sha256="0" * 64)})
    assert welcome(open_to_all, "h:1", "h:2").splitlines()[-1] == f"try: {curl}   or: {report}"
    with_key = f'{curl} -H "authorization: Bearer $CROUPIER_KEY"'
    assert welcome(keyed, "h:1", "h:2").splitlines()[-1] == f"try: {with_key}   or: {report}"


@pytest.mark.parametrize("argv", [[], ["report"]])
def test_help_says_where_a_key_goes(argv: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main([*argv, "--help"])
    assert "CROUPIER_KEY" in capsys.readouterr().out


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


def test_a_reader_who_has_seen_enough_is_no_error():
    """As in `croupier report ROUTE | head -1`: the pipe is gone before all is written."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "router", "key"], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_key_is_printed_with_what_the_configuration_has_of_it(capsys: pytest.CaptureFixture[str]):
    assert main(["key"]) == 0
    key, digest, *_ = (line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines())
    assert hashlib.sha256(key.encode()).hexdigest() == digest
