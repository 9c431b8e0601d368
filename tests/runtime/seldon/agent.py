"""Seldon's agent as a model server meets it: control plane over gRPC, data plane over gRPC and REST.

Written from what the agent of Seldon Core 2.10 does; the code is ours. Its many goroutines are the threads of whoever
calls: every method may be called by several at once.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import httpx

from protos.messages import (
    ModelInferRequest,
    ModelInferResponse,
    RepositoryIndexRequest,
    RepositoryIndexResponse,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerLiveRequest,
    ServerLiveResponse,
)
from protos.v2 import SERVICE
from tests.runtime.seldon.model_folder import place
from tests.runtime.seldon.retry import retried

CONNECTIONS = 10
LOAD_SECONDS, UNLOAD_SECONDS, CONTROL_SECONDS = 3600, 120, 60
HEALED = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE)  # by a load, and one more try
HEALED_HTTP = (404, 400)
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 1000 << 20),
    ("grpc.max_send_message_length", 1000 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_PATH = re.compile(r"^/v2/models/[^/]+(/versions/[^/]+)?")


class Sent(NamedTuple):
    """One call that the server got."""

    method: str
    model: str


class Answer(NamedTuple):
    """What a client gets through the agent: of the server's metadata, the trailers only."""

    response: ModelInferResponse
    trailers: dict[str, str]


@dataclass
class _Model:
    """One generation of a model: `NAME_GENERATION`."""

    internal: str
    folder: Path
    memory: int
    loaded: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


