"""ONNX models, run by ONNX Runtime. Needs the extra `onnx`.

Inputs and outputs go by name. Where the settings declare none, the file's own are served; declared outputs may be some
of them. Text is UTF-8: the protocol's BYTES are the file's strings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protos.errors import FailedPrecondition, Internal, InvalidArgument
from protos.tensors import DATATYPES
from runtime.formats.onnx_weights import weights_of
from runtime.model import NOTHING, Arrays, Parameters, TensorSpec
from runtime.naming import naming
from runtime.options import FormatOptions
from runtime.repository import locate
from runtime.settings import FILE, ModelSettings
from runtime.words import quoted

try:
    import onnxruntime
except ImportError as missing:
    raise FailedPrecondition(
        "ONNX models need ONNX Runtime: pip install 'croupier[onnx]', or onnxruntime-gpu for CUDA"
    ) from missing

PLATFORM = "onnxruntime_onnx"
WELL_KNOWN = ("model.onnx",)

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


def load(settings: ModelSettings, folder: Path) -> OnnxModel:
    """Loads the file of a model folder. Raises FailedPrecondition saying what is wrong with it or its settings."""
    path = locate(folder, settings.uri, WELL_KNOWN)
    with naming(folder / FILE):
        return OnnxModel(path, settings)


class OnnxModel:
    """An ONNX graph in a session of its own, with threads of its own if it has more than one."""

    reads_parameters = False

    def __init__(self, path: Path, settings: ModelSettings) -> None:
        if isinstance(settings.options, FormatOptions) and settings.options.cuda_graphs:
            raise FailedPrecondition("parameters.extra.cuda_graphs: ONNX Runtime has none here; PyTorch's formats have")
        provider = _provider(settings.options.device)
        try:
            session = onnxruntime.InferenceSession(path, _options(settings.options.threads), providers=[provider])
        except Exception as error:
            raise FailedPrecondition(f"{path.name} is not an ONNX model: {_reason(error)}") from error
        self.name = settings.name
        self.version = settings.version
        self.platform = settings.platform or PLATFORM
        self.inputs = _specs("inputs", session.get_inputs(), settings.inputs, all_needed=True)
        self.outputs = _specs("outputs", session.get_outputs(), settings.outputs, all_needed=False)
        self.memory = weights_of(path)
        self._names = [spec.name for spec in self.outputs]
        self._texts = [spec.name for spec in self.inputs if spec.datatype == "BYTES"]
        self._session: onnxruntime.InferenceSession | None = session

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Runs the graph. Raises Internal with what ONNX Runtime says, and InvalidArgument for text not in UTF-8."""
        if self._session is None:
            raise Internal("the model is closed")
        given = {name: array if array.flags.aligned else array.copy() for name, array in arrays.items()}
        for name in self._texts:
            given[name] = _decoded(name, arrays[name])
        try:
            outputs = self._session.run(self._names, given)
        except Exception as error:
            raise Internal(_reason(error)) from error
        return {name: _encoded(array) for name, array in zip(self._names, outputs, strict=True)}

    def close(self) -> None:
        """Drops the session, and with it its memory."""
        self._session = None


def _options(threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Threads that spin while they wait take a core from whoever serves.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors, which are raised too
    return options


def _provider(device: str) -> tuple[str, dict[str, Any]]:
    """Who runs the graph, and where. Raises FailedPrecondition when the device is none, or is not there."""
    kind, _, index = device.partition(":")
    if device == "cpu":
        return "CPUExecutionProvider", {}
    if kind != "cuda" or not (index or "0").isdecimal():
        raise FailedPrecondition(f"parameters.extra.device: {device!r} is no device; use cpu, cuda or cuda:N")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise FailedPrecondition(
            f"parameters.extra.device: {device!r} is not there for ONNX Runtime; install onnxruntime-gpu in its place"
        )
    return "CUDAExecutionProvider", {"device_id": int(index or 0)}


def _specs(key: str, found: list[Any], declared: tuple[TensorSpec, ...], *, all_needed: bool) -> tuple[TensorSpec, ...]:
    """What the settings declare, held against the file; the file's own where they declare nothing."""
    if not declared:
        return tuple(_spec(key, each) for each in found)
    by_name = {each.name: each for each in found}
    names = [spec.name for spec in declared]
    if not set(names) <= by_name.keys() or (all_needed and len(names) < len(by_name)):
        raise FailedPrecondition(f"{key}: {quoted(names)} declared; the file has {quoted(by_name)}")
    for spec in declared:
        theirs = _spec(key, by_name[spec.name])
        shape = theirs.shape or spec.shape  # the file need not say one
        if (
            spec.datatype != theirs.datatype
            or len(spec.shape) != len(shape)
            or any(its not in (-1, size) for size, its in zip(spec.shape, shape, strict=True))
        ):
            raise FailedPrecondition(
                f"{key}: {spec.name!r} is declared {spec}; the file has {theirs}: declare that, or convert it anew"
            )
    return declared


def _spec(key: str, found: Any) -> TensorSpec:
    datatype = _DATATYPES.get(found.type)
    if datatype is None:
        raise FailedPrecondition(
            f"{key}: {found.name!r} is a {found.type}, which is not served; declare the others, or convert the model "
            f"without it (zipmap=False, for one of scikit-learn)"
        )
    shape = [size if isinstance(size, int) else -1 for size in found.shape or ()]
    return TensorSpec(found.name, datatype, tuple(shape))


def _decoded(name: str, array: NDArray[Any]) -> NDArray[Any]:
    # ONNX Runtime would take the spelling of a bytes object, b'...', for its text.
    try:
        texts = [element.decode() for element in array.ravel()]
    except UnicodeDecodeError:
        raise InvalidArgument(f"input {name!r} is not UTF-8, which ONNX's strings are") from None
    return np.array(texts, np.object_).reshape(array.shape)


def _encoded(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype != DATATYPES["BYTES"]:
        return array
    return np.array([text.encode() for text in array.ravel()], np.object_).reshape(array.shape)


def _reason(error: Exception) -> str:
    """What ONNX Runtime says on one line, without its own code before it."""
    return _CODE.sub("", " ".join(str(error).split()))
