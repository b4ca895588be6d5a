"""A model to transcribe with: found by its name, and made ready."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from nemo_squeezeformer.errors import UserError


def load_model(name: str, device: Any, verbose: bool = False) -> Any:
    """A model that transcribes, as ``restore`` finds it.

    Raises:
        UserError: as ``restore`` does; a model that does not transcribe.
    """
    model = restore(name, device, verbose)
    if not hasattr(model, "transcribe_generator"):
        raise UserError(f"{name} is of class {type(model).__name__}, which does not transcribe; give an ASR model")
    return model


def restore(name: str, device: Any, verbose: bool = False) -> Any:
    """A .nemo file, or a pretrained model by its name, on ``device`` and in evaluation mode.

    Raises:
        UserError: no such file and no such pretrained model, or no network to fetch it (with ``verbose`` the cause
            itself is raised).
    """
    from nemo.collections.asr.models import ASRModel

    if Path(name).is_file():
        model = ASRModel.restore_from(name, map_location=device)
    else:
        try:
            model = ASRModel.from_pretrained(name, map_location=device)
        except UserError:
            raise
        except Exception as error:  # whatever the hub, the network or the cache raise
            if verbose:
                raise
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no reason given').splitlines()[0]}"
            raise UserError(
                f"{name!r} is no file, and could not be fetched as a pretrained model ({reason}); "
                "check the name and the network, or download the .nemo file and give its path"
            ) from error
    return model.to(device).eval()


def optimize(model: Any) -> None:
    """Has features of long audio made in pieces, and an encoder of ours without adapters optimised for inference."""
    from nemo_squeezeformer.integration.piecewise_preprocessor import in_pieces

    model.preprocessor = in_pieces(model.preprocessor)
    encoder: Any = getattr(model, "encoder", None)
    if hasattr(encoder, "optimize_for_inference") and not has_enabled_adapters(encoder):
        encoder.optimize_for_inference()


def has_enabled_adapters(encoder: Any) -> bool:
    """Whether PEFT adapters take part in what ``encoder`` computes."""
    return hasattr(encoder, "is_adapter_available") and encoder.is_adapter_available()


def choose_decoder(model: Any, decoder: str | None) -> None:
    """Has a hybrid model decode with its ``ctc`` or ``rnnt`` decoder; None is for its own choice.

    Raises:
        UserError: the model has no such decoder.
    """
    if decoder and hasattr(model, "cur_decoder"):
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    elif decoder and decoder != ("rnnt" if hasattr(model, "joint") else "ctc"):
        raise UserError(
            f"--decoder {decoder}: a model of class {type(model).__name__} has no such decoder; leave the option out"
        )


def enable_timestamps(model: Any) -> None:
    """Has the decoder of ``model`` keep when it said what, for hypotheses with timestamps.

    Raises:
        UserError: a model of this class does not give timestamps.
    """
    from omegaconf import open_dict
    from torch.utils.data import DataLoader

    if "timestamps" not in inspect.signature(model.transcribe).parameters:
        raise UserError(
            f"--timestamps: a model of class {type(model).__name__} does not give them; leave the option out"
        )
    if "window_stride" not in model.cfg.preprocessor:  # NeMo reads it there, also where it is the default
        with open_dict(model.cfg.preprocessor):
            hop = model.preprocessor.featurizer.hop_length
            model.cfg.preprocessor.window_stride = hop / model.preprocessor._sample_rate
    if not hasattr(model.get_transcribe_config(), "prompt"):
        # Each class of model turns its decoder's timestamps on in transcribe(), so let it transcribe nothing.
        model.transcribe(DataLoader([]), timestamps=True, verbose=False)  # type: ignore[arg-type]