class Agent:
    """The agent beside one server, which serves the folder `models` of `root` and loads nothing by itself.

    `memory` holds what is loaded at a time; `overcommit` percent more may be registered, and the least recently used
    is then unloaded until somebody asks for it. A generation that was replaced goes after `grace` seconds.
    """

    def __init__(
        self, root: Path, address: str, *, memory: int = 1000, overcommit: int = 0, grace: float = 0.0
    ) -> None:
        self.models = root / "models"
        self.models.mkdir(parents=True, exist_ok=True)
        self.sent: list[Sent] = []  # for a test to look at, and to clear
        self._grace = grace
        self._memory = memory
        self._registered_memory = memory * (100 + overcommit) // 100
        self._channels = [grpc.insecure_channel(address, options=_OPTIONS) for _ in range(CONNECTIONS)]
        self._http = httpx.Client(base_url=f"http://{address}", timeout=CONTROL_SECONDS)
        self._registered: dict[str, _Model] = {}  # by internal name
        self._serving: dict[str, _Model] = {}  # by the name that clients know
        self._recent: OrderedDict[str, _Model] = OrderedDict()  # loaded, the least recently used first
        self._lock = threading.Lock()

    def start(self) -> None:
        """Waits until the server lives, then has it unload whatever it has."""
        if not ServerLiveResponse.FromString(self._control("ServerLive", ServerLiveRequest())).live:
            raise RuntimeError("the server says that it does not live")
        index = RepositoryIndexResponse.FromString(self._control("RepositoryIndex", RepositoryIndexRequest()))
        for each in index.models:
            if each.name and each.state in ("READY", "LOADING"):
                self._unload(each.name)

    def load_all(self, sources: Mapping[str, Path]) -> None:
        """Loads models at the same time, as the scheduler asks for those of a new replica."""
        with ThreadPoolExecutor(max(1, len(sources))) as pool:
            for _ in pool.map(self.load, sources, sources.values()):
                pass

    def load(self, name: str, source: Path, *, memory: int = 1, **parameters: str) -> str:
        """Loads a model, or its next generation beside the one before, which is then unloaded. The internal name.

        `parameters` are those of the Model resource. Raises grpc.RpcError where the server refuses, and leaves
        nothing behind then.
        """
        before = self._serving.get(name)
        generation = int(before.internal.rpartition("_")[2]) + 1 if before else 1
        internal = f"{name}_{generation}"
        with self._lock:
            if sum(each.memory for each in self._registered.values()) + memory > self._registered_memory:
                raise RuntimeError(f"there is no memory for {internal}")
            model = _Model(internal, self.models / internal, memory)
            self._registered[internal] = model
        try:
            place(source, self.models, internal, parameters)
            self._ensure_loaded(model)
        except Exception:
            self._forget(model)
            raise
        self._serving[name] = model
        if before is not None:
            time.sleep(self._grace)
            self._drop(before)
        return internal

    def unload(self, name: str) -> None:
        """Takes a model away, from the server and then from the disk."""
        self._drop(self._serving.pop(name))

    def drain(self) -> None:
        """Before the pod ends: the scheduler has moved the models elsewhere, and takes them away here."""
        for name in list(self._serving):
            self.unload(name)

    def infer(
        self, name: str, request: ModelInferRequest, *, timeout: float = 60.0, metadata: Mapping[str, str] | None = None
    ) -> Answer:
        """Passes a client's call on, under the internal name; loads the model and repeats where that may help."""
        model = self._serving[name]
        asked = ModelInferRequest()
        asked.CopyFrom(request)
        asked.model_name, asked.model_version = model.internal, ""
        body, headers = asked.SerializeToString(), self._headers(name, model, metadata or {})
        self._ensure_loaded(model)
        try:
            return self._infer(model, body, headers, timeout)
        except grpc.RpcError as error:
            if error.code() not in HEALED:
                raise
        self._reload(model)
        return self._infer(model, body, headers, timeout)

    def infer_rest(
        self, path: str, body: Mapping[str, Any], metadata: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Passes POST /v2/models/NAME[/versions/V]/infer on to the internal name; loads and repeats as `infer` does."""
        if "/infer" not in path:
            return httpx.Response(400, text="no valid marker found in path")
        name = path.split("/")[3]
        model = self._serving[name]
        headers = dict(self._headers(name, model, metadata or {}))
        path = _PATH.sub(f"/v2/models/{model.internal}", path)
        self._ensure_loaded(model)
        for last in (False, True):
            self.sent.append(Sent(path, model.internal))
            response = self._http.post(path, content=json.dumps(body), headers=headers)
            if last or response.status_code not in HEALED_HTTP:
                break
            self._reload(model)
        return response

    def close(self) -> None:
        for channel in self._channels:
            channel.close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _infer(self, model: _Model, body: bytes, headers: list[tuple[str, str]], timeout: float) -> Answer:
        def once() -> Answer:
            answer, call = self._method("ModelInfer", model.internal).with_call(body, timeout, headers)
            trailers = {each.key: each.value for each in call.trailing_metadata()}
            return Answer(ModelInferResponse.FromString(answer), trailers)

        return retried(once)

    @staticmethod
    def _headers(name: str, model: _Model, metadata: Mapping[str, str]) -> list[tuple[str, str]]:
        ours = {
            "seldon-model": name,
            "seldon-internal-model": model.internal,
            "x-request-id": uuid.uuid4().hex,
            "traceparent": f"00-{uuid.uuid4().hex}-{uuid.uuid4().hex[:16]}-01",
        }
        return list({**ours, **metadata}.items())

    def _ensure_loaded(self, model: _Model) -> None:
        """Loads a model that was evicted, or never loaded; marks it as the most recently used."""
        with self._lock:
            if model.loaded and model.internal in self._recent:
                self._recent.move_to_end(model.internal)
                return
        with model.lock:
            if model.loaded:
                return
            try:
                # Locks are waited for in the order in which rooms were made, so never in a circle.
                for victim in self._make_room(model):
                    with victim.lock:
                        self._unload(victim.internal)
                        victim.loaded = False
                self._load(model.internal)
            except Exception:
                with self._lock:
                    self._recent.pop(model.internal, None)
                raise
            model.loaded = True

    def _make_room(self, model: _Model) -> list[_Model]:
        """Gives `model` its memory and takes it from the least recently used, who have to go."""
        with self._lock:
            victims = []
            loaded = sum(each.memory for each in self._recent.values())
            while loaded + model.memory > self._memory:
                _, victim = self._recent.popitem(last=False)
                victims.append(victim)
                loaded -= victim.memory
            self._recent[model.internal] = model
            return victims

    def _reload(self, model: _Model) -> None:
        with model.lock:
            self._load(model.internal)

    def _drop(self, model: _Model) -> None:
        with model.lock:
            self._unload(model.internal)
        self._forget(model)

    def _forget(self, model: _Model) -> None:
        with self._lock:
            self._registered.pop(model.internal, None)
            self._recent.pop(model.internal, None)
        shutil.rmtree(model.folder.parent / model.internal, ignore_errors=True)

    def _load(self, internal: str) -> None:
        self._control("RepositoryModelLoad", RepositoryModelLoadRequest(model_name=internal), internal, LOAD_SECONDS)

    def _unload(self, internal: str) -> None:
        try:
            request = RepositoryModelUnloadRequest(model_name=internal)
            self._control("RepositoryModelUnload", request, internal, UNLOAD_SECONDS)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    def _control(self, method: str, request: Any, model: str = "", timeout: float = CONTROL_SECONDS) -> bytes:
        body = request.SerializeToString()
        answer: bytes = retried(lambda: self._method(method, model)(body, timeout))
        return answer

    def _method(self, method: str, model: str) -> Any:
        self.sent.append(Sent(method, model))
        return random.choice(self._channels).unary_unary(SERVICE + method)
