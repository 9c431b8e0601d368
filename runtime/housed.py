"""A model whose code is at home in one thread, as a user's may be: by a connection to SQLite, say."""

from __future__ import annotations

from runtime.model import NOTHING, Arrays, Model, Parameters
from runtime.worker import Thread


class Housed:
    """A model that is run and closed in the thread in which it was made, whoever calls; its close ends the thread."""

    def __init__(self, model: Model, thread: Thread) -> None:
        self.name = model.name
        self.version = model.version
        self.platform = model.platform
        self.inputs = model.inputs
        self.outputs = model.outputs
        self.memory = model.memory
        self.reads_parameters = model.reads_parameters
        self.thread = thread
        self._model = model
        self._closed = False

    def run(self, arrays: Arrays, parameters: Parameters = NOTHING) -> Arrays:
        """Runs the model. Raises what it raises."""
        if self._closed:  # there is no thread any more; the model says so
            return self._model.run(arrays, parameters)
        return self.thread.call(lambda: self._model.run(arrays, parameters))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                self.thread.call(self._model.close)
            finally:
                self.thread.stop()
