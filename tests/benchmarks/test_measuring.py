"""Tests of the shared benchmark code: times of alternate calls, memory, equal encoders, files of results."""

from __future__ import annotations

import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest
import torch

from benchmarks.measuring import memory, timing
from benchmarks.measuring.encoders import Encoders, utterances
from benchmarks.measuring.forms import CONFORMER, FORMS, OURS
from benchmarks.measuring.results import Results


def test_the_encoders_have_equal_parameters():
    encoders = Encoders("s")
    count = {
        form.network: sum(p.numel() for p in encoders.build(name).parameters())
        for name, form in FORMS.items()
        if form.target in (OURS, CONFORMER) and form.exact and not form.optimised
    }
    assert count["4x"] == 18_540_424  # the published size
    assert all(abs(one / count["4x"] - 1) < 0.03 for one in count.values()), count
    assert abs(count["FastConformer"] / count["8x"] - 1) < 0.01


def test_measurements_under_other_conditions_are_refused(tmp_path):
    path, conditions = tmp_path / "cpu.json", {"machine": "one", "size": "quick"}
    Results(path, conditions, "a").add("memory", {"seconds": 1}, {"ours": {"MiB": 1.0}}, {})
    assert Results(path, conditions, "b").missing("memory", {"seconds": 1}, ["ours", "in-tree"]) == ["in-tree"]
    with pytest.raises(ValueError, match="machine: 'one', now 'another'.*another --output"):
        Results(path, conditions | {"machine": "another"}, "a")


def test_calls_alternate_and_a_fast_function_is_called_more_often():
    order, now = [], [0.0]

    def work(name: str, seconds: float) -> None:
        order.append(name)
        now[0] += seconds

    calls = {"slow": partial(work, "slow", 0.25), "fast": partial(work, "fast", 0.0625)}
    took = timing.interleaved(calls, patience=0.5, fewest=2, most=12, clock=lambda: now[0])
    assert took == {"slow": 2 * [0.25], "fast": 8 * [0.0625]}
    assert order[2:] == ["fast", "fast", "slow", "fast", "fast", "fast", "fast", "slow", "fast", "fast"]
    more = partial(timing.further_calls, patience=2.0, fewest=5, most=20)
    # A long first call counts.
    assert [more(first) for first in (0.01, 0.2, 0.9, 1.5, 6.0, 30.0)] == [20, 10, 5, 3, 1, 0]
    assert timing.quartiles([3.0]) == [3.0, 3.0, 3.0]


def test_calls_of_the_warm_up_do_not_count():
    order: list[str] = []
    calls = {name: partial(order.append, name) for name in ("one", "two")}
    took = timing.alternately(calls, 3, warm_up=2)
    assert order == 5 * ["one", "two"] and [len(seconds) for seconds in took.values()] == [3, 3]


def prepare_ones(mebibytes: int):
    torch.ones(1000).sum()  # warm-up, which loads libraries
    return lambda: torch.ones(mebibytes, 2**18).sum()


def prepare_failure():
    raise ValueError("no such encoder")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_peak_memory_counts_only_the_call():
    # In this process, the tensor could use free memory that earlier tests have left.
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        for mebibytes in (32, 96):
            # On a busy machine the kernel may take pages from the process during the call. Then a peak is too small.
            calls = [fresh.submit(memory.peak_in_a_process, partial(prepare_ones, mebibytes), 1) for _ in range(3)]
            assert max(call.result() for call in calls) == pytest.approx(mebibytes, abs=4)
    with pytest.raises(RuntimeError, match="ValueError: no such encoder"):
        memory.peak_in_a_process(prepare_failure, 1)


def test_utterances_of_a_batch_are_padded():
    inputs = utterances(3, 8)
    assert inputs["audio_signal"].shape == (8, 80, 300)
    assert inputs["length"].tolist()[0] == 150 and inputs["length"].tolist()[-1] == 300
    assert utterances(3, 1)["length"].tolist() == [300]
