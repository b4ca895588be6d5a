"""Run by NeMo 2.7.3: writes ``.nemo`` files as its users have them, and the log-probabilities that they give.

    python write_old_files.py FOLDER

For each model: ``NAME.nemo``, and ``NAME.pt`` with ``log_probs`` (2, T, V) and ``lengths`` of ``audio.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sentencepiece
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModel, EncDecCTCModelBPE
from nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module import (
    RelPositionMultiHeadAttentionAdapterConfig,
)
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins import adapter_mixins
from omegaconf import OmegaConf

ENCODER = "nemo.collections.asr.modules.SqueezeformerEncoder"
LETTERS = list("abcdefgh '")
WORDS = ["a bad cafe", "he had a bag", "feed a bee", "cabbage head", "each age", "dead beef", "fade a face"]


def config(**model) -> OmegaConf:
    return OmegaConf.create(
        {
            "sample_rate": 16000,
            "preprocessor": {
                "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
                "features": 80,
                "normalize": "per_feature",
                "dither": 0.0,
                "window_stride": 0.01,
            },
            "encoder": {
                "_target_": ENCODER,
                "feat_in": 80,
                "n_layers": 5,
                "d_model": 32,
                "time_reduce_idx": 1,
                "time_recovery_idx": None,
                "conv_kernel_size": 15,
            },
            "decoder": {
                "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
                "feat_in": None,
                "num_classes": -1,
                "vocabulary": [],
            },
        }
        | model
    )


def char_model(encoder: str = ENCODER) -> ASRModel:
    cfg = config(labels=LETTERS)
    cfg.decoder.update(num_classes=len(LETTERS), vocabulary=LETTERS)
    cfg.encoder._target_ = encoder
    return EncDecCTCModel(cfg)


def bpe_model(folder: Path) -> ASRModel:
    (folder / "tokenizer").mkdir(exist_ok=True)
    prefix = str(folder / "tokenizer" / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(WORDS), model_prefix=prefix, vocab_size=24)
    pieces = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(pieces.id_to_piece(i) for i in range(1, 24)))
    return EncDecCTCModelBPE(config(tokenizer={"dir": str(folder / "tokenizer"), "type": "bpe"}))


def adapted_model() -> ASRModel:
    """As NeMo's train_asr_adapter.py makes one: the class that takes adapters is named in the configuration."""
    model = char_model(adapter_mixins.get_registered_adapter(ENCODER).adapter_class_path)
    model.add_adapter("linear", LinearAdapterConfig(in_features=32, dim=8))
    model.add_adapter("attention", RelPositionMultiHeadAttentionAdapterConfig(n_head=4, n_feat=32))
    return model


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    audio, lengths = torch.randn(2, 24000), torch.tensor([24000, 17000])
    torch.save({"audio": audio, "lengths": lengths}, folder / "audio.pt")
    for name, model in {"char": char_model(), "bpe": bpe_model(folder), "adapted": adapted_model()}.items():
        assert type(model.encoder).__module__.startswith("nemo."), type(model.encoder)
        for parameter in model.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))  # adapters start as the identity, norms at 1
        model.eval()
        with torch.no_grad():
            log_probs, encoded_lengths, _ = model(input_signal=audio, input_signal_length=lengths)
        model.save_to(str(folder / f"{name}.nemo"))
        torch.save({"log_probs": log_probs.clone(), "lengths": encoded_lengths.clone()}, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
