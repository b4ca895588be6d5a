"""The rungs of the paper's ladder from Conformer to Squeezeformer: our recipes, and the values of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Rung:
    """A step of the ladder: the recipe after the step, and the paper's word error rate on test-other, if known."""

    step: str
    recipe: str
    published_wer: float | None


RUNGS = {
    "Conformer": Rung("Conformer-CTC-M", "ablation/0_conformer", 7.9),
    "U-Net": Rung("+ temporal U-Net", "ablation/1_unet", 7.28),
    "MF/CF": Rung("+ MF/CF blocks", "ablation/2_mf_cf", 7.12),
    "Swish": Rung("+ Swish for GLU", "ablation/3_swish", None),
    "post-norm": Rung("+ scaled post-LayerNorm", "ablation/4_post_norm", None),
    "Squeezeformer": Rung("+ depthwise-separable subsampling", "ablation/5_depthwise", 6.89),
}
PAPER = {  # percent of Conformer-CTC-M's operations
    "unet": ("saved by the temporal U-Net", 20),
    "subsampling": ("needed by the subsampling of Conformer-CTC-M", 28),
    "depthwise": ("saved by the depthwise-separable subsampling", 22),
}
WITHOUT_UNET, NEMOS_RECIPE = "Squeezeformer without the U-Net", "Conformer, 18 layers"
BESIDE: dict[str, tuple[str, dict[str, object]]] = {  # further encoders whose operations are counted: rung and changes
    WITHOUT_UNET: ("Squeezeformer", {"time_reduce_idx": "null"}),
    NEMOS_RECIPE: ("Conformer", {"n_layers": 18}),
}

# The small ladder has six layers, like the encoders of side_by_side. Two cores can train it.
SMALL = {
    "d_model": 64,
    "n_layers": 6,
    "n_heads": 2,
    "subsampling_conv_channels": 32,
    "dropout": 0,  # a short training does not overfit, and dropout would take a third of the time on a CPU
    "dropout_emb": 0,
    "dropout_att": 0,
}


@cache
def encoder_settings(rung: str, **changes: object) -> dict[str, Any]:
    """Return the encoder settings in the recipe of a rung, with ``changes``. The settings include ``_target_``."""
    from omegaconf import OmegaConf

    from nemo_squeezeformer.training.recipes import compose

    cfg = compose(RUNGS[rung].recipe, [f"model.encoder.{name}={value}" for name, value in changes.items()])
    settings: Any = OmegaConf.to_container(cfg.model.encoder, resolve=True)
    return settings


def build(rung: str, **changes: object) -> Any:
    """Return the core encoder of a rung, for features with 80 channels. It does not need NeMo."""
    from nemo_squeezeformer import core

    return core.SqueezeformerEncoder(**{k: v for k, v in encoder_settings(rung, **changes).items() if k != "_target_"})
