"""Tests of an optimized encoder in several threads: the outputs equal the outputs in one thread."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from threading import Event, get_ident

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.testing import assert_close

from nemo_squeezeformer.core.inference.kept_positions import EncodingTable, KeptLinear
from tests.samples.encoders import features, small_encoder

ROUNDING = 1e-5  # float32 products of other sizes
THREADS = 4


class StoppedTable(EncodingTable):
    """A table that stops the thread ``stopped`` after it has read ``rows`` for the ``reads``-th time."""

    def __init__(self, reads: int):
        self.reads, self.stopped = reads, 0
        self.reached, self.resumed = Event(), Event()
        super().__init__()

    @property
    def rows(self) -> Tensor | None:
        rows = self.current
        if get_ident() == self.stopped:
            self.reads -= 1
            if self.reads == 0:
                self.reached.set()
                assert self.resumed.wait(timeout=60)
        return rows

    @rows.setter
    def rows(self, rows: Tensor | None) -> None:
        self.current = rows


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("reads", range(1, 8))
def test_a_table_that_grows_in_another_thread_does_not_change_a_projection(reads, kept):
    """The other thread replaces the table between any two reads of the table."""
    table, x = StoppedTable(reads), torch.zeros(1, 1, 16)
    weight = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    layer = KeptLinear(weight, None, table)
    positions = table(9, -5, x)
    if kept:
        layer(positions)

    def project() -> Tensor:
        table.stopped = get_ident()
        try:
            return layer(positions)
        finally:
            table.reached.set()  # if the projection reads the table less often

    with ThreadPoolExecutor(1) as thread:
        projected = thread.submit(project)
        assert table.reached.wait(timeout=60)
        layer(table(500, -500, x))  # the table grows
        table.resumed.set()
    assert_close(projected.result(), linear(positions, weight), atol=ROUNDING, rtol=0)


def test_four_threads_get_the_outputs_of_one_thread():
    encoder = small_encoder(n_heads=2, time_reduce_idx=1)
    batches = [features(1, t, seed=t) for t in (900, 30, 2100, 250, 4000, 500)]
    with torch.inference_mode():
        expected = [encoder(x)[0] for x in batches]

    def transcribe(fast: torch.nn.Module, first: int) -> None:
        for i in range(first, first + len(batches)):  # each thread starts with another length
            at = i % len(batches)
            with torch.inference_mode():
                assert_close(fast(batches[at])[0], expected[at], atol=5 * ROUNDING, rtol=0)

    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(6):  # the table of a new copy is empty
            fast = copy.deepcopy(encoder).optimize_for_inference()
            for done in [threads.submit(transcribe, fast, first) for first in range(THREADS)]:
                done.result()
