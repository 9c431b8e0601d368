"""Triton's server, from the wheel of PyTriton, with a TorchScript model in its Python backend.

The wheel has no PyTorch backend, so this is what Triton costs a model that Python runs, as ours does. It needs an
older NumPy than ours: both go into an environment of their own, build/triton, at the first use. PyTorch is ours.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.process import Server, free_port, server

FOLDER = Path(__file__).parents[1] / "build" / "triton"
PACKAGES = ("nvidia-pytriton==0.7.0", "numpy==1.26.4")
MAX_BATCH = 64
_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SITE = FOLDER / "lib" / f"python{_PYTHON}" / "site-packages"
_SERVER = _SITE / "pytriton" / "tritonserver"
_BACKEND = _SERVER / "backends" / "python"
_STUB = "triton_python_backend_stub"

_MODEL = """
import numpy as np
import torch
import triton_python_backend_utils as pb

torch.set_num_threads(1)


class TritonPythonModel:
    def initialize(self, args):
        path = f"{args['model_repository']}/{args['model_version']}/model.pt"
        self.net = torch.jit.freeze(torch.jit.load(path).eval())

    def execute(self, requests):
        xs = [pb.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        with torch.inference_mode():
            y = self.net(torch.from_numpy(np.concatenate(xs) if len(xs) > 1 else xs[0])).numpy()
        ends = np.cumsum([len(x) for x in xs])[:-1]
        return [pb.InferenceResponse([pb.Tensor("y", each)]) for each in np.split(y, ends)]
"""


def install() -> None:
    """Downloads the server once, by pip. Raises RuntimeError, with pip's words, when it cannot be had."""
    installed = FOLDER / "installed"
    if installed.exists():
        return
    print("downloading Triton ...", file=sys.stderr, flush=True)
    venv.create(FOLDER, clear=True, symlinks=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(_SITE), *PACKAGES]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Triton cannot be had: {done.stderr.strip()[-1000:]}")
    # Behind its own packages, so that its NumPy comes first.
    (_SITE / "ours.pth").write_text(f"{Path(torch.__file__).parents[1]}\n")
    shutil.copy(_SERVER / "python_backend_stubs" / _PYTHON / _STUB, _BACKEND)
    for binary in (_SERVER / "bin" / "tritonserver", _BACKEND / _STUB):
        binary.chmod(0o755)
    installed.touch()


def write_model(repository: Path, name: str, archive: Path, x: Sequence[int], y: Sequence[int]) -> None:
    """A model folder for Triton: FP32 tensors "x" and "y" with these shapes, without the rows, batched as they come."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    shutil.copy(archive, version / "model.pt")
    (version / "model.py").write_text(_MODEL)

    def tensor(name: str, shape: Sequence[int]) -> str:
        return f'[{{ name: "{name}" data_type: TYPE_FP32 dims: {list(shape)} }}]'

    (repository / name / "config.pbtxt").write_text(
        f'backend: "python"\nmax_batch_size: {MAX_BATCH}\ndynamic_batching {{ }}\n'
        f"input {tensor('x', x)}\noutput {tensor('y', y)}\n"
    )


@contextmanager
def triton(repository: Path, log: Path) -> Iterator[tuple[Server, str]]:
    """The server and its gRPC address. Raises RuntimeError where it does not start."""
    install()
    port = free_port()
    options = {
        "model-repository": repository,
        "backend-directory": _SERVER / "backends",
        "grpc-port": port,
        "grpc-address": "127.0.0.1",
        "allow-http": "false",
        "allow-metrics": "false",
        "backend-config": f"python,shm-region-prefix-name=croupier-{os.getpid()}",
    }
    command = [str(_SERVER / "bin" / "tritonserver"), *(f"--{key}={value}" for key, value in options.items())]
    with server(command, log, folder=repository, environment=_environment()) as process:
        process.wait_for(rf"Started GRPCInferenceService at \S*:{port}")
        yield process, f"127.0.0.1:{port}"


def _environment() -> Mapping[str, str]:
    # The backend heeds no PYTHONPATH: it looks for its interpreter's environment in PATH.
    libraries = [_SITE / "nvidia_pytriton.libs", sysconfig.get_config_var("LIBDIR"), _BACKEND]
    return {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "PATH": f"{FOLDER / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
