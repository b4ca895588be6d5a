"""The conversion of the authors' weights and tokenizer to NeMo's CTC model.

The functions build the model from the recipe whose outputs equal the outputs of the authors' code.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nemo_squeezeformer.analysis.sizes import sizes
from nemo_squeezeformer.checkpoints.tensorflow import Original
from nemo_squeezeformer.files.outputs import written_whole
from nemo_squeezeformer.files.tokenizers import write_folder
from nemo_squeezeformer.training import recipes

RECIPE = "squeezeformer_ctc_bpe_original"
FINE_TUNING_LR = 1e-4  # for training with the configuration in the file; a recipe has another value


def write_model(original: Original, tokenizer: bytes, output: Path) -> None:
    """Write a ``.nemo`` file with the authors' weights and a SentencePiece model.

    The file ``output`` appears only when it is complete.
    """
    with tempfile.TemporaryDirectory() as folder, written_whole(output) as new:
        build_model(original, tokenizer, Path(folder)).save_to(str(new))


def build_model(original: Original, tokenizer: bytes, folder: Path) -> Any:
    """Return NeMo's EncDecCTCModelBPE with the authors' weights and a SentencePiece model, in evaluation mode.

    Args:
        original: the authors' weights.
        tokenizer: the bytes of the SentencePiece model.
        folder: an empty folder for the files of the tokenizer. The files must stay in the folder until the model is
            saved.
    """
    from omegaconf import open_dict

    write_folder(tokenizer, folder)
    size = published_size(original)
    cfg = recipes.compose(RECIPE, [f"size={size}"] if size else [])
    with open_dict(cfg.model):
        cfg.model.encoder.update(original.settings)
        cfg.model.preprocessor.features = original.settings["feat_in"]
        cfg.model.tokenizer.dir = str(folder)
        for split in ("train_ds", "validation_ds", "test_ds"):
            cfg.model[split].manifest_filepath = None
        # A schedule depends on the length of a training run, which is unknown here.
        cfg.model.optim.lr = FINE_TUNING_LR
        del cfg.model.optim.sched
    model = recipes.build(cfg)
    model.encoder.load_state_dict(original.encoder)
    weight, bias = original.nemo_decoder()
    model.decoder.decoder_layers.load_state_dict({"0.weight": weight, "0.bias": bias})
    model.cfg.tokenizer.dir = None  # the .nemo file contains the tokenizer, and the folder is removed
    return model.eval()


def published_size(original: Original) -> str | None:
    """Return the name of the published size, ``xs`` to ``l``, that has the settings of ``original``.

    Return None if no published size has these settings.
    """
    settings = original.settings
    width = settings["d_model"]
    common = {"feat_in": 80, "ff_expansion_factor": 4, "conv_kernel_size": 31, "subsampling_conv_channels": width}
    for name, size in sizes().items():
        if size.published and size.encoder.items() | common.items() <= settings.items():
            return name
    return None
