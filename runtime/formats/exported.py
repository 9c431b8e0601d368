"""`.pt2` archives: exported programs, which run anywhere, and AOTInductor packages, compiled for one kind of machine.

The archive's content tells which it is. Inputs go by the names of `forward`'s arguments; a compiled package knows those
that were given by keyword at its export, and the others go in the order of the settings. Outputs go by name where
`forward` returns a dict, else by order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from protos.errors import CallError, FailedPrecondition, Internal
from runtime.formats import compiled, exported_program
from runtime.formats.gpu import on_gpu, wants_graphs
from runtime.formats.program import Program
from runtime.formats.pytorch import array_of, check_declared, device_of, reason, silence, tensor_of, use_threads
from runtime.model import NOTHING, Arrays, Parameters, shares_runs, told
from runtime.naming import naming
from runtime.options import TORCHSCRIPT
from runtime.repository import locate
from runtime.sample import read_sample
from runtime.settings import FILE, ModelSettings
from runtime.warmup import NO_SAMPLE, examples
from runtime.words import described

WELL_KNOWN = ("model.pt2",)

Ways = Sequence[Callable[[int | None], Arrays]]  # to make inputs of so many rows; one that the program takes will do


def load(settings: ModelSettings, folder: Path) -> ExportedModel:
    """Loads the archive of a model folder. Raises FailedPrecondition saying what is wrong with it or its settings."""
    silence()
    path = locate(folder, settings.uri, WELL_KNOWN)
    with naming(folder / FILE):
        check_declared(settings)
        graphs = wants_graphs(settings)
        device = device_of(settings)
        sample = read_sample(folder, settings)
        inputs = sample.inputs if sample else NO_SAMPLE
        return ExportedModel(_program(path, settings, device), settings, device, graphs=graphs, sample=inputs)


class ExportedModel:
    """An exported program or a compiled package on one device, tried out with rows of `sample`, if there are any."""

    reads_parameters = False

    def __init__(
        self,
        program: Program,
        settings: ModelSettings,
        device: torch.device,
        *,
        graphs: bool,
        sample: Arrays,
    ) -> None:
        self.name = settings.name
        self.version = settings.version
        self.platform = settings.platform or program.platform
        self.inputs = settings.inputs
        self.outputs = settings.outputs
        self.memory = program.memory
        self._order = program.input_order([spec.name for spec in settings.inputs])
        names = [spec.name for spec in settings.outputs]
        self._positions = list(zip(names, program.output_positions(names), strict=True))
        self._run: Callable[[list[torch.Tensor]], Sequence[Any]] | None = program.run
        self._gradients = program.gradients
        self._free = program.free
        self._writes = program.writes
        self._threads = settings.options.threads
        self._fewest = 0  # rows that the program takes; fewer are filled up
        specs = {spec.name: spec for spec in settings.inputs}
        self._gpu = on_gpu(self.name, self._on_tensors, [specs[name] for name in self._order], device, reason)
        try:
            self._try_out(settings, sample)
        except FailedPrecondition:
            self.close()
            raise
        if self._gpu is not None and graphs:
            self._gpu.capture(settings.max_batch_size, self._fewest)

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Runs the program. Raises Internal with what PyTorch says."""
        if self._fewest and (rows := len(arrays[self._order[0]])) < self._fewest:
            filled = {name: _filled(array, self._fewest) for name, array in arrays.items()}
            return {name: array[:rows] for name, array in self._answer(filled).items()}
        return self._answer(arrays)

    def differentiable(self) -> Callable[[Mapping[str, torch.Tensor]], Mapping[str, Any]]:
        """The program as a function of tensors by name. Raises FailedPrecondition for a compiled package."""
        forward = self._gradients
        if forward is None:
            raise FailedPrecondition("a compiled package has no gradients; serve the exported program")

        def call(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
            given = [tensors[name] for name in self._order]
            rows = len(given[0])
            if rows < self._fewest:
                given = [torch.cat([each, each.new_zeros(self._fewest - rows, *each.shape[1:])]) for each in given]
            values = forward(*given)
            return {name: values[position][:rows] for name, position in self._positions}

        return call

    def close(self) -> None:
        """Drops the program, and with it its memory."""
        self._run = self._gradients = None
        self._free()
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def _on_tensors(self, tensors: list[torch.Tensor]) -> Mapping[str, Any]:
        if self._run is None:
            raise Internal("the model is closed")
        values = self._run(tensors)
        return {name: values[position] for name, position in self._positions}

    def _answer(self, arrays: Arrays) -> Arrays:
        if self._run is None:
            raise Internal("the model is closed")
        use_threads(self._threads)
        if self._gpu is not None:
            return self._gpu.run(arrays)
        try:
            values = self._run([tensor_of(arrays[name], None, writes=self._writes) for name in self._order])
        except Exception as error:
            raise Internal(reason(error)) from error
        return {name: array_of(name, values[position]) for name, position in self._positions}

    def _try_out(self, settings: ModelSettings, sample: Arrays) -> None:
        """Finds the fewest rows that the program takes, and whether it writes to its inputs: nothing declares either.

        PyTorch exports for two rows or more where it is not told otherwise. Raises FailedPrecondition when the program
        takes one number of rows only, though any is declared.
        """
        rng = np.random.default_rng(0)
        made = partial(examples, self.inputs, rng=rng, free_size=settings.options.warm_up_size, sample=sample)
        # Floats of both signs, so that a rectifier in place shows; a GPU works on copies.
        ways = [partial(made, half=-1), made] if self._gpu is None else [made]
        if not shares_runs(self, settings.max_batch_size):
            self._try(None, ways)
            return
        fewest = next((rows for rows in (1, 2) if self._takes(rows, ways)), 2)
        self._try(fewest, ways)
        if not self._takes(fewest + 1, ways):
            raise FailedPrecondition(
                f"inputs: any number of rows is declared, and the program takes {fewest} only: export it with a "
                f"dynamic first dimension, or declare a shape that begins with {fewest}"
            )
        self._fewest = fewest

    def _takes(self, rows: int | None, ways: Ways) -> bool:
        try:
            self._try(rows, ways)
        except CallError:
            return False
        return True

    def _try(self, rows: int | None, ways: Ways) -> None:
        *others, last = ways
        if any(self._takes(rows, [way]) for way in others):
            return
        arrays = last(rows)
        before = {name: array.tobytes() for name, array in arrays.items()}
        try:
            self._answer(arrays)
        except CallError as error:
            tried = described({name: told(array) for name, array in arrays.items()})
            raise FailedPrecondition(
                f"the program does not take its declared inputs, {tried}: {error.message}"
            ) from error
        self._writes = self._writes or any(array.tobytes() != before[name] for name, array in arrays.items())


def _program(path: Path, settings: ModelSettings, device: torch.device) -> Program:
    try:
        with ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]  # all lie in one folder
    except BadZipFile as error:
        raise FailedPrecondition(f"{path.name} is not a PyTorch archive: {reason(error)}") from error
    if any(name.startswith(compiled.FOLDER) for name in names):
        return compiled.load_compiled(path, names, device)
    if "constants.pkl" in names:
        raise FailedPrecondition(f'{path.name} is TorchScript: its implementation is "{TORCHSCRIPT}"')
    return exported_program.load_exported(path, settings.inputs, device)


def _filled(array: NDArray[Any], rows: int) -> NDArray[Any]:
    filled = np.zeros((rows, *array.shape[1:]), array.dtype)
    filled[: len(array)] = array
    return filled
