"""Every block of the README is run: its commands, its configuration, its client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.e2e.models import write_model
from tests.process import ROOT, Router

FEATURES = {"name": "features", "datatype": "FP32", "shape": [-1, 10, 12]}  # what the README's client sends
PROBABILITY = {"name": "probability", "datatype": "FP32", "shape": [-1, 1]}


class Chance(torch.nn.Module):
    """A stand-in for a model of the demo."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=[1, 2]).sigmoid().unsqueeze(1)


def blocks() -> list[tuple[str, str]]:
    """The fenced blocks of the README, as (language, text)."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


def block(language: str, beginning: str) -> str:
    """The one block of a language that begins so."""
    (text,) = [text for found, text in blocks() if found == language and text.startswith(beginning)]
    return text


MAKE = block("sh", "make demo")
CONFIG = block("yaml", "# croupier.yaml")
SERVE = block("sh", "croupier check")
CLIENT = block("python", "import numpy")
CURL = block("sh", "curl")
PICTURES = [text for language, text in blocks() if language == "text"]


def test_no_block_is_left_out():
    """What is shown is run, here or below; pictures are marked as text."""
    run = [MAKE, CONFIG, SERVE, CLIENT, CURL]
    assert sorted(text for _, text in blocks()) == sorted([*run, *PICTURES])


@pytest.mark.parametrize("command", MAKE.splitlines())
def test_the_first_commands_are_targets(command):
    """`make demo` and `make test` exist; CI runs both in full, which a test inside `make test` cannot."""
    program, target = command.split()
    assert program == "make"
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The README's configuration beside a folder of models with its names, on any free ports."""
    home = tmp_path_factory.mktemp("readme")
    for name in ("lstm", "transformer"):
        write_model(home / "models" / name, Chance(), inputs=[FEATURES], outputs=[PROBABILITY])
    (home / "croupier.yaml").write_text(
        f"listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nlinger_seconds: 0\n{CONFIG}", "utf-8"
    )
    return home


@pytest.fixture(scope="module")
def router(folder):
    """`croupier serve croupier.yaml`."""
    assert SERVE.splitlines() == ["croupier check croupier.yaml", "croupier serve croupier.yaml"]
    with Router(folder / "croupier.yaml") as process:
        yield process


def run(command: list[str], text: str, folder: Path, router: Router | None = None) -> str:
    """What a block prints; it fails when the block does. Its ports are replaced by the server's."""
    if router is not None:
        text = text.replace("127.0.0.1:8080", router.address).replace("127.0.0.1:8082", router.admin)
        text = text.replace("croupier report volatility", f"croupier report volatility --server {router.address}")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_configuration_is_right(folder):
    assert "is right" in run(["bash", "-eu"], SERVE.splitlines()[0], folder)


def test_the_client_infers_and_is_paid(folder, router):
    assert re.match(r"(lstm|transformer) 0\.\d+ \[\[", run([sys.executable, "-"], CLIENT, folder, router))


def test_the_commands_answer(folder, router):
    printed = run(["bash", "-euo", "pipefail"], CURL, folder, router)
    assert '"platform":"croupier_route"' in printed
    assert '"policy_version"' in printed
    assert '"arm"' in printed
    assert "croupier_request_seconds_bucket" in printed
    assert "mean reward" in printed
