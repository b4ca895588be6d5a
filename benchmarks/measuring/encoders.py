"""Encoders as NeMo builds them, those of equal weights, and the features that they are given."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measuring.forms import FORMS, config


def built(settings: dict[str, Any]) -> Any:
    """What NeMo makes of a configuration; its ``_target_`` may be ours."""
    from nemo.core.classes import Serialization
    from omegaconf import OmegaConf

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    return Serialization.from_config_dict(OmegaConf.create(settings))


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
        torch.manual_seed(0)
        form = FORMS[name]
        encoder: Any = built(config(name, self.size, counted))
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


with suppress(ImportError):  # torch alone is enough for what needs no encoder of NeMo's
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
