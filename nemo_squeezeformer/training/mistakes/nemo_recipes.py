"""The class of the model of a recipe of NeMo. NeMo's recipes do not name the class, because each class has a script."""

from __future__ import annotations

import re
from typing import Any

MODELS = "nemo.collections.asr.models."
# The keys are: the decoder, whether the recipe also has the section ``aux_ctc``, and whether it has a tokenizer.
CLASSES = {
    ("ConvASRDecoder", False, False): "EncDecCTCModel",
    ("ConvASRDecoder", False, True): "EncDecCTCModelBPE",
    ("RNNTDecoder", False, False): "EncDecRNNTModel",
    ("RNNTDecoder", False, True): "EncDecRNNTBPEModel",
    ("RNNTDecoder", True, False): "EncDecHybridRNNTCTCModel",
    ("RNNTDecoder", True, True): "EncDecHybridRNNTCTCBPEModel",
}
# These words occur in recipes of other models that have the same decoders.
OTHERS = re.compile(r"\beou\b|prompt|transf_decoder", flags=re.IGNORECASE)


def model_of(cfg: Any) -> str | None:
    """Return the path of NeMo's class of models that fits the sections of a composed recipe, or None.

    The function knows the models for speech recognition with CTC, with a transducer, and with both.
    """
    from omegaconf import OmegaConf

    model = OmegaConf.select(cfg, "model", default=None)
    if not OmegaConf.is_dict(model) or OTHERS.search(OmegaConf.to_yaml(cfg)):
        return None
    target = OmegaConf.select(model, "decoder._target_", default="")
    decoder = str(target).rpartition(".")[2].replace("StatelessTransducerDecoder", "RNNTDecoder")
    name = CLASSES.get((decoder, model.get("aux_ctc") is not None, model.get("tokenizer") is not None))
    return name and MODELS + name
