"""What the formats that PyTorch runs have in common: devices, threads, and tensors in and out.

Arrays become tensors and tensors arrays without a copy where they can.
"""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal
from runtime.settings import ModelSettings

# PyTorch's modules are 100,000 objects that live as long as the process. Walking them made each full collection a pause
# of 100 ms; frozen, they are walked no more. Before any model is loaded, as a frozen cycle is never freed.
gc.freeze()

_FULL = re.compile(r"CUDA (error: )?out of memory|CU\w+_STATUS_ALLOC_FAILED")


def check_declared(settings: ModelSettings) -> None:
    """Raises FailedPrecondition unless inputs and outputs are declared, of datatypes that PyTorch has."""
    for key, specs in (("inputs", settings.inputs), ("outputs", settings.outputs)):
        if not specs:
            raise FailedPrecondition(f"{key}: none declared, and an archive does not say its shapes")
        for spec in specs:
            if spec.datatype == "BYTES":
                raise FailedPrecondition(f"{key}: {spec.name!r} is BYTES; PyTorch has no such tensors")


def device_of(settings: ModelSettings) -> torch.device:
    """The device that the settings name, a GPU by its number. Raises FailedPrecondition when it is not there."""
    where, name = "parameters.extra.device", settings.options.device
    try:
        device = torch.device(name)
    except RuntimeError:
        raise FailedPrecondition(f"{where}: {name!r} is no device; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise FailedPrecondition(f"{where}: {name!r} is not supported; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise FailedPrecondition(f"{where}: {name!r} is not there; PyTorch sees {found} CUDA devices")
    # Without a number it would be whichever a thread used last.
    return device if device.type == "cpu" else torch.device(device.type, device.index or 0)


def use_threads(count: int) -> None:
    """Lets PyTorch take `count` threads for what this thread runs from now on."""
    # OpenMP keeps its number by thread: set elsewhere, it would leave two cores spinning for a small product here. A
    # user's code may have set another here. Asked first, as the first use in a thread takes over the one set last.
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def tensor_of(array: NDArray[Any], device: torch.device | None, *, writes: bool) -> torch.Tensor:
    """An array as a tensor on a device, None being the CPU; a copy if it lies badly, or if a model `writes` to it."""
    if writes or not array.flags.aligned:
        array = array.copy()  # a request's bytes are not the model's to change, nor what an ensemble's members share
    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor if device is None else tensor.to(device)


def array_of(name: str, value: Any) -> NDArray[Any]:
    """The value of an output as an array. Raises Internal when it is no tensor."""
    if not isinstance(value, torch.Tensor):
        raise Internal(f"output {name!r} is {type(value).__name__}, not a tensor")
    value = value.cpu()
    if value.dtype == torch.bfloat16:
        bits: NDArray[Any] = value.view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    array: NDArray[Any] = value.numpy()
    return array


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """What tensors hold in memory; those that share it count once, and sparse ones not at all."""
    storages = [each.untyped_storage() for each in tensors if each.layout is torch.strided]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())


def reason(error: Exception) -> str:
    """The first sentence of what PyTorch says, without the advice and the stack of C++ frames after it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[0].partition(". ")[0]


def is_full(error: Exception) -> bool:
    """Whether it says that a GPU has no memory left: a script's errors have lost their class."""
    return _FULL.search(str(error)) is not None


def load_error(sentence: str, error: Exception) -> FailedPrecondition:
    """`sentence`, unless the GPU failed: then nothing need be wrong with the file."""
    if is_full(error) or "CUDA error" in str(error):
        return FailedPrecondition(f"it cannot be put on the GPU: {reason(error)}")
    return FailedPrecondition(sentence)


def silence(*messages: str) -> None:
    """Hides warnings that are no news to whoever serves a model: those that begin so, and that arrays are read-only."""
    # At each load, not once at import: whoever runs us, pytest for one, may have put other filters back meanwhile.
    for message in messages:
        warnings.filterwarnings("ignore", message)
    # A request's bytes are read-only, which `tensor_of` sees to.
    warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
