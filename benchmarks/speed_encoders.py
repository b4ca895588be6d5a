"""The encoders of the speed comparison at equal parameters: forms of ours, and NeMo's own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

OURS = "nemo_squeezeformer.SqueezeformerEncoder"
IN_TREE = "nemo.collections.asr.modules.SqueezeformerEncoder"
CONFORMER = "nemo.collections.asr.modules.ConformerEncoder"
# What the recipes say, ours and NeMo's: with dropout of 0 training would be compared without a part of its work.
SHARED = {"feat_in": 80, "dropout": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1}
RATE_4X = {"subsampling_factor": 4, "conv_kernel_size": 31}
RATE_8X = {"subsampling_factor": 8, "conv_kernel_size": 9, "subsampling": "dw_striding"}
SLOWEST_MATRICES = 8  # how many matrices of all queries by all keys the plain attentions hold at once, about


@dataclass(frozen=True)
class Size:
    """Width, depth and so on; Conformer's width is the one with the parameters nearest to Squeezeformer's."""

    squeezeformer: dict[str, int]
    conformer: dict[str, int]
    channels_8x: int  # of the convolutions that make a frame of eight, in the recipes of both
    window: list[int]  # of local attention


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
    """How an encoder is built and run; those of one ``network`` have equal weights, and equal outputs if ``exact``."""

    target: str
    settings: Mapping[str, Any]
    network: str
    exact: bool = True  # attention to all frames, not to a window
    optimised: bool = False
    quadratic: bool = False  # holds matrices of all queries by all keys
    trained: bool = False  # takes part in the comparison of training


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
# The operations of a network are those of its plain form; fewer or more in a fast one are its own affair.
COUNTED = {"4x": {"attention": "plain"}, "8x": {"attention": "plain"}}


def config(name: str, size: str, counted: bool = False) -> dict[str, Any]:
    """What NeMo builds the encoder from; ``counted``: its plain form, whose operations are counted."""
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


def missing() -> dict[str, str]:
    """The encoders that this environment does not have, and why."""
    import nemo
    from nemo.collections.asr import modules

    theirs = getattr(modules, "SqueezeformerEncoder", None)
    if theirs is None or theirs.__module__.split(".")[0] != "nemo":
        return {"in-tree": f"NeMo {nemo.__version__} has no Squeezeformer of its own; 2.7.3 is the last that has"}
    return {}


class Encoders:
    """Builds encoders; those of one network get the weights of the one that was built first."""

    def __init__(self, size: str = "s", device: str = "cpu"):
        self.size, self.device = size, device
        self.weights: dict[str, dict[str, Tensor]] = {}

    def build(self, name: str, training: bool = False, counted: bool = False) -> nn.Module:
        from nemo.core.classes import Serialization
        from omegaconf import OmegaConf

        import nemo_squeezeformer  # noqa: F401  registers with NeMo

        torch.manual_seed(0)
        form = FORMS[name]
        encoder: nn.Module = Serialization.from_config_dict(OmegaConf.create(config(name, self.size, counted)))
        if form.network not in self.weights:
            self.weights[form.network] = {key: value.clone() for key, value in encoder.state_dict().items()}
        encoder.load_state_dict(self.weights[form.network])
        encoder = encoder.to(self.device).train(training)
        if form.optimised and not counted:
            encoder = encoder.optimize_for_inference()
        return encoder


def utterances(seconds: float, batch: int, device: str = "cpu") -> dict[str, Tensor]:
    """Random features of ``batch`` utterances, from half of ``seconds`` to the whole; one alone lasts ``seconds``."""
    frames = round(100 * seconds)
    lengths = torch.linspace(frames / 2, frames, batch).round().long() if batch > 1 else torch.tensor([frames])
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, 80, frames, generator=generator)
    return {"audio_signal": features.to(device), "length": lengths.to(device)}


def gib_needed(name: str, size: str, seconds: float, batch: int, training: bool) -> float:
    """About how much memory it takes, with which a run is refused before it brings the machine down."""
    settings = config(name, size)
    frames = 100 * seconds / settings["subsampling_factor"]
    matrix = 4 * batch * settings["n_heads"] * frames**2 if FORMS[name].quadratic else 0
    activations = 40 * batch * frames * settings["d_model"] * 4
    kept = settings["n_layers"] if training else 1
    return kept * (SLOWEST_MATRICES * matrix + activations) / 2**30


with suppress(ImportError):  # torch alone is enough for what needs no encoder of NeMo's
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
