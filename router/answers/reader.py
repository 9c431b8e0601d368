"""A thread with its own handle to the store, for what takes long: nobody who learns waits for whoever reads a log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from router.stores import Store

T = TypeVar("T")


class Reader:
    """Runs functions of a store, one at a time. The store is opened when it is first asked for."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        """`open_store` is called in the thread, and may raise StoreError; then the next one who asks tries again."""
        self._open = open_store
        self._store: Store | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    async def __call__(self, work: Callable[[Store], T], /) -> T:
        """What `work` returns or raises. Raises StoreError too."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))

    def close(self) -> None:
        """Lets go of the store, once the work that has begun is done."""
        self._thread.shutdown(cancel_futures=True)
        if self._store is not None:
            self._store.close()
            self._store = None

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open()
        return self._store
