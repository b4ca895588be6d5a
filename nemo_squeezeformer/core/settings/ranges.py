"""A check of the types and the ranges of the settings of an encoder, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

LARGEST = 2**16  # a larger width or number is a mistake, and would fill the memory
LONGEST = 2**20  # encoder frames, about 11 hours

# Settings that are whole numbers, with the smallest and the largest value.
WHOLE = {
    "feat_in": (1, LARGEST),
    "n_layers": (1, 1024),
    "d_model": (2, LARGEST),
    "subsampling_factor": (1, 1024),
    "ff_expansion_factor": (1, 1024),
    "n_heads": (1, LARGEST),
    "conv_kernel_size": (1, LARGEST),
    "reduction_factor": (1, LARGEST),
    "global_tokens": (0, LARGEST),
    "global_tokens_spacing": (1, LONGEST),
    "subsampling_conv_chunking_factor": (-LARGEST, LARGEST),  # the subsampling checks the range
    "stochastic_depth_start_layer": (-LARGEST, LARGEST),  # drop_probabilities checks the range
}
# Settings that are whole numbers in a range, or -1 for the default.
WHOLE_OR_DEFAULT = {"feat_out": (1, LARGEST), "subsampling_conv_channels": (1, LARGEST)}
RATES = ("dropout", "dropout_emb", "dropout_att", "stochastic_depth_drop_prob")
SWITCHES = (
    "xscaling",
    "untie_biases",
    "adaptive_scale",
    "causal_downsampling",
    "use_bias",
    "global_attn_separate",
    "use_pytorch_sdpa",
    "streaming",
    "gradient_checkpointing",
    "compile",
    "deep_norm",
)
NAMES = (
    "self_attention_model",
    "conv_norm_type",
    "conv_context_style",
    "attention",
    "block",
    "stochastic_depth_mode",
    "variant",
)
NAMES_OR_NONE = ("subsampling", "att_context_style", "reduction")
# Lists of whole numbers. The list of an attention context can contain lists.
LISTS = {
    "att_context_size": (-1, LONGEST),
    "att_chunk_context_size": (-1, LONGEST),
    "conv_context_size": (0, LARGEST),
    "time_reduce_idx": (0, 1024),
    "time_recovery_idx": (0, 1024),
}
NUMBER_OR_LIST = ("time_reduce_idx", "time_recovery_idx")
NAME_OR_LIST = ("conv_context_size", "time_reduce_idx")


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if a setting has a wrong type or is out of range.

    The message names the setting and the value. The modules of the network check how settings fit together.
    """
    for name, (least, most) in WHOLE.items():
        _check(name, settings[name], _is_whole(settings[name], least, most), f"a whole number from {least} to {most}")
    for name, (least, most) in WHOLE_OR_DEFAULT.items():
        fits = _is_whole(settings[name], least, most) or _is_whole(settings[name], -1, -1)
        _check(name, settings[name], fits, f"-1 for the default, or a whole number from {least} to {most}")
    for name in RATES:
        _check(name, settings[name], _is_rate(settings[name]), "a number from 0 to 1")
    rate = settings["dropout_pre_encoder"]
    _check("dropout_pre_encoder", rate, rate is None or _is_rate(rate), "None, or a number from 0 to 1")
    base, fraction = settings["rope_base"], settings["rotary_fraction"]
    _check("rope_base", base, _is_number(base) and 1.0 < float(base) < float("inf"), "a number above 1")
    fits = _is_number(fraction) and 0.0 < float(fraction) <= 1.0
    _check("rotary_fraction", fraction, fits, "a number above 0, at most 1")
    triton = settings["use_triton"]
    _check("use_triton", triton, triton is None or isinstance(triton, bool), "None, True or False")
    for name in SWITCHES:
        _check(name, settings[name], isinstance(settings[name], bool), "True or False")
    for name in NAMES:
        _check(name, settings[name], isinstance(settings[name], str), "a name in quotes")
    for name in NAMES_OR_NONE:
        _check(name, settings[name], settings[name] is None or isinstance(settings[name], str), "None or a name")
    for name, (least, most) in LISTS.items():
        value = settings[name]
        fits = (
            value is None
            or (name in NAME_OR_LIST and isinstance(value, str))
            or ((name in NUMBER_OR_LIST or _is_list(value)) and _are_whole(value, least, most))
        )
        _check(name, value, fits, f"a list of whole numbers from {least} to {most}")
    chunks = settings["att_chunk_context_size"]
    _check("att_chunk_context_size", chunks, chunks is None or all(map(_is_list, chunks)), "a list of lists of numbers")
    probs = settings["att_context_probs"]
    fits = probs is None or (_is_list(probs) and all(map(_is_rate, probs)))
    _check("att_context_probs", probs, fits, "None, or a list of numbers from 0 to 1")
    backends = settings["use_pytorch_sdpa_backends"]
    fits = backends is None or (_is_list(backends) and all(isinstance(one, str) for one in backends))
    _check("use_pytorch_sdpa_backends", backends, fits, "None, or a list of names")


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name}={value!r}: expected {expected}")


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) <= most


def _is_rate(value: Any) -> bool:
    return _is_number(value) and 0.0 <= float(value) <= 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    """Return True for a list, a tuple, or a list of OmegaConf, which is neither a list nor a registered sequence."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, Mapping))


def _are_whole(value: Any, least: int, most: int) -> bool:
    if _is_list(value):
        return all(_are_whole(one, least, most) for one in value)
    return _is_whole(value, least, most)
