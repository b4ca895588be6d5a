"""Functions that load a model by name and prepare the model for transcription."""

from __future__ import annotations

import contextlib
import inspect
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.finite_weights import complaint, not_finite
from nemo_squeezeformer.transcription.saved_settings import wrong_types

if TYPE_CHECKING:
    from torch import nn

LONGEST_REASON = 400  # characters of an error of NeMo in a message of one line
ABSTRACT = "Can't instantiate abstract class"  # NeMo's error after an error of the class that the file names


def load_model(name: str, device: Any, verbose: bool = False) -> Any:
    """Return the ASR model ``name`` on ``device``. The function ``restore`` describes the arguments.

    Raises:
        UserError: ``restore`` fails, or the model does not transcribe.
    """
    model = restore(name, device, verbose)
    if not hasattr(model, "transcribe_generator"):
        raise UserError(f"{name} is of class {type(model).__name__}, which does not transcribe; give an ASR model")
    return model


def restore(name: str, device: Any, verbose: bool = False, finite: bool = True) -> Any:
    """Return the model ``name`` on ``device``, in evaluation mode.

    Args:
        name: the path of a .nemo file or of a checkpoint (.ckpt), or the name of a pretrained model.
        device: a ``torch.device``.
        verbose: if a model cannot be fetched or loaded, raise the original exception instead of a ``UserError``, and
            show the errors that NeMo logs.
        finite: refuse weights and statistics that contain NaN or infinite values.

    Raises:
        UserError: there is no file and no pretrained model with this name, or the network does not work. The file is
            damaged or unsafe, NeMo refuses the contents of the file, or the weights are not finite.
    """
    from nemo.collections.asr.models import ASRModel

    from nemo_squeezeformer.transcription import lightning_checkpoint
    from nemo_squeezeformer.transcription.checked_restore import checked_connector

    is_file, connector = Path(name).is_file(), checked_connector()
    restored = ASRModel.restore_from if is_file else ASRModel.from_pretrained
    try:
        with contextlib.nullcontext() if verbose else _without_errors_of_nemo():
            if lightning_checkpoint.is_checkpoint(name):
                model = lightning_checkpoint.build(name, device)
            else:
                model = restored(name, map_location=device, save_restore_connector=connector)
    except UserError:
        raise
    except Exception as error:  # the contents, the model hub, the network and the cache raise many kinds of errors
        reason = connector.reason if connector.reason is not None and ABSTRACT in str(error) else error
        if verbose:
            raise reason from error
        raise UserError(_refusal(name, is_file, reason, connector.settings)) from reason
    finally:
        # NeMo does not do this after an error, and would then build the next model of this process without its data.
        ASRModel._set_model_restore_state(is_being_restored=False)
    tensors = model.state_dict()
    if finite and (wrong := not_finite(tensors)):
        raise UserError(f"{name}: {complaint(wrong, len(tensors))}")
    return model.to(device).eval()


@contextlib.contextmanager
def _without_errors_of_nemo() -> Iterator[None]:
    """Hide the errors that NeMo logs before it raises an exception. A message of one line replaces them."""
    before = logging.root.manager.disable
    logging.disable(max(before, logging.ERROR))
    try:
        yield
    finally:
        logging.disable(before)


def _refusal(name: str, is_file: bool, error: BaseException, settings: Any) -> str:
    """Return the message of the UserError for an error of NeMo.

    ``settings`` is the configuration in the file, or None if NeMo did not reach the configuration.
    """
    if is_file and isinstance(error, pickle.UnpicklingError):
        return (
            f"{name} contains a configuration or another object among its weights, which PyTorch loads only from "
            "trusted files; if you trust the file, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 in the environment"
        )
    while error.__cause__ is not None:  # Hydra raises an error whose message contains lines of other programs
        error = error.__cause__
    reason = " ".join(f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".split())
    if len(reason) > LONGEST_REASON:
        reason = f"{reason[:LONGEST_REASON]} ..."
    if settings is not None:
        reason = "; ".join([reason, *wrong_types(settings)[:3]])
    if is_file or settings is not None:
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


def enable_timestamps(model: Any, option: str = "--timestamps") -> None:
    """Make the decoder of ``model`` keep timestamps.

    Args:
        option: the option that needs timestamps.

    Raises:
        UserError: models of this class do not give timestamps.
    """
    from omegaconf import open_dict
    from torch.utils.data import DataLoader

    if "timestamps" not in inspect.signature(model.transcribe).parameters:
        raise UserError(
            f"{option}: a model of class {type(model).__name__} does not give timestamps; leave out {option}"
        )
    if "window_stride" not in model.cfg.preprocessor:  # NeMo needs this value in the configuration
        with open_dict(model.cfg.preprocessor):
            hop = model.preprocessor.featurizer.hop_length
            model.cfg.preprocessor.window_stride = hop / model.preprocessor._sample_rate
    if not hasattr(model.get_transcribe_config(), "prompt"):
        # transcribe() enables the timestamps of the decoder, in a different way for each class of model. An empty
        # transcription therefore enables the timestamps for all classes.
        model.transcribe(DataLoader([]), timestamps=True, verbose=False)  # type: ignore[arg-type]
