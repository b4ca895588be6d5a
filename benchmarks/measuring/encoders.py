"""Encoders that NeMo builds, the sharing of weights between them, and random input features."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.measuring.counts import gflops, parameters
from benchmarks.measuring.forms import FORMS, OURS, PLAIN, config


class CacheAware(Protocol):
    """An encoder with NeMo's streaming interface: Squeezeformer or an encoder of NeMo."""

    streaming_cfg: Any  # NeMo's settings of a stream

    def get_initial_cache_state(self, batch_size: int) -> Sequence[Tensor]:
        """Return the caches of ``batch_size`` new streams: for attention, for convolutions, and their lengths."""

    def cache_aware_stream_step(self, *, keep_all_outputs: bool, **inputs: Tensor) -> Sequence[Tensor]:
        """Encode a chunk. Return the encodings, their lengths, and the caches for the next chunk."""


def built(settings: dict[str, Any]) -> Any:
    """Return the object that NeMo builds from a configuration. ``_target_`` may name a class of this project."""
    from nemo.core.classes import Serialization
    from omegaconf import OmegaConf

    import nemo_squeezeformer  # noqa: F401  registers with NeMo

    return Serialization.from_config_dict(OmegaConf.create(settings))


def counted(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the number of parameters of an encoder, and its operations for an utterance of 30 s, in 10^9.

    The operations of our encoder are counted with plain attention.
    """
    encoder = built(settings | (PLAIN if settings["_target_"] == OURS else {})).eval()
    with torch.no_grad():
        operations = gflops(partial(encoder, **utterances(30, 1)))
    return {"parameters": parameters(encoder), "gflops_30_s": round(operations, 2)}


def missing() -> dict[str, str]:
    """Return the encoders that this environment does not have, each with the reason."""
    import nemo
    from nemo.collections.asr import modules

    theirs = getattr(modules, "SqueezeformerEncoder", None)
    if theirs is None or theirs.__module__.split(".")[0] != "nemo":
        return {"in-tree": f"NeMo {nemo.__version__} has no Squeezeformer; NeMo 2.7.3 is the last release with one"}
    return {}


class Encoders:
    """A builder of encoders. All encoders of one network get the weights of the first encoder that was built."""

    def __init__(self, size: str = "s", device: str = "cpu"):
        self.size, self.device = size, device
        self.weights: dict[str, dict[str, Tensor]] = {}

    def build(self, name: str, training: bool = False, counted: bool = False) -> nn.Module:
        torch.manual_seed(0)
        form = FORMS[name]
        encoder = built(config(name, self.size, counted))
        if form.network not in self.weights:
            self.weights[form.network] = {key: value.clone() for key, value in encoder.state_dict().items()}
        encoder.load_state_dict(self.weights[form.network])
        encoder = encoder.to(self.device).train(training)
        if form.optimised and not counted:
            encoder = encoder.optimize_for_inference()
        return encoder


def utterances(seconds: float, batch: int, device: str = "cpu") -> dict[str, Tensor]:
    """Return random features of ``batch`` utterances, 100 frames per second.

    The lengths of a batch go evenly from half of ``seconds`` to ``seconds``. A single utterance lasts ``seconds``.
    """
    frames = round(100 * seconds)
    lengths = torch.linspace(frames / 2, frames, batch).round().long() if batch > 1 else torch.tensor([frames])
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(batch, 80, frames, generator=generator)
    return {"audio_signal": features.to(device), "length": lengths.to(device)}


with suppress(ImportError):  # programs that use no encoder of NeMo's run with torch alone
    from nemo.utils import logging

    logging.setLevel(logging.ERROR)
