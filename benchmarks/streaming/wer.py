"""Word error rates of a streaming model at each of its latencies and offline, with the same weights.

    python -m benchmarks.streaming.wer build/transducers/streaming.nemo DIGITS/connected_test_seen.jsonl \
        DIGITS/connected_test.jsonl > benchmarks/results/streaming_wer.md

The streams go in batches through NeMo's CacheAwareStreamingAudioBuffer and conformer_stream_step, as in NeMo's own
program for streaming. For comparison, transcribe() decodes the whole recordings with the attention mask of the same
latency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import recordings
from benchmarks.measuring.command_line import command_line
from benchmarks.measuring.tables import head, line

BATCH = 16
INTRODUCTION = """\
The tables show the WER of a streaming hybrid model in percent. The weights are equal at every latency.

- "streamed recordings": the recordings are streamed through NeMo's `CacheAwareStreamingAudioBuffer`.
- "whole recordings": `transcribe()` decodes the whole recordings with the same attention mask.
- "different texts": the number of recordings whose streamed text differs from the text of the whole recording."""


def streamed(model: Any, audio: Sequence[str]) -> list[str]:
    """Stream all recordings in one batch and return the text of each recording."""
    from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
    from nemo.collections.asr.parts.utils.streaming_utils import CacheAwareStreamingAudioBuffer, get_samples

    buffer = CacheAwareStreamingAudioBuffer(model=model)
    for path in audio:
        features, length = buffer.preprocess_audio(get_samples(path))
        # ``append_audio`` would add a frame of zeros.
        buffer.append_processed_signal(features[:, :, :length], stream_id=-1)
    caches = model.encoder.get_initial_cache_state(batch_size=len(audio))
    predictions = hypotheses = None
    texts: Sequence[Any] = [""] * len(audio)
    for step, (features, lengths) in enumerate(buffer):
        predictions, texts, *caches, hypotheses = model.conformer_stream_step(
            processed_signal=features,
            processed_signal_length=lengths,
            cache_last_channel=caches[0],
            cache_last_time=caches[1],
            cache_last_channel_len=caches[2],
            keep_all_outputs=buffer.is_buffer_empty(),
            previous_hypotheses=hypotheses,
            previous_pred_out=predictions,
            drop_extra_pre_encoded=model.encoder.streaming_cfg.drop_extra_pre_encoded if step else 0,
        )
    return [text.text if isinstance(text, Hypothesis) else str(text) for text in texts]


def rows(model: Any, audio: list[str], references: list[str]) -> Iterator[list[str]]:
    """Yield a row for each context of the training: latency, context, and the cells of both decoders."""
    from nemo.collections.asr.metrics.wer import word_error_rate

    stride = 1000 * model.cfg.preprocessor.window_stride * model.encoder.subsampling_factor
    for size in model.encoder.att_context_size_all:
        model.encoder.set_default_att_context_size(size)
        streams = model.encoder.streaming_cfg is not None
        cells = [f"{stride * (size[1] + 1):.0f} ms" if streams else "offline", str(list(size))]
        for decoder in ("rnnt", "ctc"):
            model.change_decoding_strategy(decoder_type=decoder, verbose=False)
            hypotheses = model.transcribe(audio, batch_size=BATCH, verbose=False, num_workers=0)
            whole = [hypothesis.text for hypothesis in hypotheses]
            wer, differing = 100 * word_error_rate(whole, references), "-"
            if streams:
                batches = [audio[start : start + BATCH] for start in range(0, len(audio), BATCH)]
                texts = [text for batch in batches for text in streamed(model, batch)]
                differing = str(sum(text != expected for text, expected in zip(texts, whole)))
                cells += [f"{100 * word_error_rate(texts, references):.2f}", f"{wer:.2f}", differing]
            else:
                cells += ["-", f"{wer:.2f}", differing]
        yield cells


def main() -> None:
    from nemo.collections.asr.models import ASRModel
    from nemo.utils import logging

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    parser = command_line("benchmarks.streaming.wer", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("manifests", type=Path, nargs="+")
    args = parser.parse_args()
    logging.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    model = ASRModel.restore_from(args.model, map_location="cpu").eval()
    model.preprocessor.featurizer.dither = 0.0  # transcribe() sets dither to 0 too
    print("`python -m benchmarks.streaming.wer` makes this page.\n")
    print(INTRODUCTION)
    for manifest in args.manifests:
        spoken = recordings.rows(manifest)
        audio, references = ([row[key] for row in spoken] for key in ("audio_filepath", "text"))
        words = sum(len(text.split()) for text in references)
        print(f"\n{manifest.stem}: {len(spoken)} recordings, {words} words\n")
        transducer, ctc = (
            [f"{decoder}: {column}" for column in ("streamed recordings", "whole recordings", "different texts")]
            for decoder in ("transducer", "CTC")
        )
        print(head(["latency", "context", *transducer, *ctc]))
        with torch.inference_mode():
            for cells in rows(model, audio, references):
                print(line(cells), flush=True)


if __name__ == "__main__":
    main()
