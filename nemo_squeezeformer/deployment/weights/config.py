"""What parts of a NeMo model were built with, defaults included, as values that JSON has."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from nemo_squeezeformer.deployment.onnx.tokens import characters, pieces
from nemo_squeezeformer.deployment.weights.loading import ENCODER_ARGUMENTS
from nemo_squeezeformer.errors import UserError


def encoder_settings(encoder: Any) -> dict[str, Any]:
    """Every argument of ``core.SqueezeformerEncoder``; NeMo's own class and old names have defaults of their own.

    Raises:
        UserError: for an encoder that NeMo has not built from a configuration.
    """
    if getattr(encoder, "_cfg", None) is None:
        raise UserError(
            f"a {type(encoder).__name__} that no NeMo model was configured with does not know its settings: give those "
            "that it was built with, save(encoder, folder, settings={...})"
        )
    return with_defaults(encoder, _settings(encoder, ENCODER_ARGUMENTS))


def with_defaults(encoder: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` and the defaults of the other arguments, in the order of ``core.SqueezeformerEncoder``'s.

    What ``auto`` chose for ``time_reduce_idx`` is written out, for that rule may change, too.
    """
    defaults = {name: it.default for name, it in ENCODER_ARGUMENTS.items() if it.default is not it.empty}
    given = defaults | dict(settings)
    if given["time_reduce_idx"] == "auto":
        given["time_reduce_idx"] = next((branch.start for branch in encoder.span.branches), None)
    return {name: given[name] for name in (*ENCODER_ARGUMENTS, *settings) if name in given}


def features(preprocessor: Any) -> dict[str, Any] | None:
    """The class and the settings of a model's preprocessor, or of what is behind it and needs no NeMo."""
    if getattr(preprocessor, "_cfg", None) is None:
        return None
    original = isinstance(getattr(preprocessor, "featurizer", None), OriginalMelSpectrogram)
    kind = OriginalMelSpectrogram if original else type(preprocessor)
    return {"class": kind.__name__, "settings": _settings(preprocessor, inspect.signature(kind).parameters)}


def ctc_head(model: Any) -> Any:
    """The projection of encodings to tokens of a CTC or hybrid model; None for others.

    With prompts, a hybrid's does not see the encoder's output.
    """
    from nemo.collections.asr import models

    with_ctc = (models.EncDecCTCModel, models.EncDecHybridRNNTCTCModel)
    if not isinstance(model, with_ctc) or hasattr(model, "prompt_kernel"):
        return None
    return getattr(model, "ctc_decoder", model.decoder)


def ctc_tokens(model: Any, head: Any) -> dict[str, Any]:
    """``ctc`` of the config.

    Raises:
        UserError: for a tokenizer that is not SentencePiece's, or tokens that are not those of ``head``.
    """
    tokenizer = getattr(model, "tokenizer", None)
    try:
        found = pieces(tokenizer) if tokenizer else characters(model, transducer=False)
    except UserError as error:
        raise UserError(f"{error}; save the encoder alone: save(model.encoder, folder)") from error
    blank = len(found["tokens"])
    if head.num_classes_with_blank != blank + 1:
        raise UserError(f"its CTC decoder has {head.num_classes_with_blank} outputs for {blank} tokens and a blank")
    return {"blank": blank, **found}


def _settings(module: Any, names: Collection[str]) -> dict[str, Any]:
    """Those of ``names`` that ``module`` was configured with, or that have a default in its class or one above it."""
    from omegaconf import OmegaConf

    found: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if "__init__" in vars(kind):
            arguments = inspect.signature(vars(kind)["__init__"]).parameters.values()
            found |= {it.name: it.default for it in arguments if it.default is not it.empty}
    configured: Any = OmegaConf.to_container(module._cfg, resolve=True)
    found |= configured
    return {name: found[name] for name in names if name in found}
