"""A thread that calls functions one after another. The end of the program does not wait for the thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Worker:
    """A thread that calls functions one after another.

    The threads of ``concurrent.futures`` end before the program ends, so Ctrl-C would wait for the whole file.

    Args:
        name: the name of the thread.
        prepare: is called once in the thread, before the first function.
    """

    def __init__(self, name: str, prepare: Callable[[], None] = lambda: None):
        self.calls: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None]
        self.calls = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, args=(prepare,), name=name, daemon=True)
        self.thread.start()

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        """Call ``function(*args)`` in the thread. Return its future result."""
        future: Future[Any] = Future()
        self.calls.put((future, function, args))
        return future

    def stop(self) -> None:
        """End the thread after the functions that are submitted."""
        self.calls.put(None)

    def join(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for the end of the thread after ``stop``. Return True if the thread has ended."""
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _run(self, prepare: Callable[[], None]) -> None:
        prepare()
        while (call := self.calls.get()) is not None:
            future, function, args = call
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*args))
                except BaseException as error:
                    future.set_exception(error)
            del call, future, function, args  # the thread can wait for hours, and these objects can be large
