"""Write ``.nemo`` files like the files of NeMo 2.7.3 users, with their outputs. NeMo 2.7.3 runs this program.

    python write_old_files.py FOLDER

For each model the folder gets ``NAME.nemo``, and ``NAME.pt`` with the result of ``outputs.py`` for ``audio.pt``. The
adapters of ``later.pt`` are only in ``later_adapters.pt``; ``later.nemo`` is the model without adapters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import sentencepiece
import torch
from nemo.collections.asr.models import (
    ASRModel,
    EncDecCTCModel,
    EncDecCTCModelBPE,
    EncDecHybridRNNTCTCBPEModel,
    EncDecRNNTBPEModel,
)
from nemo.collections.asr.parts.submodules.adapters.multi_head_attention_adapter_module import (
    RelPositionMultiHeadAttentionAdapterConfig,
)
from nemo.collections.common.parts.adapter_modules import LinearAdapterConfig
from nemo.core.classes.mixins import adapter_mixins
from omegaconf import OmegaConf
from outputs import outputs  # from the folder of this program

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


def write_tokenizer(folder: Path) -> dict[str, str]:
    folder.mkdir()
    prefix = str(folder / "tokenizer")
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(WORDS), model_prefix=prefix, vocab_size=24)
    pieces = sentencepiece.SentencePieceProcessor(model_file=prefix + ".model")
    (folder / "vocab.txt").write_text("\n".join(pieces.id_to_piece(i) for i in range(1, 24)))
    return {"dir": str(folder), "type": "bpe"}


def bpe_model(tokenizer: dict[str, str]) -> ASRModel:
    """Return a model with the subsampling of NeMo's Squeezeformer recipes."""
    cfg = config(tokenizer=tokenizer)
    cfg.encoder.subsampling = "dw_striding"
    return EncDecCTCModelBPE(cfg)


def transducer_model(tokenizer: dict[str, str], ctc: bool) -> ASRModel:
    """Return a transducer or, with ``ctc``, a hybrid model with an additional CTC decoder."""
    cfg = config(
        tokenizer=tokenizer,
        model_defaults={"enc_hidden": 32, "pred_hidden": 24, "joint_hidden": 24},
        decoder={
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "prednet": {"pred_hidden": 24, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        joint={
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None,
            "jointnet": {"joint_hidden": 24, "activation": "relu", "dropout": 0.0},
        },
        decoding={"strategy": "greedy_batch", "greedy": {"max_symbols": 3}},
        loss={"loss_name": "default", "warprnnt_numba_kwargs": {"fastemit_lambda": 0.0}},
    )
    if ctc:
        cfg.aux_ctc = {"ctc_loss_weight": 0.3, "decoder": config().decoder, "decoding": {"strategy": "greedy"}}
    return (EncDecHybridRNNTCTCBPEModel if ctc else EncDecRNNTBPEModel)(cfg)


def adapted_model() -> ASRModel:
    """Return a model with adapters, as NeMo's train_asr_adapter.py makes it.

    Its configuration names the encoder class that accepts adapters.
    """
    model = char_model(adapter_mixins.get_registered_adapter(ENCODER).adapter_class_path)
    model.add_adapter("linear", LinearAdapterConfig(in_features=32, dim=8))
    model.add_adapter("attention", RelPositionMultiHeadAttentionAdapterConfig(n_head=4, n_feat=32))
    return model


def write_adapters_alone(folder: Path) -> ASRModel:
    """Save adapters that were added later, without their model.

    No adapter name is part of another name, because NeMo's loading requires that.
    """
    model = char_model()
    perturb(model)
    model.save_to(str(folder / "later.nemo"))
    model.replace_adapter_compatible_modules()
    model.add_adapter("houlsby", LinearAdapterConfig(in_features=32, dim=8))
    model.add_adapter("attention", RelPositionMultiHeadAttentionAdapterConfig(n_head=4, n_feat=32))
    for name, parameter in model.named_parameters():
        if "adapter" in name:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_adapters(str(folder / "later_adapters.pt"))
    return model


def perturb(model: ASRModel) -> None:
    """Change all weights at random.

    Adapters start as the identity and norms at 1. With larger weights, a transducer also decodes more than blanks.
    """
    for name, parameter in model.named_parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
        if name.startswith("joint.") and parameter.dim() == 2:
            parameter.data.mul_(2)


def record(model: ASRModel, folder: Path, name: str) -> None:
    """Write the outputs of ``model`` for the audio to ``NAME.pt``."""
    torch.save(outputs(model, torch.load(folder / "audio.pt")), folder / f"{name}.pt")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    audio, lengths = torch.randn(2, 24000), torch.tensor([24000, 17000])
    torch.save({"audio": audio, "lengths": lengths}, folder / "audio.pt")
    tokenizer = write_tokenizer(folder / "tokenizer")
    models = {
        "char": char_model(),
        "bpe": bpe_model(tokenizer),
        "adapted": adapted_model(),
        "transducer": transducer_model(tokenizer, ctc=False),
        "hybrid": transducer_model(tokenizer, ctc=True),
    }
    for name, model in models.items():
        assert type(model.encoder).__module__.startswith("nemo."), type(model.encoder)
        perturb(model)
        model.save_to(str(folder / f"{name}.nemo"))
        record(model, folder, name)
    record(write_adapters_alone(folder), folder, "later")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
