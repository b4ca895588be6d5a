"""The latency and the cache sizes of a stream through an encoder with NeMo's streaming interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from torch import nn

    from nemo_squeezeformer.integration.latency import CacheAware


def streams(encoder: nn.Module, feature_ms: float, batch: int) -> tuple[list[dict[str, Any]], str]:
    """Return the latency and the cache sizes for each ``att_context_size`` with limited look-ahead.

    ``latency_ms`` is the length of the chunk plus the length of the look-ahead, in milliseconds. ``cache_bytes`` is the
    size of the caches of ``batch`` streams in float32.

    Returns:
        A list with one dict for each size, and the reason for an empty list. The reason is "" if the list has entries.
    """
    if not _is_cache_aware(encoder):
        return [], f"{type(encoder).__name__} does not have NeMo's streaming interface"
    if getattr(encoder, "self_attention_model", "") == "rel_pos_local_attn":
        return [], "self_attention_model='rel_pos_local_attn' needs whole recordings"
    found, reason = [], ""
    for size in encoder.att_context_size_all:
        if min(size[1:]) < 0:
            reason = (
                f"att_context_size={list(size)} has an unlimited look-ahead; use a recipe whose name ends in _streaming"
            )
            continue
        try:
            found.append(_stream(encoder, feature_ms, batch, list(size)))
        except ValueError as error:
            reason = str(error)
    return found, "" if found else reason


def _is_cache_aware(encoder: nn.Module) -> TypeGuard[CacheAware]:
    return hasattr(encoder, "setup_streaming_params") and hasattr(encoder, "att_context_size_all")


def _stream(encoder: CacheAware, feature_ms: float, batch: int, size: list[int]) -> dict[str, Any]:
    from nemo_squeezeformer.integration.latency import Chunks, empty_caches, latency_ms

    chunks = Chunks.of(encoder, size)
    attention, convolution, _ = empty_caches(encoder, batch, size)
    return {
        "latency_ms": round(latency_ms(encoder, feature_ms, size)),
        "every_ms": round(feature_ms * chunks.shift),
        "left_frames": chunks.left,
        "cache_bytes": {"attention": attention.nbytes, "convolution": convolution.nbytes},
        "att_context_size": size,
    }
