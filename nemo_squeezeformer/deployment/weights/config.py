"""The settings of the parts of a NeMo model, including defaults, as values that JSON supports."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from nemo_squeezeformer.core.original_mel import OriginalMelSpectrogram
from nemo_squeezeformer.deployment.onnx.tokens import characters, pieces
from nemo_squeezeformer.deployment.weights.loading import ENCODER_ARGUMENTS
from nemo_squeezeformer.errors import UserError


def encoder_settings(encoder: nn.Module) -> dict[str, Any]:
    """Return every argument of ``core.SqueezeformerEncoder`` for ``encoder``.

    An argument without a setting has the default of the class of ``encoder``. NeMo's class and old class names have
    other defaults than ``core.SqueezeformerEncoder``.

    Raises:
        UserError: NeMo did not build the encoder from a configuration.
    """
    if getattr(encoder, "_cfg", None) is None:
        raise UserError(
            f"the settings of this {type(encoder).__name__} are missing, because no NeMo model built it from a "
            "configuration; pass the settings: save(encoder, folder, settings={...})"
        )
    return with_defaults(encoder, _settings(encoder, ENCODER_ARGUMENTS))


def with_defaults(encoder: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings`` and the defaults of all other arguments, in the order of ``core.SqueezeformerEncoder``.

    The index of the layer that ``auto`` chose replaces ``time_reduce_idx="auto"``, because later versions may choose
    another layer.
    """
    defaults = {name: it.default for name, it in ENCODER_ARGUMENTS.items() if it.default is not it.empty}
    given = defaults | dict(settings)
    if given["time_reduce_idx"] == "auto":
        span: Any = getattr(encoder, "span", None)
        given["time_reduce_idx"] = next((branch.start for branch in span.branches), None)
    return {name: given[name] for name in (*ENCODER_ARGUMENTS, *settings) if name in given}


def features(preprocessor: Any) -> dict[str, Any] | None:
    """Return the class and the settings of a model's preprocessor, or None if the settings are unknown.

    For the features of the authors' release, the class is ``OriginalMelSpectrogram``, which does not need NeMo.
    """
    if getattr(preprocessor, "_cfg", None) is None:
        return None
    original = isinstance(getattr(preprocessor, "featurizer", None), OriginalMelSpectrogram)
    kind = OriginalMelSpectrogram if original else type(preprocessor)
    return {"class": kind.__name__, "settings": _settings(preprocessor, inspect.signature(kind).parameters)}


def ctc_head(model: Any) -> Any:
    """Return the projection from encodings to tokens of a CTC model or hybrid model, and None for other models.

    Also return None for a hybrid model with prompts, because the input of the projection is not the encoder's output.
    """
    from nemo.collections.asr import models

    with_ctc = (models.EncDecCTCModel, models.EncDecHybridRNNTCTCModel)
    if not isinstance(model, with_ctc) or hasattr(model, "prompt_kernel"):
        return None
    return getattr(model, "ctc_decoder", model.decoder)


def ctc_tokens(model: Any, head: Any) -> dict[str, Any]:
    """Return the field ``ctc`` of the configuration.

    Raises:
        UserError: The tokenizer is not a SentencePiece tokenizer, or the tokens do not fit the outputs of ``head``.
    """
    tokenizer = getattr(model, "tokenizer", None)
    try:
        found = pieces(tokenizer) if tokenizer else characters(model, transducer=False)
    except UserError as error:
        raise UserError(f"{error}; save only the encoder: save(model.encoder, folder)") from error
    blank = len(found["tokens"])
    if head.num_classes_with_blank != blank + 1:
        raise UserError(
            f"the CTC decoder has {head.num_classes_with_blank} outputs, expected {blank} tokens and a blank"
        )
    return {"blank": blank, **found}


def _settings(module: Any, names: Collection[str]) -> dict[str, Any]:
    """Return the settings of ``module`` whose names are in ``names``.

    A value comes from the configuration of ``module``. If the configuration does not contain the value, the value is
    the default of the class of ``module`` or of a base class.
    """
    from omegaconf import OmegaConf

    found: dict[str, Any] = {}
    for kind in reversed(type(module).__mro__):
        if "__init__" in vars(kind):
            arguments = inspect.signature(vars(kind)["__init__"]).parameters.values()
            found |= {it.name: it.default for it in arguments if it.default is not it.empty}
    configured: Any = OmegaConf.to_container(module._cfg, resolve=True)
    found |= configured
    return {name: found[name] for name in names if name in found}
