"""The text of a stream that NeMo decodes in chunks equals the text of the whole recording under the same mask."""

from __future__ import annotations

import pytest
import torch

from tests.samples.asr_models import spelling_model
from tests.samples.streams import streamed_texts, texts

SIZES = [[24, 11], [24, 1]]
STREAMING = {
    "preprocessor": {"normalize": "NA"},
    "encoder": {"streaming": True, "att_context_size": SIZES, "conv_kernel_size": 5},
}


@pytest.mark.parametrize("kind, decoder", [("ctc", ""), ("transducer", ""), ("hybrid", "rnnt"), ("hybrid", "ctc")])
def test_streamed_text_equals_offline_text(noises, kind, decoder):
    model = spelling_model(kind, noises, **STREAMING)
    if decoder:
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    seen = []
    for size in SIZES:
        model.encoder.set_default_att_context_size(size)
        offline = texts(model.transcribe(noises, batch_size=4, verbose=False))
        assert len(set("".join(offline))) > 5 and len(offline[0]) > 15
        assert streamed_texts(model, noises) == offline
        assert streamed_texts(model, noises, forget=True) != offline
        seen.append(offline)
    assert seen[0] != seen[1]


def test_simulated_streaming_of_a_ctc_model_gives_offline_text_and_log_probabilities(noises):
    model = spelling_model("ctc", noises, **STREAMING)
    offline = model.transcribe(noises, batch_size=4, return_hypotheses=True, verbose=False)
    streamed = model.transcribe_simulate_cache_aware_streaming(noises, batch_size=4)
    assert texts(streamed) == texts(offline)
    for log_probs, hypothesis in zip(
        model.transcribe_simulate_cache_aware_streaming(noises, batch_size=1, logprobs=True), offline
    ):
        torch.testing.assert_close(log_probs, hypothesis.y_sequence, atol=1e-4, rtol=0)
