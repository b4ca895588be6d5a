"""What a stream through an encoder waits for and remembers, by NeMo's streaming interface."""

from __future__ import annotations

from typing import Any


def streams(encoder: Any, feature_ms: float, batch: int) -> tuple[list[dict[str, Any]], str]:
    """For each ``att_context_size`` that limits what lies ahead: latency and bytes of caches; and why there is none.

    ``latency_ms`` is the audio that a chunk waits for: its own, and what comes after it where there is look-ahead;
    caches are those of ``batch`` streams in float32.
    """
    if not hasattr(encoder, "setup_streaming_params") or not hasattr(encoder, "att_context_size_all"):
        return [], f"{type(encoder).__name__} has no streaming interface of NeMo's"
    if getattr(encoder, "self_attention_model", "") == "rel_pos_local_attn":
        return [], "self_attention_model='rel_pos_local_attn' takes whole recordings"
    found, reason, default = [], "", encoder.att_context_size
    for size in encoder.att_context_size_all:
        if min(size[1:]) < 0:
            reason = f"att_context_size={list(size)} has no limit to the right; recipes named ..._streaming have chunks"
            continue
        encoder.set_default_att_context_size(list(size))
        try:
            encoder.setup_streaming_params()
        except ValueError as error:
            reason = str(error)
            continue
        found.append(_stream(encoder, feature_ms, batch) | {"att_context_size": list(size)})
    encoder.set_default_att_context_size(default)
    return found, "" if found else reason


def _stream(encoder: Any, feature_ms: float, batch: int) -> dict[str, Any]:
    config = encoder.streaming_cfg
    chunk, shift = (size[1] if isinstance(size, list) else size for size in (config.chunk_size, config.shift_size))
    attention, convolution, _ = encoder.get_initial_cache_state(batch_size=batch)
    return {
        "latency_ms": round(feature_ms * chunk),
        "every_ms": round(feature_ms * shift),
        "left_frames": config.last_channel_cache_size,
        "cache_bytes": {"attention": attention.nbytes, "convolution": convolution.nbytes},
    }
