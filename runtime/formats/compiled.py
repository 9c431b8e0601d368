"""AOTInductor packages: what `torch._inductor.aoti_compile_and_package` writes.

A package is machine code. That it fits is checked before it is loaded: run elsewhere, it would end the process.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from zipfile import ZipFile

import msgspec
import torch
from torch._C import _aoti
from torch.utils import _pytree as pytree

from protos.errors import FailedPrecondition
from runtime.formats.program import Program, names_of
from runtime.formats.pytorch import load_error, reason
from runtime.words import quoted

FOLDER = "data/aotinductor/"  # of an archive, one folder in it for each model
TORCH_VERSION = "torch_version"  # the key of the metadata under which `runtime.export` writes it; PyTorch does not
SOURCES = (".cpp", ".json")
PLATFORM = "pytorch_aotinductor"
AGAIN = "compile it again here, or serve the exported program, which runs anywhere"

# What a processor must have for the vector instructions that PyTorch's compiler names. Other names say no more than the
# kind of machine does.
_NEEDS = {
    "AVX2": ("avx2", "fma3"),
    "AVX512": ("avx512_f", "avx512_dq", "avx512_bw", "avx512_vl"),
    "AVX512_VNNI": ("avx512_vnni",),
    "AMX_TILE": ("amx_tile",),
    "AMX_FP16": ("amx_fp16",),
}

# A package trusts the shapes and datatypes that it is given, unless this is set before its first run.
os.environ.setdefault("AOTI_RUNTIME_CHECK_INPUTS", "1")


def load_compiled(path: Path, names: list[str], device: torch.device) -> Program:
    """The one model of a package whose archive has these names. Raises FailedPrecondition where it does not fit."""
    models = sorted({name.removeprefix(FOLDER).split("/")[0] for name in names if name.startswith(FOLDER)})
    if len(models) != 1:
        raise FailedPrecondition(f"{path.name} holds the models {quoted(models)}; package each by itself")
    check_fit(path, device)
    try:
        # Not by `aoti_load_package`, which first tries out which instructions a C++ compiler here knows.
        index = -1 if device.type == "cpu" else device.index or 0
        loader = _aoti.AOTIModelPackageLoader(str(path), models[0], True, 1, index)
    except Exception as error:
        what = reason(error).partition(".so: ")
        raise load_error(
            f"{path.name} does not load under PyTorch {torch.__version__}: {what[2] or what[0]}; {AGAIN}", error
        ) from error
    inputs, outputs = (pytree.treespec_loads(spec) for spec in loader.get_call_spec())
    arguments, keywords = inputs.children()
    return Program(
        run=loader.boxed_run,
        inputs=[*names_of(arguments, "takes"), *names_of(keywords, "takes")],
        outputs=names_of(outputs, "returns"),
        writes=False,
        platform=PLATFORM,
        memory=_held(path),
    )


def check_fit(path: Path, device: torch.device) -> None:
    """Raises FailedPrecondition unless the package was compiled for such a machine, device and version."""
    told = _metadata(path)
    here = {
        "AOTI_PLATFORM": sys.platform,
        "AOTI_MACHINE": platform.machine(),
        "AOTI_DEVICE_KEY": device.type,
    }
    if device.type == "cuda":
        here["AOTI_COMPUTE_CAPABILITY"] = "{}{}".format(*torch.cuda.get_device_capability(device))
    unfit = [(_said(key, told[key]), _said(key, value)) for key, value in here.items() if told.get(key, value) != value]
    version = told.get(TORCH_VERSION, torch.__version__)
    if _minor(version) != _minor(torch.__version__):
        unfit.append((f"PyTorch {version}", f"PyTorch {torch.__version__}"))
    instructions = told.get("AOTI_CPU_ISA", "")
    if missing := _missing(instructions):
        unfit.append((instructions, f"a processor without {missing}"))
    if unfit:
        for_what, on_what = (" and ".join(words) for words in zip(*unfit, strict=True))
        raise FailedPrecondition(f"{path.name} was compiled for {for_what}; this is {on_what}; {AGAIN}")


def _metadata(path: Path) -> dict[str, str]:
    told: dict[str, str] = {}
    with ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith("_metadata.json"):
                told |= msgspec.json.decode(archive.read(name), type=dict[str, str])
    return told


def _held(path: Path) -> int:
    """Bytes of what is loaded: the weights, most often in the library itself, and its code, which it does not tell."""
    with ZipFile(path) as archive:
        files = archive.infolist()
    return sum(each.file_size for each in files if "/data/" in each.filename and not each.filename.endswith(SOURCES))


def _missing(instructions: str) -> str:
    """Which of the vector instructions that a package uses this processor lacks."""
    here = torch.cpu.get_capabilities()
    needs = (need for word in instructions.split() for need in _NEEDS.get(word, ()))
    return ", ".join(need for need in needs if not here.get(need))


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _said(key: str, value: str) -> str:
    return f"compute capability {value}" if key == "AOTI_COMPUTE_CAPABILITY" else value
