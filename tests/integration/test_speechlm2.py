"""Tests of speech language models (NeMo's SpeechLM2) with an encoder from a configuration or from a .nemo file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nemo_squeezeformer.training.recipes import build, compose
from tests.samples.model_types import MODEL_TYPES

pytest.importorskip("peft", reason="NeMo's SpeechLM2 needs nemo_toolkit[speechlm2]")
pytest.importorskip("accelerate", reason="NeMo's SpeechLM2 needs nemo_toolkit[speechlm2]")

PROMPT, AUDIO = "<user>", "<audio>"
CONFORMER = {  # the configuration of NeMo's speech language models, except _target_
    "_target_": "nemo_squeezeformer.SqueezeformerEncoder",
    "feat_in": 80,
    "feat_out": -1,
    "n_layers": 4,
    "d_model": 32,
    "subsampling": "dw_striding",
    "subsampling_factor": 4,
    "subsampling_conv_channels": 16,
    "causal_downsampling": False,
    "ff_expansion_factor": 4,
    "self_attention_model": "rel_pos",
    "n_heads": 4,
    "att_context_size": [-1, -1],
    "att_context_style": "regular",
    "xscaling": True,
    "untie_biases": True,
    "pos_emb_max_len": 5000,
    "conv_kernel_size": 9,
    "conv_norm_type": "batch_norm",
    "conv_context_size": None,
    "dropout": 0,
    "dropout_pre_encoder": 0,
    "dropout_emb": 0.0,
    "dropout_att": 0,
}
FEATURES = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    "features": 80,
    "window_stride": 0.01,
    "dither": 0.0,
}
ADAPTER = CONFORMER | {"feat_in": 32, "n_layers": 1, "subsampling_factor": 1}


def perception(adapter: dict[str, Any]) -> Any:
    from nemo.collections.speechlm2.modules.perception import AudioPerceptionModule

    torch.manual_seed(0)
    parts = {"preprocessor": FEATURES, "encoder": CONFORMER, "modality_adapter": adapter, "output_dim": 24}
    return AudioPerceptionModule(OmegaConf.create(parts))


def speech() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "input_signal": torch.randn(2, 16000, generator=generator),
        "input_signal_length": torch.tensor([16000, 8000]),
    }


@pytest.mark.parametrize("as_adapter", [False, True], ids=["encoder", "encoder and adapter"])
def test_perception_uses_the_encoder_if_only_the_target_changes(as_adapter):
    identity = {"_target_": "nemo.collections.speechlm2.modules.perception.IdentityConnector", "d_model": 32}
    heard = perception(ADAPTER if as_adapter else identity).train()
    assert heard.token_equivalent_duration == pytest.approx(0.04)
    embeddings, lengths = heard(**speech())
    assert embeddings.shape == (2, 28, 24)  # features are padded to 112 frames
    assert lengths.tolist() == [25, 13]
    embeddings.square().mean().backward()
    assert all(weight.grad is not None for weight in heard.encoder.parameters())


def test_activation_checkpointing_does_not_change_gradients():
    plain, checkpointed = (perception(ADAPTER).train() for _ in range(2))
    if not hasattr(plain, "set_activation_checkpointing"):
        pytest.skip("this NeMo does not checkpoint activations of perception")
    checkpointed.set_activation_checkpointing(True)
    for heard in (plain, checkpointed):
        heard(**speech())[0].square().mean().backward()
    renamed = {name.replace("_checkpoint_wrapped_module.", ""): p.grad for name, p in checkpointed.named_parameters()}
    assert any("_checkpoint_wrapped_module" in name for name, _ in checkpointed.named_parameters())
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(renamed[name], weight.grad, msg=f"gradients of {name} differ")


def language_model(folder: Path) -> str:
    """Write a tiny Llama model with random weights and a tokenizer of words, and return its path."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<unk>", "<s>", "</s>", "<pad>", "one", "two", PROMPT]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    small = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=16, **small)).save_pretrained(folder)
    return str(folder)


def test_salm_uses_a_saved_squeezeformer_model_as_pretrained_asr(tmp_path):
    from nemo.collections.speechlm2.models import SALM

    torch.manual_seed(0)
    kind = MODEL_TYPES["EncDecCTCModel"]
    asr = build(compose("squeezeformer_ctc_char", kind.overrides(tmp_path)))
    asr.save_to(str(tmp_path / "asr.nemo"))
    adapter = {"target": "nemo.collections.speechlm2.modules.perception.AudioPerceptionModule"}
    salm = SALM(
        {
            "pretrained_llm": language_model(tmp_path / "llm"),
            "pretrained_asr": str(tmp_path / "asr.nemo"),
            "pretrained_weights": True,
            "audio_locator_tag": AUDIO,
            "prompt_format": "llama2",
            "perception": adapter | {"modality_adapter": ADAPTER},
        }
    )
    for name, weight in asr.encoder.state_dict().items():
        torch.testing.assert_close(salm.perception.encoder.state_dict()[name], weight, rtol=0, atol=0)

    ids = torch.tensor([[6, salm.audio_locator_tag_id, 4, 5, 2]])
    signal = speech()
    batch = {"audios": signal["input_signal"][:1], "audio_lens": signal["input_signal_length"][:1], "input_ids": ids}
    inputs = salm.prepare_inputs(batch | {"loss_mask": torch.tensor([[False, False, True, True, True]])})
    # The audio tag becomes 25 frames, and the last token is only a target.
    assert inputs["input_embeds"].shape[1] == 4 + 25 - 1
    logits = salm(inputs["input_embeds"], attention_mask=inputs["attention_mask"])["logits"]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), inputs["target_ids"].flatten(), ignore_index=-100)
    loss.backward()
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in salm.perception.encoder.parameters())
    assert salm.perception.encoder.layers[0].self_attn.linear_q.weight.grad.any()
