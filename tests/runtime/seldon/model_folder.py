"""A model's folder as Seldon's agent leaves it for the server: copied, and its settings rewritten with a loss.

Written from what the agent of Seldon Core 2.10 does; the code is ours.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.settings import FILE

VERSION = "1"  # of every model: the agent counts generations in the name

# Whatever else a settings file has is gone once the agent has written it.
_KEPT = ("name", "inputs", "outputs", "platform", "versions", "parallel_workers", "implementation", "parameters")
_KEPT_OF_TENSOR = ("name", "shape", "datatype")
_KEPT_OF_PARAMETERS = ("uri", "version", "format", "content_type", "extra", "environment_tarball")


def place(source: Path, root: Path, name: str, parameters: Mapping[str, str]) -> Path:
    """Copies a model into `root/NAME/1` and rewrites its settings; `parameters` are those of the Model resource."""
    folder = root / name / VERSION
    shutil.copytree(source, folder)
    settings = json.loads((folder / FILE).read_bytes())
    (folder / FILE).write_text(json.dumps(rewritten(settings, name, parameters)))
    return folder


def rewritten(settings: Mapping[str, Any], name: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Settings after they went through the agent's struct: what it has no field for is dropped, extras are strings."""
    kept = _only(settings, _KEPT)
    for key in ("inputs", "outputs"):
        if key in kept:
            kept[key] = [_only(tensor, _KEPT_OF_TENSOR) for tensor in kept[key]]
    told = _only(kept.get("parameters") or {}, _KEPT_OF_PARAMETERS)
    if parameters:
        told["extra"] = {**(told.get("extra") or {}), **parameters}
    return {**kept, "name": name, "parameters": {**told, "version": VERSION}}


def snapshot(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every path below `root` with its mode, its time of change and a hash of what it holds.

    Two that are equal say that nothing was written in between: root's writes are stopped by no mode.
    """
    return {
        str(path.relative_to(root)): (path.stat().st_mode, path.stat().st_ctime_ns, _hash(path))
        for path in sorted(root.rglob("*"))
    }


def _only(settings: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: settings[key] for key in keys if key in settings}


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
