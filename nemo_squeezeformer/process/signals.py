"""The signals that end a command: Ctrl-C, SIGTERM, and SIGHUP when the terminal closes.

The first signal raises KeyboardInterrupt or ``Terminated`` in the main thread. The command can then remove its
temporary files. A second signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from nemo_squeezeformer.errors import Terminated

TWICE = 0.5  # seconds in which a second signal is a copy of the first: `timeout` and Ctrl-C in a pipeline send copies
PATIENCE = 8.0  # seconds for which a signal can be put off; `docker stop` kills a process after 10 seconds
AGAIN = 0.05  # seconds until an exception that Python could not raise is raised again

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    WORDS[signal.SIGHUP] = "terminated, because the terminal has closed"
Handler = Any  # a function, or a constant of the module signal


class Signals:
    """The signals of one command: which signal has arrived, and whether its exception is put off.

    Attributes:
        received: the first signal that has arrived, or None.
        due: whether the exception of this signal is still to be raised.
        before_end: functions that a second signal calls before it ends the process.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.due = False
        self.before_end: list[Callable[[], object]] = []
        self._arrived = 0.0
        self._put_off = False
        self._notice = ""
        self._timer: threading.Timer | None = None
        self._handlers: dict[signal.Signals, Handler] = {}
        self._process = os.getpid()

    @property
    def status(self) -> int:
        """The exit status after the received signal, as a shell counts it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.received or 0)

    @property
    def word(self) -> str:
        """The word for the end of the command, for example "interrupted"."""
        return WORDS[self.received or signal.SIGTERM]

    @contextlib.contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals. Signals that the parent process ignores, for example after ``nohup``, stay ignored."""
        try:
            for number in WORDS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._handlers[number] = signal.signal(number, self._handle)
        except ValueError:  # only the main thread can handle signals
            pass
        unraisable, sys.unraisablehook = sys.unraisablehook, self._unraisable
        self._next_hook = unraisable
        try:
            yield
        finally:
            sys.unraisablehook = unraisable
            self.due = False
            self.restore()

    def restore(self) -> None:
        """Handle the signals as before the command."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def end(self) -> None:
        """Raise no further exception for the received signal, because the command is ending.

        A second Ctrl-C ends the process. Lightning ignores Ctrl-C after the first signal.
        """
        self._put_off = self.due = False
        if signal.SIGINT in self._handlers:
            signal.signal(signal.SIGINT, self._handle)

    def put_off(self, notice: str = "") -> None:
        """From now on, raise the exception of a signal only in ``check``, or ``PATIENCE`` seconds after the signal.

        Args:
            notice: a line that tells the user what Ctrl-C waits for. With a notice, only ``check`` raises the exception
                of Ctrl-C, because no other process waits for the end of this process.
        """
        self._put_off, self._notice = True, notice

    def hold(self) -> None:
        """Raise the exception of a signal that has arrived only in ``check``, however long this takes."""
        if self._timer is not None:
            self._timer.cancel()

    def stop_putting_off(self) -> None:
        """From now on, a signal raises its exception at once. Raise the exception of a signal that was put off."""
        self._put_off = False
        self.check()

    def check(self) -> None:
        """Raise the exception of a signal that has arrived since ``put_off``."""
        if self.due:
            self._raise()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that was forked, for example by multiprocessing
            if number != signal.SIGINT:
                self._end(number)
            elif not _is_data_worker():  # the command still needs the data, and then ends the data workers itself
                signal.default_int_handler(number, frame)
        elif self.received is None:
            self.received, self._arrived = signal.Signals(number), time.monotonic()
            self._raise_when_possible()
        elif self.due and not self._put_off:
            self._raise_when_possible()
        elif time.monotonic() - self._arrived > TWICE:
            for act in self.before_end:
                with contextlib.suppress(Exception):
                    act()
            self._end(number)

    def _raise_when_possible(self) -> None:
        self.due = True
        if self._put_off and self._notice and self.received == signal.SIGINT:
            with contextlib.suppress(OSError):  # the terminal can be gone
                os.write(2, f"\n{self._notice}\n".encode())  # print() could be interrupted inside another print()
        elif self._put_off:
            self._later(PATIENCE)
        elif _is_being_imported("torch"):  # an exception ends the process with abort() in C++ code of this import
            self._later(AGAIN)
        else:
            self._raise()

    def _raise(self) -> None:
        self._put_off = self.due = False
        raise KeyboardInterrupt if self.received == signal.SIGINT else Terminated

    def _later(self, seconds: float) -> None:
        """Raise the exception in the main thread after some seconds, unless ``check`` has raised it before."""

        def wake() -> None:
            if self.due:
                self._put_off = False
                signal.pthread_kill(threading.main_thread().ident or 0, self.received or signal.SIGTERM)

        self._timer = threading.Timer(seconds, wake)
        self._timer.daemon = True
        self._timer.start()

    def _unraisable(self, lost: Any) -> None:
        """Raise an exception again that arose where Python ignores exceptions, for example in a garbage collection."""
        if self.received is not None and issubclass(lost.exc_type, KeyboardInterrupt):
            self.due = True
            self._later(AGAIN)
        else:
            self._next_hook(lost)

    @staticmethod
    def _end(number: int) -> None:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _is_being_imported(module: str) -> bool:
    return getattr(getattr(sys.modules.get(module), "__spec__", None), "_initializing", False)


def _is_data_worker() -> bool:
    """Return True in a process that reads data for PyTorch. A terminal sends Ctrl-C also to this process."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None


current = Signals()


def run_until_signal(name: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit status. After a signal, print one line and return 130, 143 or 129.

    The function returns the status of the signal even if a library has turned the exception of the signal into another
    exception. For example, Lightning and extension modules during their import raise other exceptions.

    Args:
        name: the name of the program, which begins the line.
        command: the command. It returns the exit status.
    """
    global current
    before, current = current, Signals()
    said = ""
    try:
        with current.handled():
            try:
                status = command()
            except KeyboardInterrupt as error:
                if current.received is None:  # raised without a signal, for example by _thread.interrupt_main
                    current.received = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
                said = str(error)
            except BaseException:
                if current.received is None:
                    raise
            if current.received is None:
                return status
            if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes, only the first prints the line
                with contextlib.suppress(OSError, ValueError):  # the terminal can be gone
                    print(f"{name}: {current.word}{': ' if said else ''}{said}", file=sys.stderr, flush=True)
            return current.status
    finally:
        current = before
