"""The writing of a NeMo model, or an encoder, to a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from safetensors.torch import save_model
from torch import Tensor, nn

from nemo_squeezeformer import __version__, core
from nemo_squeezeformer.core.inference.guard import is_optimized
from nemo_squeezeformer.deployment.weights.config import ctc_head, ctc_tokens, encoder_settings, features, with_defaults
from nemo_squeezeformer.deployment.weights.equality import check_equal
from nemo_squeezeformer.deployment.weights.loading import CONFIG, TOKENIZER, VERSION, WEIGHTS, adopt_types, build
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.finite_weights import complaint, not_finite
from nemo_squeezeformer.files.outputs import refuse_folder, require_folder, written_whole
from nemo_squeezeformer.integration.register import OLD_MODULE

FILES = (CONFIG, WEIGHTS, TOKENIZER)


def save(model: Any, folder: str | Path, settings: Mapping[str, Any] | None = None, force: bool = False) -> list[Path]:
    """Write ``model`` to ``folder`` for ``load``, and return the paths of the files.

    The folder is written only if the written model returns the outputs of ``model`` for random features.

    Args:
        model: NeMo model or encoder. For a CTC model, write the encoder and the projection to tokens. For a hybrid
            model, write the encoder and the projection of the CTC decoder, without the transducer. For every other
            model, write only the encoder.
        folder: Folder to write.
        settings: Arguments of an encoder that does not come from a NeMo model.
        force: If True, replace an existing folder that contains only files of ``save``.

    Raises:
        UserError: The folder exists, the encoder has another class, the encoder has adapters,
            ``optimize_for_inference`` was called, the weights are not finite, or the settings do not describe the whole
            model.
    """
    folder = Path(folder)
    require_folder(folder, str(folder))
    refuse_folder(folder, FILES, force)
    encoder = model if _ours(model) else getattr(model, "encoder", None)
    if not _ours(encoder):
        raise UserError(
            f"the encoder of this {type(model).__name__} is a {type(encoder).__name__}, not a SqueezeformerEncoder"
        )
    if is_optimized(encoder):
        raise UserError("the weights of the encoder are folded by optimize_for_inference(); restore the model again")
    head = None if encoder is model else ctc_head(model)
    weights = _weights(encoder, head)
    if wrong := not_finite(weights):
        raise UserError(complaint(wrong, len(weights)))
    config = _config(model, encoder, head, settings)
    plain = build(config, type(model).__name__).to(next(encoder.parameters()).device)
    try:
        adopt_types(plain, weights)
        plain.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"the settings do not fit the weights: {error}") from error
    check_equal(plain.eval(), encoder, head)

    with written_whole(folder) as written:
        written.mkdir()
        save_model(plain, str(written / WEIGHTS), metadata={"format": "pt"})  # other readers require this metadata
        (written / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if config["ctc"] and config["ctc"]["units"] == "sentencepiece":
            (written / TOKENIZER).write_bytes(model.tokenizer.tokenizer.serialized_model_proto())
    return sorted(folder.iterdir())


def _ours(encoder: object) -> TypeGuard[nn.Module]:
    """Return True if ``encoder`` is a Squeezeformer of this package or of NeMo 2.7.3.

    The weights of both classes have the same names.
    """
    return isinstance(encoder, core.SqueezeformerEncoder) or type(encoder).__module__ == OLD_MODULE


def _config(model: Any, encoder: nn.Module, head: Any, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return all fields of the configuration, which the docstring of this package describes."""
    contexts = getattr(encoder, "contexts", None)
    size: Any = contexts.default if contexts else getattr(encoder, "att_context_size", None)
    return {
        "version": VERSION,
        "nemo_squeezeformer": __version__,
        "encoder": encoder_settings(encoder) if settings is None else with_defaults(encoder, settings),
        "default_att_context_size": list(size),
        "ctc": None if head is None else ctc_tokens(model, head),
        "features": None if encoder is model else features(getattr(model, "preprocessor", None)),
    }


def _weights(encoder: nn.Module, head: Any) -> dict[str, Tensor]:
    """Return the state dict of the plain model from the weights of the NeMo model."""
    weights = encoder.state_dict()
    projection = {} if head is None else head.state_dict()
    adapters = [name for name in (*weights, *projection) if "adapter_layer." in name]
    if adapters:
        raise UserError(
            f"the safetensors format does not support adapters, but the model has {adapters[0].rpartition('.')[0]}"
        )
    if head is None:
        return weights
    weights = {f"encoder.{name}": value for name, value in weights.items()}
    return weights | {f"decoder.{name}": projection[f"decoder_layers.0.{name}"] for name in ("weight", "bias")}
