"""The reading of a model from a folder, and the texts of samples, with torch and safetensors only."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from nemo_squeezeformer import core
from nemo_squeezeformer.deployment.token_text import text
from nemo_squeezeformer.deployment.weights.folder_check import (
    check_count,
    check_shapes,
    check_types,
    read_header,
    read_json,
    require_file,
)
from nemo_squeezeformer.deployment.weights.preprocessors import preprocessor_of
from nemo_squeezeformer.errors import UserError
from nemo_squeezeformer.files.finite_weights import complaint, not_finite

if TYPE_CHECKING:
    import numpy as np

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.model"
VERSION = 1
FIELDS = ("version", "nemo_squeezeformer", "encoder", "default_att_context_size", "ctc", "features")
CTC_FIELDS = ("blank", "tokens", "units", "leading_spaces")
ENCODER_ARGUMENTS = inspect.signature(core.SqueezeformerEncoder).parameters


class SqueezeformerCTC(nn.Module):
    """An encoder and a projection to the tokens and the blank. The blank is the last output of the projection.

    Args:
        encoder: Encoder.
        ctc: Field ``ctc`` of the configuration.

    Attributes:
        preprocessor: The module that computes the features from samples. Its arguments are samples (B, N) and lengths
            (B,). ``load`` sets the module. None if the configuration describes no features.
    """

    def __init__(self, encoder: core.SqueezeformerEncoder, ctc: Mapping[str, Any]):
        super().__init__()
        self.ctc = ctc
        self.preprocessor: nn.Module | None = None
        self.encoder = encoder
        self.decoder = nn.Conv1d(encoder.feat_out, len(ctc["tokens"]) + 1, kernel_size=1)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the log-probabilities of the tokens, and the number of valid encoder frames.

        Args:
            features: Features (B, F, T).
            lengths: Number of valid feature frames (B,); None means that all feature frames are valid.

        Returns:
            Log-probabilities (B, T', V) of T' encoder frames, and the number of valid encoder frames (B,).
        """
        x, lengths = self.encoder(features, lengths)
        return self.decoder(x).transpose(1, 2).log_softmax(dim=-1), lengths

    @torch.inference_mode()
    def transcribe(self, samples: Tensor | np.ndarray | Sequence[Tensor | np.ndarray]) -> list[str]:
        """Return the text of each utterance, by greedy decoding. All utterances are computed in one batch.

        Args:
            samples: The samples (N,) of an utterance, or a list of utterances. The samples are numbers from -1 to 1, of
                one channel, at the sample rate ``preprocessor.sample_rate``.

        Raises:
            UserError: The folder does not describe the features, or the samples do not have the shape (N,) or are
                not finite.
        """
        if self.preprocessor is None:
            raise UserError(
                "config.json describes no features; compute the features in your program, and call the model with them"
            )
        one = isinstance(samples, Tensor) or hasattr(samples, "ndim")
        weight = next(self.encoder.parameters())
        try:
            signals = [torch.as_tensor(signal, device=weight.device) for signal in ([samples] if one else samples)]
        except (TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"samples of type {type(samples).__name__}: {reason}; give arrays or tensors") from error
        for signal in signals:
            if signal.dim() != 1 or not signal.is_floating_point():
                raise UserError(
                    f"samples of shape {tuple(signal.shape)} and dtype {signal.dtype}: expected numbers from -1 to 1 "
                    "of one channel, with the shape (N,)"
                )
            if not signal.isfinite().all():
                raise UserError("the samples contain NaN or infinite values; check how the audio is read")
        if not signals:
            return []
        lengths = torch.tensor([len(signal) for signal in signals], device=weight.device)
        features, frames = self.preprocessor(nn.utils.rnn.pad_sequence(signals, batch_first=True).float(), lengths)
        texts = [""] * len(signals)
        long = frames.nonzero()[:, 0]  # an utterance without a frame has no text
        if len(long):
            found = self.texts(*self(features[long].to(weight.dtype), frames[long]))
            for index, text_of in zip(long.tolist(), found):
                texts[index] = text_of
        return texts

    def texts(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row of the output of ``forward``, by greedy decoding."""
        rows = (row[:length].unique_consecutive().tolist() for row, length in zip(log_probs.argmax(-1), lengths))
        return [text([token for token in row if token != self.ctc["blank"]], self.ctc) for row in rows]


def load(folder: str | Path) -> SqueezeformerCTC | core.SqueezeformerEncoder:
    """Return the model in ``folder``, on the CPU, in evaluation mode and in the dtypes of the weights.

    If ``ctc`` is null in the configuration, the model is a ``core.SqueezeformerEncoder``. Otherwise the method
    ``transcribe`` of the model returns the text of samples.

    The shapes that the configuration needs are compared with the header of the weights before the model is built.

    Raises:
        UserError: A file is missing, damaged or a link to another place. Fields or tensors are missing or unknown, or
            tensors have other shapes, or contain NaN or infinite values. The message names these fields or tensors.
    """
    config = require_file(Path(folder), CONFIG)
    described = read_config(config)
    weights = require_file(Path(folder), WEIGHTS)
    header = read_header(weights)
    check_count(config, described["encoder"], header)
    with torch.device("meta"):
        check_shapes(build(described, config), header, weights)
    model = build(described, config)
    try:
        tensors = load_file(weights)
        adopt_types(model, tensors)
        load_model(model, weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{weights}: {' '.join(str(error).split())[:300]}") from error
    if wrong := not_finite(tensors):
        raise UserError(f"{weights}: {complaint(wrong, len(tensors))}")
    if isinstance(model, SqueezeformerCTC):
        model.preprocessor = preprocessor_of(described["features"], config)
    return model.eval()


def load_preprocessor(folder: str | Path) -> nn.Module | None:
    """Return the module that computes the features from samples, or None if the folder does not describe the features.

    A folder with only an encoder describes the features too. ``core.mel.MelSpectrogram`` and
    ``core.original_mel.OriginalMelSpectrogram`` describe the arguments and the results of the module.

    Raises:
        UserError: The configuration is missing or damaged, or has a setting that is not supported.
    """
    config = require_file(Path(folder), CONFIG)
    return preprocessor_of(read_config(config)["features"], config)


def build(config: Mapping[str, Any], source: object) -> SqueezeformerCTC | core.SqueezeformerEncoder:
    """Return the model that ``config`` describes, with random weights.

    Args:
        config: Configuration.
        source: Name of the configuration in error messages.

    Raises:
        UserError: Settings are unknown, missing or wrong.
    """
    check_names(config["encoder"], ENCODER_ARGUMENTS, f"{source}: encoder", required=())
    try:
        encoder = core.SqueezeformerEncoder(**config["encoder"])
        encoder.set_default_att_context_size(config["default_att_context_size"])
    except (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"{source}: encoder: {reason}") from error
    return encoder if config["ctc"] is None else SqueezeformerCTC(encoder, config["ctc"])


def adopt_types(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Convert the tensors of ``model`` to the dtypes of ``weights``. Tensors that share memory still share memory.

    Raises:
        RuntimeError: A weight has an integer dtype in place of a floating-point dtype, or a floating-point dtype in
            place of an integer dtype.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        dtype = weights[name].dtype if name in weights else tensor.dtype
        if dtype.is_floating_point != tensor.is_floating_point():
            raise RuntimeError(f"{name} has dtype {dtype}; expected {tensor.dtype} or a similar dtype")
        tensor.data = tensor.data.to(dtype)


def check_names(given: object, known: Collection[str], where: str, required: Collection[str]) -> None:
    """Raise UserError if ``given`` is not a mapping, has names that are not ``known``, or lacks ``required`` names.

    ``where`` is the name of the mapping in the message.
    """
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {ascii(given)[:80]}; expected an object with names and values")
    for what, names in (("unknown", set(given) - set(known)), ("missing", set(required) - set(given))):
        if names:
            shown = ", ".join(sorted(ascii(str(name)[:100])[1:-1] for name in names)[:10])
            raise UserError(f"{where}: {what} names: {shown}")


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration at ``path``.

    Raises:
        UserError: The file is not a configuration of this version, or fields are missing or unknown.
    """
    config = read_json(path)
    version = config.get("version") if isinstance(config, dict) else None
    if version != VERSION:
        raise UserError(
            f"{path} has version {ascii(version)[:80]}, not {VERSION}; write the folder again with this package"
        )
    check_names(config, FIELDS, str(path), required=FIELDS)
    check_names(config["encoder"], ENCODER_ARGUMENTS, f"{path}: encoder", required=())
    check_types(config["encoder"], ENCODER_ARGUMENTS, f"{path}: encoder")
    if config["ctc"] is not None:
        check_names(config["ctc"], CTC_FIELDS, f"{path}: ctc", required=CTC_FIELDS)
        _check_ctc(config["ctc"], path)
    return config


def _check_ctc(ctc: Mapping[str, Any], path: Path) -> None:
    """Raise UserError if a field of ``ctc`` has a wrong value."""
    tokens = ctc["tokens"]
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise UserError(f"{path}: ctc: tokens is {ascii(tokens)[:80]}; expected a list of texts")
    if type(ctc["blank"]) is not int or ctc["blank"] != len(tokens):
        raise UserError(
            f"{path}: ctc: blank is {ascii(ctc['blank'])[:80]}; expected {len(tokens)}, which is the number of tokens"
        )
    for field, values in (("units", ("characters", "sentencepiece")), ("leading_spaces", ("none", "one", "all"))):
        if ctc[field] not in values:
            raise UserError(f"{path}: ctc: {field} is {ascii(ctc[field])[:80]}; expected {' or '.join(values)}")
