"""Tiny NeMo ASR models with this project's encoder: CTC, transducer and hybrid, with letters or word pieces.

The weights are random. The text of ``asr_model`` is not empty. ``spelling_model`` finds another token in nearly every
frame of the given audio, and therefore tests can see small differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece
import soundfile
import torch
from nemo.collections.asr import models
from omegaconf import OmegaConf
from torch import Tensor, nn

from nemo_squeezeformer import SqueezeformerEncoder
from tests.samples.encoders import SMALL, enliven, features
from tests.samples.speech import WORDS

LETTERS = sorted({letter for word in WORDS for letter in word} | {" "})
CLASSES = {
    ("ctc", "char"): models.EncDecCTCModel,
    ("ctc", "bpe"): models.EncDecCTCModelBPE,
    ("transducer", "char"): models.EncDecRNNTModel,
    ("transducer", "bpe"): models.EncDecRNNTBPEModel,
    ("hybrid", "char"): models.EncDecHybridRNNTCTCModel,
    ("hybrid", "bpe"): models.EncDecHybridRNNTCTCBPEModel,
}


def small_nemo_encoder(**settings: Any) -> SqueezeformerEncoder:
    """Return an encoder for NeMo in eval mode. It has four layers of width 16. The middle two are inside a U-Net."""
    torch.manual_seed(0)
    made = SqueezeformerEncoder(**(SMALL | {"time_reduce_idx": 1} | settings)).eval()
    enliven(made)
    return made


def write_tokenizer(folder: Path, size: int = 23) -> Path:
    """Write a SentencePiece model of the number words to ``folder``, with the file names of NeMo's tokenizer script."""
    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS), model_prefix=str(folder / "tokenizer"), vocab_size=size, minloglevel=2
    )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    (folder / "vocab.txt").write_text("\n".join(pieces.id_to_piece(i) for i in range(1, size)), encoding="utf-8")
    return folder


def asr_model(kind: str = "ctc", units: str = "char", *, tokenizer: Path | None = None, **changes: Any) -> Any:
    """Return a model of this ``kind`` in eval mode.

    Args:
        kind: ``ctc``, ``transducer`` or ``hybrid``.
        units: ``char`` or ``bpe``.
        tokenizer: The folder of the tokenizer, for ``bpe``.
        changes: Changes that are merged into the configuration, for example ``encoder={...}``.
    """
    torch.manual_seed(0)
    encoder = {"_target_": "nemo_squeezeformer.SqueezeformerEncoder", **SMALL, "feat_in": 80, "time_reduce_idx": 1}
    encoder.update(subsampling_factor=4, subsampling_conv_channels=16)
    ctc = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": None,
        "num_classes": len(LETTERS) if units == "char" else -1,
        "vocabulary": LETTERS if units == "char" else [],
    }
    config: dict[str, Any] = {
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "features": 80,
            "normalize": "per_feature",
            "window_stride": 0.01,
            "dither": 0.0,
        },
        "encoder": encoder,
        "optim": {"name": "adamw", "lr": 1e-3},
        "validation_ds": {"manifest_filepath": None, "sample_rate": 16000, "batch_size": 4, "shuffle": False},
    }
    config |= {"labels": LETTERS} if units == "char" else {"tokenizer": {"dir": str(tokenizer), "type": "bpe"}}
    if kind == "ctc":
        config["decoder"] = ctc
    else:
        config |= _transducer(hidden=SMALL["d_model"])
    if kind == "hybrid":
        config["aux_ctc"] = {"ctc_loss_weight": 0.3, "decoder": ctc, "decoding": {"strategy": "greedy"}}
    for key, change in changes.items():
        config[key] = config[key] | change if isinstance(config.get(key), dict) else change
    model = CLASSES[kind, units](OmegaConf.create(config)).eval()
    enliven(model.encoder)
    if kind != "transducer":
        _balance(model.encoder, (model.ctc_decoder if kind == "hybrid" else model.decoder).decoder_layers[0])
    return model


def spelling_model(kind: str, paths: Sequence[str], units: str = "char", **changes: Any) -> Any:
    """Return a model in the same way as ``asr_model``.

    Its decoders give all tokens the same average score on the audio of ``paths``.
    """
    model = asr_model(kind, units, **changes)
    with torch.no_grad():
        encodings = _encodings(model, paths)  # (N, D)
        if kind != "transducer":
            _spread((model.ctc_decoder if kind == "hybrid" else model.decoder).decoder_layers[0], encodings, 4.0)
        if kind != "ctc":
            _spread(model.joint.enc, encodings, 1.0)
            _spread_joint(model, encodings)
    return model


def log_probabilities(model: Any) -> torch.Tensor:
    """Return the log-probabilities `(2, T, V)` of two utterances of noise. The second utterance is padded."""
    audio = torch.randn(2, 16000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(input_signal=audio, input_signal_length=torch.tensor([16000, 11000]))[0]


def _balance(encoder: nn.Module, decoder: nn.Conv1d) -> None:
    """Give all tokens the same average score. A model with random weights then finds different tokens in the frames."""
    assert decoder.bias is not None
    with torch.no_grad():
        encoded, _ = encoder(audio_signal=features(2, 200, channels=80), length=torch.tensor([200, 200]))
        decoder.weight.mul_(4.0)
        decoder.bias.copy_(-decoder.weight[:, :, 0] @ encoded.mean(dim=(0, 2)))


def _transducer(hidden: int) -> dict[str, Any]:
    return {
        "model_defaults": {"enc_hidden": hidden, "pred_hidden": hidden, "joint_hidden": hidden},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {"pred_hidden": hidden, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "preserve_memory": False,
            "fuse_loss_wer": False,
            "jointnet": {"joint_hidden": hidden, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 2}},
        "loss": {"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}},
    }


def _encodings(model: Any, paths: Sequence[str]) -> Tensor:
    frames = []
    for path in paths:
        audio = torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None]
        features, lengths = model.preprocessor(input_signal=audio, length=torch.tensor([audio.size(1)]))
        encoded, lengths = model.encoder(audio_signal=features, length=lengths)
        frames.append(encoded[0, :, : lengths[0]].T)
    return torch.cat(frames)


def _spread(layer: nn.Linear | nn.Conv1d, x: Tensor, scale: float) -> None:
    """Change a layer in place. Its outputs for rows `(N, D)` then have a mean of 0 and a deviation of ``scale``."""
    assert layer.bias is not None
    weight = layer.weight.view(layer.weight.size(0), -1)
    y = x @ weight.T
    factor = scale / y.std(dim=0)
    weight.mul_(factor[:, None])
    layer.bias.copy_(-y.mean(dim=0) * factor)


def _spread_joint(model: Any, encodings: Tensor) -> None:
    """Change the joint network in place.

    All tokens get the same average score after every previous token. The blank wins in half of all cases.
    """
    joint, tokens = model.joint, torch.arange(len(model.joint.vocabulary))[:, None]
    states, _ = model.decoder.predict(tokens, add_sos=False)  # (V, 1, H)
    last = joint.joint_net[-1]

    def logits() -> Tensor:
        hidden = joint.joint_net[:-1](joint.enc(encodings)[:, None] + joint.pred(states[:, 0])[None])
        return last(hidden).flatten(0, 1)

    last.weight.mul_(4.0 / logits().std(dim=0)[:, None])
    last.bias.sub_(logits().mean(dim=0))
    y = logits()
    leads = (y[:, :-1].max(dim=1).values - y[:, -1]).sort().values
    middle = len(leads) // 2
    last.bias[-1] += leads[middle - 1 : middle + 1].mean()  # between two values: the median itself would make a tie
