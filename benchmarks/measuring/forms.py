"""The encoders that are compared: variants of this project's encoder, and NeMo's encoders of nearly equal size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OURS = "nemo_squeezeformer.SqueezeformerEncoder"
IN_TREE = "nemo.collections.asr.modules.SqueezeformerEncoder"
CONFORMER = "nemo.collections.asr.modules.ConformerEncoder"
# The values in the recipes of this project and of NeMo. With a dropout of 0, training would omit the work of dropout.
SHARED = {"feat_in": 80, "dropout": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1}
RATE_4X = {"subsampling_factor": 4, "conv_kernel_size": 31}
RATE_8X = {"subsampling_factor": 8, "conv_kernel_size": 9, "subsampling": "dw_striding"}


@dataclass(frozen=True)
class Size:
    """The dimensions of the encoders. Conformer's width is chosen to match Squeezeformer's number of parameters."""

    squeezeformer: dict[str, int]
    conformer: dict[str, int]
    channels_8x: int  # channels of the convolutions of 8x subsampling, in the recipes of both projects
    window: list[int]  # context of local attention: frames to the left and to the right


SIZES = {
    "s": Size(
        {"n_layers": 18, "d_model": 196, "n_heads": 4}, {"n_layers": 18, "d_model": 200, "n_heads": 4}, 256, [128, 128]
    ),
    "quick": Size(
        {"n_layers": 3, "d_model": 16, "n_heads": 2}, {"n_layers": 3, "d_model": 16, "n_heads": 2}, 16, [8, 8]
    ),
}


@dataclass(frozen=True)
class Form:
    """The way in which one encoder is built and run.

    All encoders with the same ``network`` have equal weights. If ``exact``, their outputs are equal too.
    """

    target: str
    settings: Mapping[str, Any]
    network: str
    exact: bool = True  # attends to all frames, not to a window
    optimised: bool = False
    quadratic: bool = False  # stores matrices of all queries by all keys
    trained: bool = False  # takes part in the measurements of training


# The names of the encoders on pages and in figures. The keys are the names in programs and in files of results.
SHOWN = {
    "in-tree": "NeMo 2.7.3's Squeezeformer",
    "ours, plain": "our Squeezeformer, plain attention",
    "ours": "our Squeezeformer",
    "ours, optimised": "our Squeezeformer, optimized",
    "ours, local": "our Squeezeformer, local attention",
    "ours, 8x": "our Squeezeformer, 8x",
    "ours, 8x, optimised": "our Squeezeformer, 8x, optimized",
    "ours, 8x, local": "our Squeezeformer, 8x, local attention",
    "Conformer": "NeMo's Conformer",
    "Conformer, SDPA": "NeMo's Conformer, SDPA",
    "Conformer, local": "NeMo's Conformer, local attention",
    "FastConformer": "NeMo's FastConformer",
    "FastConformer, local": "NeMo's FastConformer, local attention",
}


def shown(name: str) -> str:
    """Return the name of an encoder on a page. A precision at the end of the name is kept."""
    encoder, _, last = name.rpartition(", ")
    return SHOWN[name] if name in SHOWN else f"{SHOWN[encoder]}, {last}"


PLAIN, LOCAL = {"attention": "plain"}, {"self_attention_model": "rel_pos_local_attn"}
FULL_CONFORMER = RATE_4X | {"subsampling": "striding"}
FORMS: dict[str, Form] = {
    "in-tree": Form(IN_TREE, RATE_4X | {"subsampling": "dw_striding"}, "4x", quadratic=True, trained=True),
    "ours, plain": Form(OURS, RATE_4X | PLAIN, "4x", quadratic=True, trained=True),
    "ours": Form(OURS, RATE_4X, "4x", trained=True),
    "ours, optimised": Form(OURS, RATE_4X, "4x", optimised=True),
    "ours, local": Form(OURS, RATE_4X | LOCAL, "4x", exact=False),
    "ours, 8x": Form(OURS, RATE_8X, "8x", trained=True),
    "ours, 8x, optimised": Form(OURS, RATE_8X, "8x", optimised=True),
    "ours, 8x, local": Form(OURS, RATE_8X | LOCAL, "8x", exact=False),
    "Conformer": Form(CONFORMER, FULL_CONFORMER, "Conformer", quadratic=True, trained=True),
    "Conformer, SDPA": Form(
        CONFORMER, FULL_CONFORMER | {"use_pytorch_sdpa": True}, "Conformer", quadratic=True, trained=True
    ),
    "Conformer, local": Form(CONFORMER, FULL_CONFORMER | LOCAL, "Conformer", exact=False),
    "FastConformer": Form(CONFORMER, RATE_8X, "FastConformer", quadratic=True, trained=True),
    "FastConformer, local": Form(CONFORMER, RATE_8X | LOCAL, "FastConformer", exact=False),
}
# The operations of a network are counted with plain attention. Fast implementations may need more or fewer operations.
COUNTED = {"4x": {"attention": "plain"}, "8x": {"attention": "plain"}}


def config(name: str, size: str, counted: bool = False) -> dict[str, Any]:
    """Return the configuration from which NeMo builds the encoder.

    With ``counted``, return the variant with plain attention, whose operations are counted.
    """
    form, dimensions = FORMS[name], SIZES[size]
    width = dimensions.conformer if form.target == CONFORMER else dimensions.squeezeformer
    settings = {"_target_": form.target, **SHARED, **width, **form.settings}
    if form.target != CONFORMER:
        last = width["n_layers"] - 1
        settings |= {"time_reduce_idx": last // 2, "time_recovery_idx": last}
    if settings["subsampling_factor"] == 8:
        settings["subsampling_conv_channels"] = dimensions.channels_8x
    if not form.exact:
        settings["att_context_size"] = dimensions.window
    elif counted:
        settings |= COUNTED.get(form.network, {}) if form.target == OURS else {}
    return settings
