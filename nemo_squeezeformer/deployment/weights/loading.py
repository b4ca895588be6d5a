"""From a folder to the model, with torch and safetensors alone."""

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
    """The encoder and a projection to the tokens and the blank, which is the last.

    Args:
        ctc: as in the config.
    """

    def __init__(self, encoder: core.SqueezeformerEncoder, ctc: Mapping[str, Any]):
        super().__init__()
        self.ctc = ctc
        self.encoder = encoder
        self.decoder = nn.Conv1d(encoder.feat_out, len(ctc["tokens"]) + 1, kernel_size=1)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, F, T) features and their lengths (B,) -> (B, T, V) log-probabilities at the encoder's rate, and lengths.

        Without ``lengths`` all frames are valid.
        """
        x, lengths = self.encoder(features, lengths)
        return self.decoder(x).transpose(1, 2).log_softmax(dim=-1), lengths

    def texts(self, log_probs: Tensor, lengths: Tensor) -> list[str]:
        """What ``forward`` gave -> the text of each row, by the likeliest token of each frame."""
        rows = (row[:length].unique_consecutive().tolist() for row, length in zip(log_probs.argmax(-1), lengths))
        return [text([token for token in row if token != self.ctc["blank"]], self.ctc) for row in rows]


def load(folder: str | Path) -> SqueezeformerCTC | core.SqueezeformerEncoder:
    """The model in ``folder``, on the CPU, in evaluation mode and of the weights' own types.

    A ``core.SqueezeformerEncoder`` where the config has no ``ctc``.

    Raises:
        UserError: for fields or tensors that are missing, unknown or of another shape; it names them.
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
    """The model of ``config``, with random weights; ``source`` is what errors call it.

    Raises:
        UserError: for settings that are unknown, missing or wrong.
    """
    check_names(config["encoder"], ENCODER_ARGUMENTS, f"{source}: encoder", required=())
    try:
        encoder = core.SqueezeformerEncoder(**config["encoder"])
        encoder.set_default_att_context_size(config["default_att_context_size"])
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}: encoder: {error}") from error
    return encoder if config["ctc"] is None else SqueezeformerCTC(encoder, config["ctc"])


def adopt_types(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Gives the tensors of ``model`` the types of ``weights``; those that share memory go on sharing it.

    Raises:
        RuntimeError: for whole numbers where fractions belong, and the other way round.
    """
    for name, tensor in model.state_dict(keep_vars=True).items():
        dtype = weights[name].dtype if name in weights else tensor.dtype
        if dtype.is_floating_point != tensor.is_floating_point():
            raise RuntimeError(f"{name} is of {dtype}, and {tensor.dtype} or the like belongs there")
        tensor.data = tensor.data.to(dtype)


def check_names(given: object, known: Collection[str], where: str, required: Collection[str]) -> None:
    """Raises UserError unless ``given`` is a dictionary of ``known`` names, with all that are ``required``."""
    if not isinstance(given, Mapping):
        raise UserError(f"{where} is {given!r}; expected an object with names and values")
    for what, names in (("unknown", set(given) - set(known)), ("missing", set(required) - set(given))):
        if names:
            raise UserError(f"{where}: {what}: {', '.join(sorted(map(str, names)))}")


def read_config(path: Path) -> dict[str, Any]:
    """The config at ``path``; UserError where it is not one of this version, with all its fields and no others."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; give a folder that `nemo-squeezeformer export` wrote") from error
    version = config.get("version") if isinstance(config, dict) else None
    if version != VERSION:
        raise UserError(f"{path} is of version {version}, not {VERSION}; write the folder again with this package")
    check_names(config, FIELDS, str(path), required=FIELDS)
    if config["ctc"] is not None:
        check_names(config["ctc"], CTC_FIELDS, f"{path}: ctc", required=CTC_FIELDS)
        if config["ctc"]["blank"] != len(config["ctc"]["tokens"]):
            raise UserError(f"{path}: ctc: blank is {config['ctc']['blank']}, not {len(config['ctc']['tokens'])}, last")
    return config
