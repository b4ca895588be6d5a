"""The number of frames in which a CTC decoder of a recipe must place the tokens of an utterance."""

from dataclasses import dataclass
from typing import Any

from nemo_squeezeformer.training.settings import value

CONVOLUTIONS = ("striding", "dw_striding")


@dataclass(frozen=True)
class CtcHead:
    """A CTC decoder of a recipe.

    Attributes:
        name: the setting that adds the decoder.
        halvings: number of times that the temporal U-Net halves the frame rate at the layer of the decoder.
        only: True if the model has no other loss than this loss.
    """

    name: str
    halvings: int
    only: bool


def ctc_head(cfg: Any) -> CtcHead | None:
    """Return the CTC decoder with the fewest frames, or None if the model has no CTC decoder.

    A transducer and an attention decoder accept any number of tokens.
    """
    main = str(value(cfg, "model.decoder._target_", "")).endswith("ConvASRDecoder")
    aux = value(cfg, "model.aux_ctc.decoder") is not None
    layers = value(cfg, "model.interctc.apply_at_layers") or []
    if not (main or aux or layers):
        return None
    from nemo_squeezeformer.core.frames.spans import build_spans  # a command that starts must not load torch

    encoder = value(cfg, "model.encoder", {})
    deepest = 0
    if layers and isinstance(encoder.get("n_layers"), int):
        try:
            span = build_spans(encoder["n_layers"], encoder.get("time_reduce_idx"), encoder.get("time_recovery_idx"))
        except (ValueError, TypeError):  # the encoder refuses these settings when NeMo builds the encoder
            return None
        deepest = max(span.depth(layer) for layer in layers)
    if deepest:
        return CtcHead(f"model.interctc.apply_at_layers={layers}", deepest, only=False)
    return CtcHead("model.decoder", 0, only=not layers) if main else CtcHead("model.aux_ctc", 0, only=False)


def ctc_frames(cfg: Any, seconds: Any, halvings: int = 0) -> Any:
    """Return the number of encoder frames for ``seconds``, a NumPy array of durations: (N,) -> (N,).

    The steps are the steps of the model: samples, feature frames, subsampling, and halvings of the temporal U-Net.
    """
    from nemo_squeezeformer.core.frames.margins import CAUSAL, CENTRED  # a command that starts must not load torch

    features, encoder = value(cfg, "model.preprocessor", {}), value(cfg, "model.encoder", {})
    rate = features.get("sample_rate") or value(cfg, "model.sample_rate", 16000)
    hop = int(rate * (features.get("window_stride") or 0.01))
    frames = (seconds * rate).round().astype("int64") // max(1, hop)
    if str(features.get("_target_", "")).endswith("OriginalMelSpectrogramPreprocessor"):
        frames += 1
    factor = encoder.get("subsampling_factor") or 1
    kind = encoder.get("subsampling", "dw_striding")
    if kind in CONVOLUTIONS:
        margins = CAUSAL if encoder.get("causal_downsampling") and not encoder.get("streaming") else CENTRED
        frames = margins.frames(frames, factor.bit_length() - 1)
    elif kind is not None:
        frames = -(-frames // factor)
    return CENTRED.frames(frames, halvings)
