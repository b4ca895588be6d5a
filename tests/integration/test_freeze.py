"""Tests of freezing from several threads: the encoder is as before when the last thread has finished."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.asr_models import asr_model
from tests.samples.encoders import SMALL

THREADS = 4


def in_thread(call: Callable[[], None]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def trained(encoder: torch.nn.Module) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


def partly_trained() -> SqueezeformerEncoder:
    encoder = SqueezeformerEncoder(**SMALL, time_reduce_idx=1)
    encoder.layers[0].requires_grad_(False)
    return encoder


class Transcription:
    """A thread that freezes an encoder and unfreezes it partially when it is told to end."""

    def __init__(self, encoder: SqueezeformerEncoder):
        self.begun, self.told = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, args=(encoder,))
        self.thread.start()
        assert self.begun.wait(10)

    def run(self, encoder: SqueezeformerEncoder) -> None:
        encoder.freeze()
        self.begun.set()
        self.told.wait(10)
        encoder.unfreeze(partial=True)

    def end(self) -> None:
        self.told.set()
        self.thread.join()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_the_last_of_several_threads_restores_the_encoder(order, training):
    encoder = partly_trained().train(training)
    before = trained(encoder)
    transcriptions = [Transcription(encoder) for _ in range(THREADS)]
    for which in order:
        assert not trained(encoder) and not encoder.training
        transcriptions[which].end()
    assert trained(encoder) == before and encoder.training is training


def test_a_thread_does_not_unfreeze_an_encoder_that_the_user_has_frozen():
    encoder = partly_trained().train()
    before = trained(encoder)
    encoder.freeze()
    Transcription(encoder).end()
    assert not trained(encoder) and not encoder.training
    encoder.unfreeze(partial=True)
    assert trained(encoder) == before and encoder.training


def test_a_full_unfreeze_ends_all_freezes():
    encoder = partly_trained()
    in_thread(encoder.freeze)
    encoder.freeze()
    encoder.unfreeze()
    assert trained(encoder) == {name for name, _ in encoder.named_parameters()} and encoder.training
    with pytest.raises(ValueError, match="without first freezing"):
        encoder.unfreeze(partial=True)


def test_a_thread_that_ended_without_unfreezing_does_not_count():
    encoder = partly_trained().train()
    in_thread(encoder.freeze)
    encoder.unfreeze(partial=True)
    assert len(trained(encoder)) > 100 and encoder.training


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_of_a_frozen_encoder_can_be_unfrozen(copied):
    encoder = partly_trained().train()
    before = trained(encoder)
    encoder.freeze()
    again = copied(encoder)
    assert not trained(again)
    again.unfreeze(partial=True)
    assert trained(again) == before and again.training
    assert not trained(encoder) and not encoder.training


def test_four_threads_that_transcribe_leave_the_encoder_as_it_was():
    model = asr_model()
    model.encoder.layers[0].requires_grad_(False)
    before, noise = trained(model.encoder), np.random.default_rng(0)
    sounds = [0.1 * noise.standard_normal(4000 + 800 * i).astype(np.float32) for i in range(THREADS)]
    together = threading.Barrier(THREADS)

    def transcribe(sound: np.ndarray) -> None:
        together.wait()
        for _ in range(3):
            with suppress(ValueError):  # NeMo's decoder does not count, and can refuse a second unfreeze
                model.transcribe([sound], verbose=False, num_workers=0)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(transcribe, sounds))
    assert before and trained(model.encoder) == before and not model.encoder.training
