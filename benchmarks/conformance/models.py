"""The models that both servers hold: the same settings files, and the same classes written for each of the two."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copyfile
from typing import Any, NamedTuple

from protos.tensors import DATATYPES
from tests.runtime.models import Mlp, save

_CLASSES = Path(__file__).parent / "classes"

BATCH_SECONDS = 0.5  # that calls wait for company


class _Model(NamedTuple):
    implementation: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    more: dict[str, Any]


def _tensor(name: str, datatype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _echo(datatype: str, *shape: int, made_of: str = "plain.Echo", **more: Any) -> _Model:
    return _Model(made_of, [_tensor("x", datatype, *shape)], [_tensor("y", datatype, *shape)], more)


_PAIR = [_tensor("a", "FP32", -1, 3), _tensor("b", "FP32", -1, 3)]
_BATCHED: dict[str, Any] = {"max_batch_size": 3, "max_batch_time": BATCH_SECONDS}

MODELS: dict[str, _Model] = {
    **{datatype.lower(): _echo(datatype, -1, -1) for datatype in DATATYPES if datatype not in {"BF16", "BYTES"}},
    "bytes": _echo("BYTES", -1, 1, made_of="plain.Text"),
    "vector": _echo("FP32", -1),
    "cube": _echo("FP32", -1, 2, 2),
    "choosy": _echo("FP32", -1, 1, made_of="plain.Choosy", platform="numpy"),
    "sum": _Model(
        "plain.Sum", _PAIR, [_tensor("sum", "FP32", -1, 3), _tensor("difference", "FP32", -1, 3)], {"platform": "numpy"}
    ),
    "batched": _echo("FP32", -1, -1, **_BATCHED),
    "net": _Model("runtime.TorchScriptModel", [_tensor("x", "FP32", -1, 4)], [_tensor("y", "FP32", -1, 1)], {}),
    "tells": _Model("hosted.Tells", [], [], {"platform": "told"}),
    "doubles": _echo("FP64", -1, 2, made_of="hosted.Doubles"),
    "special": _echo("FP64", -1, 2, made_of="hosted.Special"),
    "declared": _Model(
        "hosted.Tells",
        [{**_tensor("x", "BYTES", -1, 1), "parameters": {"content_type": "str"}}],
        [],
        {"platform": "told", "parameters": {"content_type": "np"}},
    ),
    "versions/1": _echo("FP32", -1, 1, parameters={"version": "1"}),
    "versions/2": _echo("FP32", -1, 1, parameters={"version": "2"}),
    "versions/10": _echo("FP32", -1, 1, parameters={"version": "10"}),
}

OURS: dict[str, _Model] = {"bf16": _echo("BF16", -1, -1)}  # MLServer refuses the datatype

# Not there when the servers start: MLServer does not start with a model that does not load.
LATER: dict[str, _Model] = {
    "late": _echo("FP32", -1, 1),
    "broken": _echo("FP32", -1, 1, made_of="plain.Missing"),
}


def write(root: Path, models: dict[str, _Model], *, theirs: bool) -> None:
    """Writes the folders of `models` below `root`, for MLServer or for us."""
    for path, model in models.items():
        folder = root / path
        folder.mkdir(parents=True)
        settings = {"name": path.partition("/")[0], "implementation": model.implementation, **model.more}
        settings |= {"inputs": model.inputs, "outputs": model.outputs}
        if model.implementation == "runtime.TorchScriptModel":
            save(Mlp(), folder / "model.pt")
        else:
            copyfile(_CLASSES / ("theirs.py" if theirs else "ours.py"), folder / "plain.py")
            copyfile(_CLASSES / "hosted.py", folder / "hosted.py")
        (folder / "model-settings.json").write_text(json.dumps(settings))
