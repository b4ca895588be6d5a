"""Functions that load a model by name and prepare the model for transcription."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.errors import UserError

if TYPE_CHECKING:
    from torch import nn

LONGEST_REASON = 400  # characters of an error of NeMo in a message of one line


def load_model(name: str, device: Any, verbose: bool = False) -> Any:
    """Return the ASR model ``name`` on ``device``. The function ``restore`` describes the arguments.

    Raises:
        UserError: ``restore`` fails, or the model does not transcribe.
    """
    model = restore(name, device, verbose)
    if not hasattr(model, "transcribe_generator"):
        raise UserError(f"{name} is of class {type(model).__name__}, which does not transcribe; give an ASR model")
    return model


def restore(name: str, device: Any, verbose: bool = False) -> Any:
    """Return the model ``name`` on ``device``, in evaluation mode.

    Args:
        name: the path of a .nemo file, or the name of a pretrained model.
        device: a ``torch.device``.
        verbose: if a model cannot be fetched or loaded, raise the original exception instead of a ``UserError``.

    Raises:
        UserError: there is no file and no pretrained model with this name, or the network does not work, or NeMo
            refuses the contents of the file.
    """
    from nemo.collections.asr.models import ASRModel

    is_file = Path(name).is_file()
    try:
        model = (ASRModel.restore_from if is_file else ASRModel.from_pretrained)(name, map_location=device)
    except UserError:
        raise
    except Exception as error:  # the contents, the model hub, the network and the cache raise many kinds of errors
        if verbose:
            raise
        raise UserError(_refusal(name, is_file, error)) from error
    finally:
        # NeMo does not do this after an error, and would then build the next model of this process without its data.
        ASRModel._set_model_restore_state(is_being_restored=False)
    return model.to(device).eval()


def _refusal(name: str, is_file: bool, error: Exception) -> str:
    """Return the message of the UserError for an error of NeMo."""
    if is_file and isinstance(error, pickle.UnpicklingError):
        return (
            f"{name} contains a configuration or another object among its weights, which PyTorch loads only from "
            "trusted files; if you trust the file, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment"
        )
    reason = " ".join(f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".split())
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]} ..."
    if is_file:
        return (
            f"{name} cannot be loaded ({reason}); give a complete .nemo file that this NeMo version supports, or pass "
            "--verbose to see the whole error"
        )
    return (
        f"{name!r} is not a file, and it could not be fetched as a pretrained model ({reason}); "
        "check the name and the network, or download the .nemo file and give its path"
    )


def optimize(model: Any) -> None:
    """Prepare a model for inference.

    The preprocessor computes the features of long audio in pieces. A Squeezeformer encoder is optimized for inference
    if no adapter is enabled.
    """
    from nemo_squeezeformer.integration.piecewise_preprocessor import in_pieces

    model.preprocessor = in_pieces(model.preprocessor)
    encoder = getattr(model, "encoder", None)
    if encoder is not None and hasattr(encoder, "optimize_for_inference") and not has_enabled_adapters(encoder):
        encoder.optimize_for_inference()


def has_enabled_adapters(encoder: nn.Module) -> bool:
    """Return True if ``encoder`` has enabled adapters. Enabled adapters change the output of the encoder."""
    is_adapter_available = getattr(encoder, "is_adapter_available", None)
    return is_adapter_available is not None and is_adapter_available()


def choose_decoder(model: Any, decoder: str | None) -> None:
    """Set the decoder of a hybrid model: ``ctc``, ``rnnt``, or None to keep the model's own choice.

    Raises:
        UserError: the model does not have this decoder.
    """
    if decoder and hasattr(model, "cur_decoder"):
        model.change_decoding_strategy(decoder_type=decoder, verbose=False)
    elif decoder and decoder != ("rnnt" if hasattr(model, "joint") else "ctc"):
        raise UserError(
            f"--decoder {decoder}: a model of class {type(model).__name__} does not have this decoder; "
            "leave out --decoder"
        )


def enable_timestamps(model: Any) -> None:
    """Make the decoder of ``model`` keep timestamps.

    Raises:
        UserError: models of this class do not give timestamps.
    """
    from omegaconf import open_dict
    from torch.utils.data import DataLoader

    if "timestamps" not in inspect.signature(model.transcribe).parameters:
        raise UserError(
            f"--timestamps: a model of class {type(model).__name__} does not give timestamps; leave out --timestamps"
        )
    if "window_stride" not in model.cfg.preprocessor:  # NeMo needs this value in the configuration
        with open_dict(model.cfg.preprocessor):
            hop = model.preprocessor.featurizer.hop_length
            model.cfg.preprocessor.window_stride = hop / model.preprocessor._sample_rate
    if not hasattr(model.get_transcribe_config(), "prompt"):
        # transcribe() enables the timestamps of the decoder, in a different way for each class of model. An empty
        # transcription therefore enables the timestamps for all classes.
        model.transcribe(DataLoader([]), timestamps=True, verbose=False)  # type: ignore[arg-type]
