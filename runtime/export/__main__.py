"""`python -m runtime.export MODULE:FACTORY FOLDER --example ...` writes a PyTorch module as a model folder."""

from __future__ import annotations

import argparse
import importlib
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from torch import Tensor, nn

from protos.errors import CallError, FailedPrecondition
from protos.tensors import DATATYPES
from runtime.export.archives import FORMATS
from runtime.export.folder import SUMS, export
from runtime.formats.pytorch import reason, tensor_of

_SHAPED = re.compile(r"(?P<name>\w+)=(?P<datatype>\w+)\[ *(?P<shape>(\d+( *, *\d+\*?)*)?) *,? *\]")


def main(argv: Sequence[str] | None = None, *, prog: str = "croupier export") -> int:
    """Exports as the command line says. Returns the exit status: 1 after a sentence on stderr when it cannot."""
    told = _parser(prog).parse_args(argv)
    try:
        export(
            _module(told.module),
            _example(told.example),
            told.folder,
            free=_free(told.example),
            name=told.name,
            outputs=told.output,
            formats=told.format or ("pt", "pt2"),
            dynamic_batch=not told.fixed_batch,
        )
    except CallError as error:
        print(f"{prog}: {error.message}", file=sys.stderr)
        return 1
    for line in (told.folder / SUMS).read_text("utf-8").splitlines():
        print(line)
    print(f"each answers as the module does; next: croupier runtime {told.folder}")
    return 0


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=prog, description="Writes a PyTorch module as a folder that serves it.")
    parser.add_argument("module", metavar="MODULE:FACTORY", help="what returns the nn.Module, or is it: net:build")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the model's own folder, named as the model")
    parser.add_argument(
        "--example",
        action="append",
        required=True,
        metavar="NAME=DATATYPE[SHAPE]",
        help="an argument of forward, filled with random numbers: x=FP32[2,20]; x=FP32[2,10*,8] where the second size "
        "may be any other, too; or a file of arrays: example.npz",
    )
    parser.add_argument("--name", default="", help="what clients ask for (default: the folder's name)")
    parser.add_argument(
        "--output", action="append", default=[], metavar="NAME", help="of what forward returns, in order"
    )
    parser.add_argument(
        "--format", action="append", choices=list(FORMATS), help="the first is served (default: pt, pt2)"
    )
    parser.add_argument("--fixed-batch", action="store_true", help="the first dimension does not count rows")
    return parser


def _module(where: str) -> nn.Module:
    name, _, attribute = where.partition(":")
    sys.path.insert(0, "")  # as for `python -m`: the user's module lies in the current folder
    try:
        found: Any = getattr(importlib.import_module(name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise FailedPrecondition(f"{where!r} is not MODULE:FACTORY: {error}") from error
    except Exception as error:
        raise FailedPrecondition(f"importing {name} fails: {_at(error)}") from error
    try:
        made = found if isinstance(found, nn.Module) else found()
    except Exception as error:
        raise FailedPrecondition(f"{where} fails: {_at(error)}") from error
    if not isinstance(made, nn.Module):
        raise FailedPrecondition(f"{where} returns {type(made).__name__}, not an nn.Module")
    return made


def _at(error: Exception) -> str:
    """What a user's code raised, and the last line of it that ran."""
    says = f"{type(error).__name__}: {reason(error)}"
    if isinstance(error, SyntaxError):  # which says where
        return says
    *_, frame = traceback.extract_tb(error.__traceback__)
    return f"{Path(frame.filename).name}, line {frame.lineno}: {says}"


def _example(told: Sequence[str]) -> Mapping[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for each in told:
        if each.endswith(".npz"):
            try:
                # Opened here, as NumPy closes no file that is broken.
                with Path(each).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                    tensors |= {name: tensor_of(file[name], None, writes=True) for name in file.files}
            except (OSError, ValueError, EOFError, TypeError, BadZipFile) as error:
                says = f"--example {each}: not a file of numbers that np.savez wrote: {error}"
                raise FailedPrecondition(says) from error
        else:
            tensors |= _random(each)
    return tensors


def _free(told: Sequence[str]) -> Mapping[str, Sequence[int]]:
    """The axes with a star."""
    shapes = {match["name"]: match["shape"].split(",") for each in told if (match := _SHAPED.fullmatch(each))}
    return {name: [axis for axis, size in enumerate(sizes) if "*" in size] for name, sizes in shapes.items()}


def _random(told: str) -> Mapping[str, Tensor]:
    match = _SHAPED.fullmatch(told)
    if match is None or match["datatype"] not in DATATYPES or match["datatype"] == "BYTES":
        raise FailedPrecondition(
            f"--example {told}: write NAME=DATATYPE[SHAPE], such as x=FP32[2,20] or "
            f"x=FP32[2,10*,8], whose second size may be any other, too; or a file.npz"
        )
    shape = [int(size.strip(" *")) for size in match["shape"].split(",") if size]
    random = np.random.default_rng(0)
    dtype = DATATYPES[match["datatype"]]
    # Integers may be places in a table, of which the first is always there.
    array = np.zeros(shape, dtype) if dtype.kind in "biu" else random.standard_normal(shape).astype(dtype)
    return {match["name"]: tensor_of(array, None, writes=True)}


if __name__ == "__main__":
    sys.exit(main())
