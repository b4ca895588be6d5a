"""NeMo's streaming pipelines for models in .nemo files. The configuration has the keys of NeMo's YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

CONFIG = {
    "log_level": 20,  # NeMo's default: the level applies to the whole process, and later tests need the warnings
    "matmul_precision": "highest",
    "asr_output_granularity": "segment",
    "enable_itn": False,
    "enable_nmt": False,
    "enable_pnc": False,  # only NeMo 2.7.3 reads it
    "itn": {"batch_size": 1, "n_jobs": 1, "left_padding_size": 4},
    "cache_dir": None,
    "return_tail_result": False,
    "asr": {
        "device": "cpu",
        "device_id": 0,
        "compute_dtype": "float32",
        "use_amp": False,
        "decoding": {
            "strategy": "greedy_batch",
            "preserve_alignments": False,
            "fused_batch_size": -1,
            "greedy": {"use_cuda_graph_decoder": False, "max_symbols": 2},
        },
    },
    "confidence": {
        "exclude_blank": True,
        "aggregation": "mean",
        "method_cfg": {"name": "entropy", "entropy_type": "tsallis", "alpha": 0.5, "entropy_norm": "exp"},
    },
    "endpointing": {"stop_history_eou": -1, "residue_tokens_at_end": 2},
}
STREAMING = {
    "sample_rate": 16000,
    "batch_size": 2,
    "num_slots": 2,
    "att_context_size": None,
    "use_cache": True,
    "use_feat_cache": True,
    "chunk_size_in_secs": None,
    "request_type": "frame",
    "word_boundary_tolerance": 4,
}
BUFFERED = {
    "sample_rate": 16000,
    "batch_size": 2,
    "left_padding_size": 1.6,
    "chunk_size": 0.8,
    "right_padding_size": 0.8,
    "request_type": "feature_buffer",
    "padding_mode": "right",
    "stateful": True,
    "word_boundary_tolerance": 4,
}


def pipeline_of(nemo_file: Path, decoder: str, buffered: bool = False, **streaming: Any) -> Any:
    """Return the pipeline for a ``decoder`` (``ctc`` or ``rnnt``) of the model in ``nemo_file``."""
    # Some releases of NeMo do not have this module.
    from nemo.collections.asr.inference.factory.pipeline_builder import PipelineBuilder

    changes = {
        "pipeline_type": "buffered" if buffered else "cache_aware",
        "asr_decoding_type": decoder,
        "asr": {"model_name": str(nemo_file)},
        "streaming": (BUFFERED if buffered else STREAMING) | streaming,
    }
    return PipelineBuilder.build_pipeline(OmegaConf.merge(CONFIG, changes))


def buffers_seen(pipeline: Any) -> dict[int, list[tuple[Tensor, int]]]:
    """Return a dict that records the feature buffers of each stream while ``pipeline`` runs.

    Each entry is a buffer `(F, T)` and the number of padding frames in it.
    """
    seen: dict[int, list[tuple[Tensor, int]]] = {}
    update = pipeline.bufferer.update

    def record(frames: list[Any]) -> Any:
        buffers, paddings = update(frames)
        for frame, buffer, padding in zip(frames, buffers, paddings):
            seen.setdefault(frame.stream_id, []).append((buffer.clone(), padding if frame.is_last else 0))
        return buffers, paddings

    pipeline.bufferer.update = record
    return seen


def text_of(pipeline: Any, decoder: str, encoded: Tensor, length: int) -> str:
    """Return the text that the model decodes from encodings `(1, D, T)`.

    CTC decodes all T frames and ignores ``length``, as in the pipeline.
    """
    model = pipeline.asr_model.asr_model
    with torch.no_grad():
        if decoder == "rnnt":
            hypotheses = model.decoding.rnnt_decoder_predictions_tensor(encoded, torch.tensor([length]))
            tokens = [int(token) for token in hypotheses[0].y_sequence]
        else:
            ctc = getattr(model, "ctc_decoder", model.decoder)
            best = torch.unique_consecutive(ctc(encoder_output=encoded).argmax(-1)[0]).tolist()
            tokens = [token for token in best if token != pipeline.blank_id]
    return " ".join(model.tokenizer.ids_to_text(tokens).split())
