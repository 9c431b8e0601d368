from __future__ import annotations

import numpy as np
import pytest

from runtime.export.__main__ import main
from tests.runtime.models import load_from
from tests.runtime.test_export import settings_of

NETWORK = """\
from tests.runtime.models import Mlp

def build():
    return Mlp()

class Fails:
    def __init__(self):
        raise KeyError("no weights")
"""


NO_EXAMPLES = ("broken.npz", "empty.npz", "one.npz", "texts.npz")


@pytest.fixture
def network(tmp_path, monkeypatch):
    """A user's module in the current folder, and what is no example for it."""
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4")
    (tmp_path / "empty.npz").touch()
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(tmp_path / "texts.npz", x=np.array(["a"]))
    (tmp_path / "network.py").write_text(NETWORK)
    (tmp_path / "typo.py").write_text("def build(:")
    (tmp_path / "early.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("module", ["network:build", "network:Mlp"])
def test_the_command_exports_and_says_what_it_wrote(tmp_path, capsys, module):
    assert main([module, "models/mlp", "--example", "x=FP32[2, 4]", "--output", "y", "--format", "pt"]) == 0
    *sums, end = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in sums] == ["model.pt", "warm-up.npz"]
    assert end == "each answers as the module does; next: croupier runtime models/mlp"
    assert load_from(tmp_path / "models", "mlp").run({"x": np.zeros((3, 4), np.float32)})["y"].shape == (3, 1)


@pytest.mark.usefixtures("network")
def test_the_command_is_told_of_a_free_size_by_a_star(tmp_path):
    assert main(["network:build", "m", "--example", "x=FP32[2, 3*, 4]"]) == 0
    assert settings_of(tmp_path / "m")["inputs"][0]["shape"] == [-1, -1, 4]


@pytest.mark.usefixtures("network")
def test_the_command_takes_an_example_from_a_file(tmp_path):
    np.savez("example.npz", x=np.ones((5, 4), np.float32))
    assert main(["network:build", "m", "--example", "example.npz", "--fixed-batch", "--name", "n"]) == 0
    assert settings_of(tmp_path / "m")["name"] == "n"
    assert settings_of(tmp_path / "m")["inputs"][0]["shape"] == [5, 4]


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["network", "--example", "x=FP32[2,4]"], "'network' is not MODULE:FACTORY"),
        (["network:nobody", "--example", "x=FP32[2,4]"], "'network:nobody' is not MODULE:FACTORY"),
        (["nobody:build", "--example", "x=FP32[2,4]"], "No module named 'nobody'"),
        (
            ["network:Fails", "--example", "x=FP32[2,4]"],
            "network:Fails fails: network.py, line 8: KeyError: 'no weights'",
        ),
        (
            ["typo:build", "--example", "x=FP32[2,4]"],
            "importing typo fails: SyntaxError: invalid syntax (typo.py, line 1)",
        ),
        (["early:build", "--example", "x=FP32[2,4]"], "importing early fails: early.py, line 1: ZeroDivisionError: "),
        (["builtins:dict", "--example", "x=FP32[2,4]"], "builtins:dict returns dict, not an nn.Module"),
        (["network:build", "--example", "x=F32[2,4]"], "--example x=F32[2,4]: write NAME=DATATYPE[SHAPE]"),
        (["network:build", "--example", "x=FP32[2,-1]"], "or x=FP32[2,10*,8], whose second size may be any other"),
        (["network:build", "--example", "x=FP32[2 4]"], "--example x=FP32[2 4]: write NAME=DATATYPE[SHAPE]"),
        (["network:build", "--example", "x=BYTES[2]"], "--example x=BYTES[2]: write NAME=DATATYPE[SHAPE]"),
        (["network:build", "--example", "nobody.npz"], "--example nobody.npz: "),
        *((["network:build", "--example", each], f"--example {each}: not a file of numbers") for each in NO_EXAMPLES),
        (["network:build", "--example", "x=FP32[2,5]"], "the module does not take the example"),
    ],
)
def test_the_command_says_what_is_wrong(tmp_path, capsys, arguments, says):
    assert main([*arguments[:1], "m", *arguments[1:]]) == 1
    complained = capsys.readouterr().err
    assert complained.startswith("croupier export: ")
    assert says in complained
    assert complained.count("\n") == 1
    assert not (tmp_path / "m").exists()
