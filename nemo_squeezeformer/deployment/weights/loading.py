"""The reading of a model from a folder, with torch and safetensors only."""

from __future__ import annotations

import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model
from torch import Tensor, nn

from nemo_squeezeformer import core
from nemo_squeezeformer.deployment.token_text import text
from nemo_squeezeformer.errors import UserError

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
    """

    def __init__(self, encoder: core.SqueezeformerEncoder, ctc: Mapping[str, Any]):
        super().__init__()
        self.ctc = ctc
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

    def texts(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """Return the text of each row of the output of ``forward``, by greedy decoding."""
        rows = (row[:length].unique_consecutive().tolist() for row, length in zip(log_probs.argmax(-1), lengths))
        return [text([token for token in row if token != self.ctc["blank"]], self.ctc) for row in rows]


def load(folder: str | Path) -> SqueezeformerCTC | core.SqueezeformerEncoder:
    """Return the model in ``folder``, on the CPU, in evaluation mode and in the dtypes of the weights.

    If ``ctc`` is null in the configuration, the model is a ``core.SqueezeformerEncoder``.

    Raises:
        UserError: Fields or tensors are missing or unknown, or tensors have other shapes. The message names these
            fields or tensors.
    """
    config, weights = Path(folder, CONFIG), Path(folder, WEIGHTS)
    model = build(read_config(config), config)
    try:
        adopt_types(model, load_file(weights))
        load_model(model, weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise UserError(f"{weights}: {error}") from error
    return model.eval()


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
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: encoder: {error}") from error
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
        raise UserError(f"{where} is {given!r}; expected an object with names and values")
    for what, names in (("unknown", set(given) - set(known)), ("missing", set(required) - set(given))):
        if names:
            raise UserError(f"{where}: {what} names: {', '.join(sorted(map(str, names)))}")


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration at ``path``.

    Raises:
        UserError: The file is not a configuration of this version, or fields are missing or unknown.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; give a folder that `nemo-squeezeformer export` wrote") from error
    version = config.get("version") if isinstance(config, dict) else None
    if version != VERSION:
        raise UserError(f"{path} has version {version}, not {VERSION}; write the folder again with this package")
    check_names(config, FIELDS, str(path), required=FIELDS)
    if config["ctc"] is not None:
        check_names(config["ctc"], CTC_FIELDS, f"{path}: ctc", required=CTC_FIELDS)
        if config["ctc"]["blank"] != len(config["ctc"]["tokens"]):
            raise UserError(
                f"{path}: ctc: blank is {config['ctc']['blank']}; expected {len(config['ctc']['tokens'])}, which is "
                "the number of tokens"
            )
    return config
