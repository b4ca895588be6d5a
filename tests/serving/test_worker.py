"""The thread that calls functions one after another: results, errors, and the end of the program."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest

from nemo_squeezeformer.serving.worker import Worker


def test_calls_run_one_after_another_in_one_thread_and_return_results_and_errors():
    called: list[str] = []
    worker = Worker("calls", lambda: called.append("prepared"))
    first, second = worker.submit(called.append, "first"), worker.submit(divmod, 1, 0)
    third = worker.submit(list, called)
    worker.stop()
    assert first.result(10) is None and third.result(10) == ["prepared", "first"]
    with pytest.raises(ZeroDivisionError):
        second.result(10)


def test_the_end_of_a_call_is_awaited_for_a_limited_time():
    worker, go_on = Worker("calls"), threading.Event()
    call = worker.submit(go_on.wait, 20)
    worker.stop()
    assert not worker.join(0.1)
    go_on.set()
    assert worker.join(10) and call.result(0)


def test_a_thread_that_waits_keeps_no_arguments_results_or_errors():
    class Kept(Exception):
        pass

    def fail(kept):
        raise Kept

    worker, kept = Worker("calls"), Kept()
    same, failed = worker.submit(lambda given: given, kept), worker.submit(fail, kept)
    assert same.result(10) is kept and isinstance(failed.exception(10), Kept)
    objects = [weakref.ref(each) for each in (kept, failed.exception(), same, failed)]
    del kept, same, failed
    end = time.monotonic() + 10
    while any(each() for each in objects):  # the thread still forgets its last call
        gc.collect()
        assert time.monotonic() < end
        time.sleep(0.01)
    worker.stop()


def test_the_end_of_the_program_does_not_wait_for_a_call():
    program = (
        "import threading; from nemo_squeezeformer.serving.worker import Worker; begun = threading.Event();"
        "worker = Worker('calls'); worker.submit(lambda: (begun.set(), threading.Event().wait())); begun.wait()"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_a_program_with_a_running_call_can_end_without_pythons_finalization():
    program = (
        "import sys; from nemo_squeezeformer.process import program; program.end_without_finalizing(143);"
        "print('all', end=''); sys.exit(1)"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=60, stdout=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stdout) == (143, "all")
