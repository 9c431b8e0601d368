"""How a model for a GPU is tried out on the CPU, and which are not. `test_swap.py` has what comes of it."""

from __future__ import annotations

import json
from zipfile import ZipFile

import pytest
import torch

from protos.errors import FailedPrecondition
from runtime.formats import compiled
from runtime.formats.rehearsal import on_cpu
from runtime.options import FormatOptions
from runtime.settings import FILE, read_settings
from tests.runtime.models import put


@pytest.mark.parametrize("implementation", ["runtime.TorchScriptModel", "runtime.OnnxModel"])
def test_only_the_device_and_its_graphs_change(tmp_path, implementation):
    """ONNX Runtime has no graphs here, and says so itself."""
    extra = {"device": "cuda", "cuda_graphs": True, "threads": 2, "warm_up_size": 3}
    put(tmp_path, "m", None, implementation=implementation, parameters={"extra": extra})
    there = on_cpu(read_settings(tmp_path / "m" / FILE, name="m", version=""), tmp_path / "m")
    assert there is not None
    graphs = implementation == "runtime.OnnxModel"
    assert there.options == FormatOptions(device="cpu", cuda_graphs=graphs, threads=2, warm_up_size=3)


@pytest.mark.parametrize(
    ("device", "rehearsed"),
    [("cpu", True), ("cuda", False)],
)
def test_an_exported_program_whose_weights_were_on_a_gpu_is_not_tried_out(tmp_path, device, rehearsed):
    put(tmp_path, "m", None, implementation="runtime.ExportedModel", parameters={"extra": {"device": "cuda"}})
    meta = {"tensor_meta": {"device": {"type": device, "index": None}}}
    with ZipFile(tmp_path / "m" / "model.pt2", "w") as archive:
        archive.writestr("m/data/weights/model_weights_config.json", json.dumps({"config": {"w": meta}}))
    settings = read_settings(tmp_path / "m" / FILE, name="m", version="")
    there = on_cpu(settings, tmp_path / "m")
    assert (there is not None) == rehearsed
    assert there is None or there.options.device == "cpu"


def test_a_package_compiled_for_another_gpu_is_refused_before_the_old_one_goes(tmp_path, monkeypatch):
    put(tmp_path, "m", None, implementation="runtime.ExportedModel", parameters={"extra": {"device": "cuda"}})
    with ZipFile(tmp_path / "m" / "model.pt2", "w") as archive:
        told = {"AOTI_DEVICE_KEY": "cuda", "AOTI_COMPUTE_CAPABILITY": "80"}
        archive.writestr(f"m/{compiled.FOLDER}model/m_metadata.json", json.dumps(told))
    settings = read_settings(tmp_path / "m" / FILE, name="m", version="")
    monkeypatch.setattr("runtime.formats.rehearsal.device_of", lambda _: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert on_cpu(settings, tmp_path / "m") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    with pytest.raises(FailedPrecondition, match="was compiled for compute capability 80; this is compute capability"):
        on_cpu(settings, tmp_path / "m")
